"""What a whole pod asks for, by exactly the rule of Kubernetes 1.37.

The rule has grown with sidecars, pod-level resources and in-place resize, and every component must
agree on it: a scheduler that computes less overfills nodes (the kubelet then rejects pods), one
that computes more wastes them. It is therefore a transcription of `resource.PodRequests`
(component-helpers/resource/helpers.go) with the options the callers in kube-scheduler pass:

- a pod without a node: its spec alone (`computePodResourceRequest` in plugins/noderesources/fit.go);
- a pod on a node: spec, or what its kubelet has allocated or actuated when that is more
  (`PodInfo.CalculateResource` in pkg/scheduler/framework/types.go);
- scores count 100m and 200Mi for a container that names no cpu or memory, so that pods without
  requests spread too. With pod-level resources, NodeInfo and the scorers differ in how.

Inside, amounts are billionths (see scheduler/quantity.py): Kubernetes adds exactly and rounds once.
A key that is present with 0 differs from an absent one until then. Amounts handed out by dynamic
resource allocation (DRANodeAllocatableResources, off by default) are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scheduler.api import Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceList
from scheduler.quantity import NANOS_PER_MILLI, NANOS_PER_UNIT, nanos, rounded_up

DEFAULT_CPU = 100 * NANOS_PER_MILLI
DEFAULT_MEMORY = 200 * 1024 * 1024 * NANOS_PER_UNIT
"""Counted for a container that names no request (pkg/scheduler/util/pod_resources.go)."""

_Amounts = dict[str, int]
"""Resource name to billionths."""
_RequestsOf = Callable[[Container], ResourceList | None]

_NO_DEFAULTS: Mapping[str, int] = {}
_DEFAULTS: Mapping[str, int] = {"cpu": DEFAULT_CPU, "memory": DEFAULT_MEMORY}


def pod_requests(pod: Pod) -> dict[str, int]:
    """Effective request of a pod that has no node yet.

    Resource name to amount: millicores for cpu, bytes or units for all others, without zeros.
    Raises QuantityError when the pod names something that is not a quantity.
    """
    return _rounded(_whole_pod(pod, _NO_DEFAULTS, on_node=False))


def pod_requests_on_node(pod: Pod) -> dict[str, int]:
    """What a pod takes of its node (NodeInfo.Requested); units and errors as for `pod_requests`."""
    return _rounded(_whole_pod(pod, _NO_DEFAULTS, on_node=True))


def nonzero_requests(pod: Pod) -> tuple[int, int]:
    """(cpu_milli, memory_bytes) a pod on a node counts in NodeInfo.NonZeroRequested.

    Beside pod-level resources the defaults apply only to a resource that nobody named, neither the
    pod, nor a container, nor the overhead (`getNonMissingContainerRequests`).
    """
    defaults = _DEFAULTS
    if _has_pod_level_requests(pod.spec):
        named = _whole_pod(pod, _NO_DEFAULTS, on_node=True)
        defaults = {name: amount for name, amount in _DEFAULTS.items() if name not in named}
    return _cpu_and_memory(_whole_pod(pod, defaults, on_node=True))


def scored_requests(pod: Pod) -> dict[str, int]:
    """What LeastAllocated and its kin count for the pod being placed; units as for `pod_requests`.

    The defaults apply to every container, and pod-level resources do not count: the scorer of
    NodeResourcesFit has switches for them that 1.37 never turns on (`NewFit` in
    plugins/noderesources/fit.go, `calculatePodResourceRequest` in resource_allocation.go).
    """
    total = _containers(pod.spec, _spec_requests, _DEFAULTS)
    _add(total, pod.spec.overhead, _NO_DEFAULTS)
    return _rounded(total)


def no_default_applies(pod: Pod) -> bool:
    """Whether every container names cpu and memory, and neither the pod nor a kubelet says otherwise.

    `nonzero_requests` and `scored_requests` are then the plain requests.
    """
    spec = pod.spec
    if spec.resources is not None or _has_resize_state(pod.status):
        return False
    return all(
        container.resources is not None
        and container.resources.requests is not None
        and "cpu" in container.resources.requests
        and "memory" in container.resources.requests
        for container in (*(spec.containers or ()), *(spec.init_containers or ()))
    )


def _whole_pod(pod: Pod, defaults: Mapping[str, int], *, on_node: bool) -> _Amounts:
    """`resource.PodRequests`; on_node stands for UseStatusResources and its pod-level twin."""
    spec, status = pod.spec, pod.status
    on_node = on_node and _has_resize_state(status)
    total = _resized_containers(pod, defaults) if on_node else _containers(spec, _spec_requests, defaults)
    if _has_pod_level_requests(spec):
        total.update(_pod_level(spec, status, on_node=on_node))
    _add(total, spec.overhead, _NO_DEFAULTS)
    return total


def _containers(spec: PodSpec, requests_of: _RequestsOf, defaults: Mapping[str, int]) -> _Amounts:
    """Containers and sidecars together, or the hungriest moment of initialisation if that is more.

    While the i-th init container runs, the sidecars started before it run beside it (KEP-753).
    """
    total: _Amounts = {}
    for container in spec.containers or ():
        _add(total, requests_of(container), defaults)
    if not spec.init_containers:
        return total
    sidecars: _Amounts = {}
    peak: _Amounts = {}
    for container in spec.init_containers:
        requests = requests_of(container)
        if container.restart_policy == "Always":
            _add(total, requests, defaults)
            _add(sidecars, requests, defaults)
        else:
            alone = sidecars.copy()
            _add(alone, requests, defaults)
            _raise_to(peak, alone)
    _raise_to(total, peak)
    return total


def _resized_containers(pod: Pod, defaults: Mapping[str, int]) -> _Amounts:
    """The most of what the spec wants, the kubelet allocated and the runtime has (KEP-1287).

    A resize that can never be granted is no longer wanted: then the spec does not count.
    """
    spec, status = pod.spec, pod.status
    infeasible = _resize_is_infeasible(status)
    actual = status.resources.requests if status.resources is not None else None
    if status.allocated_resources is not None and actual is not None:
        allocated, actuated = _parsed(status.allocated_resources), _parsed(actual)
    else:
        statuses = _statuses_by_name(status)

        def allocated_of(container: Container) -> ResourceList | None:
            state = statuses.get(container.name)
            if state is not None and state.allocated_resources is not None:
                return state.allocated_resources
            return None if infeasible else _spec_requests(container)

        def actuated_of(container: Container) -> ResourceList | None:
            state = statuses.get(container.name)
            if state is not None and state.resources is not None and state.resources.requests is not None:
                return state.resources.requests
            return allocated_of(container)

        allocated = _containers(spec, allocated_of, defaults)
        actuated = _containers(spec, actuated_of, defaults)
    total = {} if infeasible else _containers(spec, _spec_requests, defaults)
    _raise_to(total, actuated)
    _raise_to(total, allocated)
    return total


def _pod_level(spec: PodSpec, status: PodStatus, *, on_node: bool) -> _Amounts:
    """What `spec.resources` says in place of the containers' sums (KEP-2837, KEP-5419)."""
    wanted = _parsed(spec.resources.requests if spec.resources is not None else None)
    if on_node and status.resources is not None:
        if _resize_is_infeasible(status):
            wanted = {}
        _raise_to(wanted, _parsed(status.resources.requests))
        _raise_to(wanted, _parsed(status.allocated_resources))
    return {name: amount for name, amount in wanted.items() if _is_pod_level(name)}


