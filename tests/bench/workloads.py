"""The workloads of Kubernetes' own scheduler_perf, as data: what is in the cluster, what is measured.

Each names the test that it follows (test/integration/scheduler_perf, performance-config.yaml and the
templates beside it); counts are for 5,000 nodes and scale with them. One thing is done otherwise: pods
that are there before the measurement are created on their nodes, in turn, instead of being scheduled,
so that both schedulers start from the same cluster, and soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.cluster import node_manifest, pod_manifest

Json = dict[str, Any]

FULL_NODES = 5000
"""The number of nodes that all counts are meant for."""
MEASURED, BEFORE, CHURN = "measured", "before", "churn"
"""Namespaces: of the pods that are measured, of what is there before, of what comes and goes meanwhile."""
HIGH, HIGH_PRIORITY = "high", 10
"""The PriorityClass of pods that go before others."""
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
POD_GROUPS = "scheduling.k8s.io/v1beta1"
ALIKE = {"cpu": "100m", "memory": "500Mi"}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_DEVOPS = {"team": "devops"}


@dataclass(frozen=True)
class Template:
    """What pods of a workload look like; `requests` may tell one from another by its number, and `pinned`
    sends each to the node of its number, as the DaemonSet controller does."""

    labels: Mapping[str, str] = field(default_factory=dict)
    requests: Callable[[int], Mapping[str, str]] = lambda _: ALIKE
    spec: Mapping[str, Any] = field(default_factory=dict)
    pinned: bool = False

    def manifest(self, name: str, number: int, *, namespace: str, scheduler_name: str, **spec: Any) -> Json:
        if self.pinned:
            this = {"key": "metadata.name", "operator": "In", "values": [node_name(number)]}
            terms = {"nodeSelectorTerms": [{"matchFields": [this]}]}
            spec = {"affinity": {"nodeAffinity": {_REQUIRED: terms}}, **spec}
        return pod_manifest(
            name,
            self.requests(number),
            namespace=namespace,
            scheduler_name=scheduler_name,
            labels=self.labels,
            **{**self.spec, **spec},
        )


@dataclass(frozen=True)
class Group:
    """So many pods of one template, spread over namespaces `before-0`, `before-1` … if more than one. Those
    that wait may be gangs' members, of `gang_size` each."""

    template: Template
    count: int
    namespaces: int = 1
    gang_size: int = 0


@dataclass(frozen=True)
class Churn:
    """Pods that come while others are measured, one every `every_s`. If `recreated`, a node and a Service
    come with each, and all three go again the next time."""

    every_s: float
    template: Template
    recreated: bool = False


