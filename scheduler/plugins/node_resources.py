"""NodeResourcesFit and NodeResourcesBalancedAllocation.

Sources: pkg/scheduler/framework/plugins/noderesources (fit.go, resource_allocation.go,
balanced_allocation.go). Filtering compares plain requests; the strategies of NodeResourcesFit's score
(`resource_strategies.py`) work on "non-zero" requests, where a container that asks for nothing counts
as 100m and 200 MiB. A resource that a node does not have is left out of its score, and so is one beside
cpu, memory and ephemeral storage that the pod does not ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from scheduler.core.nodes import CPU, MEMORY, NodeView
from scheduler.core.plugin import MAX_NODE_SCORE, FilterPlugin, FilterResult, ScorePlugin, Scores, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile
from scheduler.plugins.arguments import Arguments, read_arguments, require
from scheduler.plugins.node_affinity import is_label_key
from scheduler.plugins.resource_strategies import (
    Column,
    Demand,
    ResourceSpec,
    ScoringStrategy,
    is_default,
    strategy_of,
    with_default_weights,
)

TOO_MANY_PODS = "Too many pods"
_MAX_BIT = 63
_ALWAYS_COUNTED = ("cpu", "memory", "ephemeral-storage")


class NodeResourcesFitArgs(Arguments, frozen=True):
    """Source: NodeResourcesFitArgs (staging k8s.io/kube-scheduler/config/v1/types_pluginargs.go)."""

    ignored_resources: tuple[str, ...] = ()
    ignored_resource_groups: tuple[str, ...] = ()
    scoring_strategy: ScoringStrategy = ScoringStrategy(type="LeastAllocated")


class NodeResourcesFit(FilterPlugin, ScorePlugin):
    """Filter: enough of every requested resource. Score: by the `scoringStrategy`.

    Arguments `ignoredResources` and `ignoredResourceGroups` name extended resources (whole, or by what
    stands before the slash) that are not filtered by.
    """

    name = "NodeResourcesFit"
    reads = ("requests", "scored_requests")
    reads_usage = True
    reads_amounts_only = True
    wakes_on = Wake.NODE_ADD | Wake.NODE_ALLOCATABLE | Wake.ASSIGNED_POD_REMOVED

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for arguments that kube-scheduler would refuse."""
        super().__init__()
        parsed = read_arguments(args, NodeResourcesFitArgs)
        for field, names in (
            ("ignoredResources", parsed.ignored_resources),
            ("ignoredResourceGroups", parsed.ignored_resource_groups),
        ):
            for i, name in enumerate(names):
                require(is_label_key(name), f"{field}[{i}]", f"{name!r} is no name of a resource")
        for i, group in enumerate(parsed.ignored_resource_groups):
            require("/" not in group, f"ignoredResourceGroups[{i}]", f"{group!r} must not contain a slash")
        self._ignored = frozenset(parsed.ignored_resources)
        self._ignored_groups = frozenset(parsed.ignored_resource_groups)
        strategy = parsed.scoring_strategy
        self.resources = with_default_weights(strategy.resources)
        self._strategy = strategy_of(strategy)
        self._default = is_default(strategy)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        # A pod may name more resources than there are bits; the surplus shares the last one.
        return (TOO_MANY_PODS, *[f"Insufficient {name}" for name, _ in self._checked(pod)][:_MAX_BIT])

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        bits = (nodes.pod_count >= nodes.pod_limit).astype(np.uint64)  # TOO_MANY_PODS is the first reason
        unresolvable = np.zeros(nodes.count, np.bool_)
        allocatable, requested = nodes.allocatable, nodes.requested
        for k, (resource, amount) in enumerate(self._checked(pod), start=1):
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
        if self._default:
            return _least_allocated_by_default(pod, nodes)
        return self._strategy(
            list(_demands(self.resources, pod.scored_requests, nodes, nonzero=True)), nodes.count
        )

    def _checked(self, pod: PodInfo) -> Iterable[tuple[str, int]]:
        if not (self._ignored or self._ignored_groups):
            return pod.requests.items()
        return [(name, amount) for name, amount in pod.requests.items() if not self.ignores(name)]

    def ignores(self, name: str) -> bool:
        """Whether it is not filtered by: extended resources only (fitsRequest in fit.go)."""
        group, slash, _ = name.partition("/")
        if not slash or "kubernetes.io/" in name:
            return False
        return name in self._ignored or group in self._ignored_groups


def held_by(profiles: Iterable[Profile]) -> Callable[[str], bool]:
    """Says of a resource (`pods` is one) whether all profiles filter by it: if one does not, its pods may
    rightly take more of it than a node has."""
    filters = [next((f for f in p.filters if isinstance(f, NodeResourcesFit)), None) for p in profiles]
    return lambda name: all(fit is not None and not fit.ignores(name) for fit in filters)


