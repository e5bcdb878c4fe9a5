"""NodeResourcesFit and NodeResourcesBalancedAllocation.

Sources: pkg/scheduler/framework/plugins/noderesources (fit.go, least_allocated.go,
balanced_allocation.go). Filtering compares plain requests; LeastAllocated works on "non-zero"
requests, where a container that asks for nothing counts as 100m and 200 MiB.
"""

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import CPU, MEMORY, NodeView
from scheduler.core.plugin import MAX_NODE_SCORE, FilterPlugin, FilterResult, ScorePlugin, Scores, Wake
from scheduler.core.pod_info import PodInfo

TOO_MANY_PODS = "Too many pods"
_TOO_MANY_PODS_BIT = np.uint64(1)
_MAX_BIT = 63

Column = NDArray[np.int64]


class NodeResourcesFit(FilterPlugin, ScorePlugin):
    """Filter: enough of every requested resource. Score: LeastAllocated over cpu and memory."""

    name = "NodeResourcesFit"
    reads = ("requests", "scored_requests")
    reads_usage = True
    wakes_on = Wake.NODE_ADD | Wake.NODE_ALLOCATABLE | Wake.ASSIGNED_POD_REMOVED

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        # A pod may name more resources than there are bits; the surplus shares the last one.
        return (TOO_MANY_PODS, *[f"Insufficient {name}" for name in pod.requests][:_MAX_BIT])

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        bits = (nodes.pod_count >= nodes.pod_limit) * _TOO_MANY_PODS_BIT
        unresolvable = np.zeros(nodes.count, np.bool_)
        allocatable, requested = nodes.allocatable, nodes.requested
        for k, (resource, amount) in enumerate(pod.requests.items(), start=1):
            row = nodes.resources.get(resource)
            bit = np.uint64(1 << min(k, _MAX_BIT))
            if row is None:  # no node has ever had any of it
                bits |= bit
                unresolvable[:] = True
                continue
            total = allocatable[row]
            bits |= (amount > total - requested[row]) * bit
            unresolvable |= amount > total
        return FilterResult(bits, unresolvable)

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        # Spelled out for the two resources: on the one row that a placement changes, numpy's cost is
        # the number of calls.
        cpu, memory = nodes.allocatable[CPU], nodes.allocatable[MEMORY]
        used_cpu, used_memory = nodes.nonzero_requested
        cpu_request, memory_request = pod.scored_requests
        score = _free_percent(cpu - used_cpu - cpu_request, cpu)
        score += _free_percent(memory - used_memory - memory_request, memory)
        # A resource that the node does not have is left out of the mean.
        resources = np.maximum((cpu > 0).astype(np.int64) + (memory > 0), 1)
        return np.asarray(score // resources, np.int64)


def _free_percent(free: Column, allocatable: Column) -> Column:
    return np.asarray(np.maximum(free, 0) * MAX_NODE_SCORE // np.maximum(allocatable, 1), np.int64)


class NodeResourcesBalancedAllocation(ScorePlugin):
    """Favours nodes whose cpu and memory become used in more equal parts by the pod."""

    name = "NodeResourcesBalancedAllocation"
    reads = ("requests",)
    reads_usage = True

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        cpu_request, memory_request = pod.requests.get("cpu", 0), pod.requests.get("memory", 0)
        if not (cpu_request or memory_request):  # best-effort pods are not balanced (kubernetes#129138)
            return np.zeros(nodes.count, np.int64)
        allocatable, allocated = nodes.allocatable, nodes.requested
        cpu, memory = allocatable[CPU], allocatable[MEMORY]
        used_cpu, used_memory = allocated[CPU], allocated[MEMORY]
        after = _balance(used_cpu + cpu_request, cpu, used_memory + memory_request, memory)
        half = MAX_NODE_SCORE // 2
        before = _balance(used_cpu, cpu, used_memory, memory)
        return np.asarray(half + (half + after - before) // 2, np.int64)


def _balance(used_cpu: Column, cpu: Column, used_memory: Column, memory: Column) -> Column:
    """int64[n]: (1 - standard deviation of the two used fractions) in percent, truncated."""
    cpu_fraction = np.minimum(used_cpu / np.maximum(cpu, 1), 1.0)
    memory_fraction = np.minimum(used_memory / np.maximum(memory, 1), 1.0)
    deviation = np.abs(cpu_fraction - memory_fraction) / 2
    if np.count_nonzero(cpu) + np.count_nonzero(memory) < 2 * cpu.size:  # a single resource does not deviate
        deviation[(cpu == 0) | (memory == 0)] = 0.0
    return np.asarray((1 - deviation) * MAX_NODE_SCORE, np.int64)