@dataclass(frozen=True)
class Shape:
    """One workload. `floor` is the ratio to kube-scheduler's throughput that Wholepod must reach; it is lower
    where kube-scheduler itself costs much less than the API server does, so that nobody could do better."""

    name: str
    models: str
    measured: Template
    pods: int = 2000
    nodes: int = FULL_NODES
    placed: Sequence[Group] = ()
    waiting: Group | None = None
    """Pods that are there before, unbound, and never will be bound."""
    zones: Sequence[str] = ()
    tainted: int = 0
    """How many of the nodes have a taint that no pod tolerates."""
    node_pods: int = 110
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    service: bool = False
    """Whether a Service selects the measured pods."""
    churn: Churn | None = None
    floor: float = 1.5
    gangs: Sequence[tuple[int, int]] = ()
    """(How many gangs, of how many members): the measured pods in turn, if they are gangs' members."""

    def scaled(self, nodes: int) -> Shape:
        """The same for another number of nodes."""

        def part(count: int) -> int:
            return max(1, count * nodes // FULL_NODES) if count else 0

        gangs = [(part(count), size) for count, size in self.gangs]
        return replace(
            self,
            nodes=part(self.nodes) if self.nodes > 1 else 1,
            pods=sum(count * size for count, size in gangs) if gangs else part(self.pods),
            gangs=gangs,
            placed=[replace(group, count=part(group.count)) for group in self.placed],
            waiting=None if self.waiting is None else replace(self.waiting, count=part(self.waiting.count)),
            tainted=part(self.tainted),
        )

    def node_manifests(self) -> Iterator[Json]:
        for i in range(self.nodes):
            labels = {ZONE: self.zones[i % len(self.zones)]} if self.zones else {}
            taints = [{"key": "foo", "effect": "NoSchedule"}] if i >= self.nodes - self.tainted else []
            yield node_manifest(node_name(i), labels=labels, taints=taints, pods=self.node_pods)

    def namespaces(self) -> dict[str, Mapping[str, str]]:
        """Name → labels."""
        most = max((group.namespaces for group in self.placed), default=1)
        names = [MEASURED, CHURN, *(f"{BEFORE}-{i}" for i in range(most))]
        return dict.fromkeys(names, self.namespace_labels)

    def earlier_pods(self, scheduler_name: str) -> Iterator[Json]:
        """Pods on nodes, then those that wait."""
        number = 0
        for group in self.placed:
            for i in range(group.count):
                namespace = f"{BEFORE}-{i % group.namespaces}"
                node = node_name(number % self.nodes)
                yield group.template.manifest(
                    f"before-{number:05}",
                    number,
                    namespace=namespace,
                    scheduler_name=scheduler_name,
                    nodeName=node,
                )
                number += 1
        if self.waiting is not None:
            for i in range(self.waiting.count):
                size = self.waiting.gang_size
                member = _member_of(gang_name(i // size)) if size else {}
                yield self.waiting.template.manifest(
                    f"waiting-{i:05}", i, namespace=f"{BEFORE}-0", scheduler_name=scheduler_name, **member
                )

    def measured_pods(self, scheduler_name: str) -> Iterator[Json]:
        gang_of = [gang_name(number) for number, size in enumerate(self._gang_sizes()) for _ in range(size)]
        for i in range(self.pods):
            group = _member_of(gang_of[i]) if gang_of else {}
            yield self.measured.manifest(
                f"pod-{i:05}", i, namespace=MEASURED, scheduler_name=scheduler_name, **group
            )

    def pod_groups(self) -> Iterator[Json]:
        """Kubernetes' own, one for each gang; all members are needed."""
        if self.waiting is not None and self.waiting.gang_size:
            for number in range(self.waiting.count // self.waiting.gang_size):
                yield _pod_group(number, self.waiting.gang_size, namespace=f"{BEFORE}-0")
        for number, size in enumerate(self._gang_sizes()):
            yield _pod_group(number, size, namespace=MEASURED)

    def _gang_sizes(self) -> list[int]:
        return [size for count, size in self.gangs for _ in range(count)]


def node_name(number: int) -> str:
    return f"node-{number:05}"


def gang_name(number: int) -> str:
    return f"gang-{number:04}"


def _member_of(gang: str) -> Json:
    return {"schedulingGroup": {"podGroupName": gang}}


def _pod_group(number: int, size: int, *, namespace: str) -> Json:
    return {
        "apiVersion": POD_GROUPS,
        "kind": "PodGroup",
        "metadata": {"name": gang_name(number), "namespace": namespace},
        "spec": {"schedulingPolicy": {"gang": {"minCount": size}}},
    }


def service_manifest(name: str, namespace: str) -> Json:
    """A Service that selects the pods of `default-spreading`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": "bench"}, "ports": [{"port": 8080}]},
    }


def _term(colour: str, key: str, **namespaces: Any) -> Json:
    where = namespaces or {"namespaces": [MEASURED, f"{BEFORE}-0"]}
    return {"labelSelector": {"matchLabels": {"color": colour}}, "topologyKey": key, **where}


def _required(kind: str, colour: str, key: str, **namespaces: Any) -> Template:
    affinity = {kind: {_REQUIRED: [_term(colour, key, **namespaces)]}}
    return Template({"color": colour}, spec={"affinity": affinity})


def _preferred(kind: str, colour: str, **namespaces: Any) -> Template:
    term = {"weight": 1, "podAffinityTerm": _term(colour, HOST, **namespaces)}
    return Template({"color": colour}, spec={"affinity": {kind: {_PREFERRED: [term]}}})


def _spread(action: str, colour: str, key: str, max_skew: int, **policies: str) -> Template:
    constraint = {
        "maxSkew": max_skew,
        "topologyKey": key,
        "whenUnsatisfiable": action,
        "labelSelector": {"matchLabels": {"color": colour}},
        **policies,
    }
    return Template({"color": colour}, spec={"topologySpreadConstraints": [constraint]})


def _in_zones(*zones: str) -> Template:
    expression = {"key": ZONE, "operator": "In", "values": list(zones)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return Template(spec={"affinity": {"nodeAffinity": {_REQUIRED: terms}}})


def _sized(cpu_milli: int, *, high: bool = False) -> Template:
    """Deleted at once when it must go, as there is no kubelet."""
    requests = {"cpu": f"{cpu_milli}m", "memory": "500Mi"}
    spec: Json = {"terminationGracePeriodSeconds": 0}
    if high:
        spec |= {"priorityClassName": HIGH, "priority": HIGH_PRIORITY}
    return Template(requests=lambda _: requests, spec=spec)


PLAIN = Template()
_NEAR = _required("podAffinity", "blue", ZONE)
_APART = _required("podAntiAffinity", "green", HOST)
_RATHER_NEAR = _preferred("podAffinity", "red")
_RATHER_APART = _preferred("podAntiAffinity", "yellow")
_TEAM = {"namespaceSelector": {"matchLabels": _DEVOPS}}
_NEAR_TEAM = _required("podAffinity", "blue", ZONE, **_TEAM)
_APART_TEAM = _required("podAntiAffinity", "green", HOST, **_TEAM)
_RATHER_NEAR_TEAM = _preferred("podAffinity", "red", **_TEAM)
_RATHER_APART_TEAM = _preferred("podAntiAffinity", "green", **_TEAM)
_ONE_ZONE, _MOONS = ("zone1",), ("moon-1", "moon-2", "moon-3")
_GATED = Template(
    {"app": "bench"},
    spec={
        "affinity": {
            "podAffinity": {
                _REQUIRED: [{"labelSelector": {"matchLabels": {"app": "bench"}}, "topologyKey": HOST}]
            }
        },
        "schedulingGates": [{"name": "example.com/wait"}],
    },
)
_TOO_LARGE = _sized(9000, high=True)
_LOW = _sized(900)

_OF_SERVICE = Template({"app": "bench"}, requests=lambda _: {})
_DIFFERENT = Template(requests=lambda i: {"cpu": f"{100 + i}m", "memory": f"{500 + i}Mi"})
_ON_ALLOWED_HOSTS = _spread(
    "DoNotSchedule", "blue", HOST, 1, nodeAffinityPolicy="Honor", nodeTaintsPolicy="Honor"
)
_EVEN = _spread("DoNotSchedule", "blue", ZONE, 5)
_RATHER_EVEN = _spread("ScheduleAnyway", "blue", ZONE, 5)

_ALL = (
    Shape("basic", "SchedulingBasic", PLAIN, pods=5000),
    Shape(
        "node-affinity",
        "SchedulingNodeAffinity",
        _in_zones("zone1", "zone2"),
        placed=[Group(_in_zones("zone1", "zone2"), 5000)],
        zones=_ONE_ZONE,
    ),
    Shape("anti-affinity", "SchedulingPodAntiAffinity", _APART, placed=[Group(_APART, 1000)]),
    Shape(
        "matching-anti-affinity",
        "SchedulingPodMatchingAntiAffinity",
        Template({"color": "green"}),
        placed=[Group(_APART, 1000)],
    ),
    Shape("affinity", "SchedulingPodAffinity", _NEAR, placed=[Group(_NEAR, 5000)], zones=_ONE_ZONE),
    Shape(
        "preferred-affinity",
        "SchedulingPreferredPodAffinity",
        _RATHER_NEAR,
        placed=[Group(_RATHER_NEAR, 5000)],
    ),
    Shape(
        "preferred-anti-affinity",
        "SchedulingPreferredPodAntiAffinity",
        _RATHER_APART,
        placed=[Group(_RATHER_APART, 5000)],
    ),
    Shape(
        "anti-affinity-namespaces",
        "SchedulingRequiredPodAntiAffinityWithNSSelector",
        _APART_TEAM,
        pods=1000,
        placed=[Group(_APART_TEAM, 4000, namespaces=100)],
        namespace_labels=_DEVOPS,
    ),
    Shape(
        "preferred-anti-affinity-namespaces",
        "SchedulingPreferredAntiAffinityWithNSSelector",
        _RATHER_APART_TEAM,
        placed=[Group(_RATHER_APART_TEAM, 4000, namespaces=100)],
        namespace_labels=_DEVOPS,
    ),
    Shape(
        "affinity-namespaces",
        "SchedulingRequiredPodAffinityWithNSSelector",
        _NEAR_TEAM,
        placed=[Group(_NEAR_TEAM, 5000, namespaces=100)],
        zones=_ONE_ZONE,
        namespace_labels=_DEVOPS,
    ),
    Shape(
        "preferred-affinity-namespaces",
        "SchedulingPreferredAffinityWithNSSelector",
        _RATHER_NEAR_TEAM,
        placed=[Group(_RATHER_NEAR_TEAM, 5000, namespaces=100)],
        namespace_labels=_DEVOPS,
    ),
    Shape(
        "mixed",
        "MixedSchedulingBasePod",
        PLAIN,
        placed=[Group(t, 2000) for t in (PLAIN, _NEAR, _APART, _RATHER_NEAR, _RATHER_APART)],
        zones=_ONE_ZONE,
    ),
    Shape("spreading", "TopologySpreading", _EVEN, placed=[Group(PLAIN, 5000)], zones=_MOONS),
    Shape(
        "preferred-spreading",
        "PreferredTopologySpreading",
        _RATHER_EVEN,
        placed=[Group(PLAIN, 5000)],
        zones=_MOONS,
    ),
    Shape(
        "spreading-inclusion", "SchedulingWithNodeInclusionPolicy", _ON_ALLOWED_HOSTS, pods=4000, tainted=1000
    ),
    Shape(
        "default-spreading",
        "DefaultTopologySpreading",
        _OF_SERVICE,
        placed=[Group(PLAIN, 5000)],
        zones=_MOONS,
        service=True,
    ),
    Shape("daemonset", "SchedulingDaemonset, but a node for each pod", Template(pinned=True), floor=1.0),
    Shape("different", "SchedulingBasic, but no two requests alike", _DIFFERENT),
    Shape(
        "gated",
        "SchedulingGatedPodsWithPodAffinityImpactForThroughput",
        Template({"app": "bench"}, requests=lambda _: {}),
        nodes=1,
        node_pods=90000,
        waiting=Group(_GATED, 5000),
        floor=1.0,
    ),
    Shape(
        "unschedulable",
        "Unschedulable",
        PLAIN,
        placed=[Group(PLAIN, 5000)],
        churn=Churn(0.2, _TOO_LARGE),
        floor=1.0,
    ),
    Shape(
        "unschedulable-backlog",
        "Unschedulable, with 1,000 such pods waiting from the start",
        PLAIN,
        waiting=Group(_TOO_LARGE, 1000),
        floor=1.0,
    ),
    Shape(
        "churn",
        "SchedulingWithMixedChurn",
        PLAIN,
        churn=Churn(1.0, _TOO_LARGE, recreated=True),
        floor=1.0,
    ),
    Shape(
        "preemption",
        "PreemptionBasic",
        _sized(3000, high=True),
        pods=1000,
        nodes=1000,
        placed=[Group(_LOW, 4000)],
        floor=1.0,
    ),
    Shape(
        "preemption-beside",
        "PreemptionAsync",
        PLAIN,
        placed=[Group(_LOW, 20000)],
        churn=Churn(0.2, _sized(3000, high=True)),
        floor=1.0,
    ),
)
SHAPES: Mapping[str, Shape] = {shape.name: shape for shape in _ALL}