def _least_allocated_by_default(pod: PodInfo, nodes: NodeView) -> Scores:
    """The default strategy spelled out for its two resources, since it is what most decisions cost: on the
    one row that a placement changes by the number of calls, for a pod of a new kind by the passes."""
    cpu, memory = nodes.allocatable[CPU], nodes.allocatable[MEMORY]
    used_cpu, used_memory = nodes.nonzero_requested
    request = pod.scored_requests
    score = _free_percent(cpu - used_cpu, request.get("cpu", 0), cpu)
    score += _free_percent(memory - used_memory, request.get("memory", 0), memory)
    if np.count_nonzero(cpu) + np.count_nonzero(memory) == 2 * cpu.size:
        score >>= 1
        return score
    resources = np.maximum((cpu > 0).astype(np.int64) + (memory > 0), 1)
    return np.asarray(score // resources, np.int64)


def _free_percent(free: Column, request: int, allocatable: Column) -> Column:
    """What is left of `free`, which is overwritten, in percent of all there is."""
    free -= request
    np.maximum(free, 0, out=free)
    free *= MAX_NODE_SCORE
    free //= np.maximum(allocatable, 1)
    return free


def _demands(
    resources: Sequence[ResourceSpec], request: Mapping[str, int], nodes: NodeView, *, nonzero: bool
) -> Iterator[Demand]:
    """What is there and what is taken of each resource that counts for the pod.

    Source: calculateNodeAllocatableRequest (resource_allocation.go).
    """
    for resource in resources:
        row, asked = nodes.resources.get(resource.name), request.get(resource.name, 0)
        if row is None or not (asked or resource.name in _ALWAYS_COUNTED):
            continue
        used = nodes.nonzero_requested[row] if nonzero and row in (CPU, MEMORY) else nodes.requested[row]
        yield Demand(resource.weight, nodes.allocatable[row], used, asked)


class NodeResourcesBalancedAllocationArgs(Arguments, frozen=True):
    """Source: as for NodeResourcesFitArgs."""

    resources: tuple[ResourceSpec, ...] = ()


class NodeResourcesBalancedAllocation(ScorePlugin):
    """Favours nodes whose resources become used in more equal parts by the pod.

    Argument `resources`: which ones; cpu and memory by default.
    """

    name = "NodeResourcesBalancedAllocation"
    reads = ("requests",)
    reads_usage = True
    reads_amounts_only = True

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for arguments that kube-scheduler would refuse."""
        super().__init__()
        given = read_arguments(args, NodeResourcesBalancedAllocationArgs).resources
        self.resources = with_default_weights(given)
        names = [resource.name for resource in self.resources]
        for i, resource in enumerate(self.resources):
            require(resource.name not in names[:i], f"resources[{i}].name", f"{resource.name} is there twice")
            require(resource.weight == 1, f"resources[{i}].weight", f"must be 1, got {resource.weight}")
        self._default = names == ["cpu", "memory"]

    def rates(self, pod: PodInfo) -> bool:
        """Best-effort pods are not balanced: they would all go to one node (kubernetes#129138)."""
        return any(pod.requests.get(resource.name) for resource in self.resources)

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        if self._default:
            return _balance_by_default(pod, nodes)
        demands = list(_demands(self.resources, pod.requests, nodes, nonzero=False))
        with_pod = _balance([(d.used + d.asked, d.allocatable) for d in demands], nodes.count)
        without = _balance([(d.used, d.allocatable) for d in demands], nodes.count)
        return _improvement(with_pod, without)


def _improvement(after: Column, before: Column) -> Scores:
    half = MAX_NODE_SCORE // 2
    return half + ((half + after - before) >> 1)


def _balance_by_default(pod: PodInfo, nodes: NodeView) -> Scores:
    allocatable, allocated = nodes.allocatable, nodes.requested
    cpu, memory = allocatable[CPU], allocatable[MEMORY]
    used_cpu, used_memory = allocated[CPU], allocated[MEMORY]
    cpu_request, memory_request = pod.requests.get("cpu", 0), pod.requests.get("memory", 0)
    after = _balance_of_two(used_cpu + cpu_request, cpu, used_memory + memory_request, memory)
    return _improvement(after, _balance_of_two(used_cpu, cpu, used_memory, memory))


def _balance_of_two(used_cpu: Column, cpu: Column, used_memory: Column, memory: Column) -> Column:
    """int64[n]: (1 - standard deviation of the two used fractions) in percent, truncated."""
    deviation, memory_fraction = used_cpu / np.maximum(cpu, 1), used_memory / np.maximum(memory, 1)
    np.minimum(deviation, 1.0, out=deviation)
    np.minimum(memory_fraction, 1.0, out=memory_fraction)
    deviation -= memory_fraction
    np.abs(deviation, out=deviation)
    deviation /= 2
    if np.count_nonzero(cpu) + np.count_nonzero(memory) < 2 * cpu.size:  # a single resource does not deviate
        deviation[(cpu == 0) | (memory == 0)] = 0.0
    np.subtract(1, deviation, out=deviation)
    deviation *= MAX_NODE_SCORE
    return deviation.astype(np.int64)


def _balance(used_and_allocatable: Sequence[tuple[Column, Column]], n: int) -> Column:
    """The same for any number of resources, added up in kube-scheduler's order: the sum of floating
    point numbers depends on it (balancedResourceScore in balanced_allocation.go)."""
    present = [allocatable != 0 for _, allocatable in used_and_allocatable]
    fractions = [np.minimum(used / np.maximum(total, 1), 1.0) for used, total in used_and_allocatable]
    count = np.zeros(n, np.int64)
    total, squares = np.zeros(n), np.zeros(n)
    first, second = np.zeros(n), np.zeros(n)
    for here, fraction in zip(present, fractions, strict=True):
        first = np.where(here & (count == 0), fraction, first)
        second = np.where(here & (count == 1), fraction, second)
        total += np.where(here, fraction, 0.0)
        count += here
    mean = total / np.maximum(count, 1)
    for here, fraction in zip(present, fractions, strict=True):
        squares += np.where(here, (fraction - mean) * (fraction - mean), 0.0)
    deviation = np.where(count == 2, np.abs((first - second) / 2), np.sqrt(squares / np.maximum(count, 1)))
    deviation[count < 2] = 0.0
    return np.asarray((1 - deviation) * MAX_NODE_SCORE, np.int64)
