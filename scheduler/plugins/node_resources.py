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
_SCORED = [CPU, MEMORY]


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
        allocatable = nodes.allocatable[_SCORED]
        pod_request = np.array(pod.scored_requests, np.int64)[:, None]
        requested = nodes.nonzero_requested + pod_request
        free = np.maximum(allocatable - requested, 0)
        counted = allocatable > 0
        per_resource = free * MAX_NODE_SCORE // np.where(counted, allocatable, 1)
        weights: NDArray[np.int64] = counted.sum(axis=0)
        return np.asarray((per_resource * counted).sum(axis=0) // np.maximum(weights, 1), np.int64)


class NodeResourcesBalancedAllocation(ScorePlugin):
    """Favours nodes whose cpu and memory become used in more equal parts by the pod."""

    name = "NodeResourcesBalancedAllocation"
    reads = ("requests",)
    reads_usage = True

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        request = np.array([pod.requests.get("cpu", 0), pod.requests.get("memory", 0)], np.int64)[:, None]
        if not request.any():  # best-effort pods are not balanced (kubernetes#129138)
            return np.zeros(nodes.count, np.int64)
        allocatable = nodes.allocatable[_SCORED]
        allocated = nodes.requested[_SCORED]
        half = MAX_NODE_SCORE // 2
        gain = half + _balance(allocated + request, allocatable) - _balance(allocated, allocatable)
        return half + gain // 2


def _balance(requested: NDArray[np.int64], allocatable: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n]: (1 - standard deviation of the two used fractions) in percent, truncated."""
    counted = allocatable > 0
    fraction = np.minimum(requested / np.where(counted, allocatable, 1), 1.0)
    deviation = np.where(counted.all(axis=0), np.abs(fraction[0] - fraction[1]) / 2, 0.0)
    return ((1 - deviation) * MAX_NODE_SCORE).astype(np.int64)