def _is_pod_level(resource: str) -> bool:
    return resource in ("cpu", "memory") or resource.startswith("hugepages-")


def _has_pod_level_requests(spec: PodSpec) -> bool:
    resources = spec.resources
    return resources is not None and any(map(_is_pod_level, resources.requests or ()))


def _has_resize_state(status: PodStatus) -> bool:
    """Whether the status says anything about resources; the spec alone decides if not."""
    return (
        status.resources is not None
        or any(map(_reports_resources, status.container_statuses or ()))
        or any(map(_reports_resources, status.init_container_statuses or ()))
        or _resize_is_infeasible(status)
    )


def _reports_resources(state: ContainerStatus) -> bool:
    return state.allocated_resources is not None or state.resources is not None


def _resize_is_infeasible(status: PodStatus) -> bool:
    for condition in status.conditions or ():
        if condition.type == "PodResizePending":
            return condition.reason == "Infeasible"
    return False


def _statuses_by_name(status: PodStatus) -> dict[str, ContainerStatus]:
    """The first status of each name counts, containers' before init containers'."""
    found: dict[str, ContainerStatus] = {}
    for state in (*(status.container_statuses or ()), *(status.init_container_statuses or ())):
        found.setdefault(state.name, state)
    return found


def _spec_requests(container: Container) -> ResourceList | None:
    return container.resources.requests if container.resources is not None else None


def _parsed(requests: ResourceList | None) -> _Amounts:
    return {name: nanos(text) for name, text in requests.items()} if requests else {}


def _add(total: _Amounts, requests: ResourceList | None, defaults: Mapping[str, int]) -> None:
    if requests:
        for name, text in requests.items():
            total[name] = total.get(name, 0) + nanos(text)
    for name, amount in defaults.items():
        if not requests or name not in requests:
            total[name] = total.get(name, 0) + amount


def _raise_to(total: _Amounts, other: _Amounts) -> None:
    for name, amount in other.items():
        if name not in total or amount > total[name]:
            total[name] = amount


def _cpu_and_memory(total: _Amounts) -> tuple[int, int]:
    return (
        rounded_up(total.get("cpu", 0), NANOS_PER_MILLI),
        rounded_up(total.get("memory", 0), NANOS_PER_UNIT),
    )


def _rounded(total: _Amounts) -> dict[str, int]:
    return {
        name: rounded_up(amount, NANOS_PER_MILLI if name == "cpu" else NANOS_PER_UNIT)
        for name, amount in total.items()
        if amount
    }
