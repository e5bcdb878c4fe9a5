"""Cached answers equal fresh ones, whatever happened to the nodes in between.

A cycle that lives through a random history is asked again and again, and each time its answer has
to be that of a cycle that was made a moment ago and has nothing cached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scheduler.api_objects import ClusterObject, ReplicaSet, Service
from scheduler.core import tally
from scheduler.core.cycle import CACHED_KINDS, Cycle
from scheduler.core.mix import EPOCH_ARRIVALS, ShapeMix
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile
from scheduler.core.state import ClusterState
from scheduler.plugins.domains import HOSTNAME
from tests.builders import NodeBuilder, make_node, make_pod, make_profile

GPU = "example.com/gpu"
PASSES = 127

PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def weighted(weight: int, zone: str) -> dict[str, Any]:
    return {"weight": weight, "preference": {"matchExpressions": [in_zone(zone)]}}


def in_zone(zone: str) -> dict[str, Any]:
    return {"key": "zone", "operator": "In", "values": [zone]}


PROFILES: dict[str, Callable[[], Profile]] = {
    "kube": lambda: make_profile(preset="kube"),
    "memory-fit": lambda: make_profile(preset="memory-fit"),
    "tight": lambda: make_profile(pluginConfig=[{"name": "MemoryFit", "args": {"objective": "tight"}}]),
    "kube with arguments": lambda: make_profile(
        preset="kube",
        pluginConfig=[
            {"name": "NodeAffinity", "args": {"addedAffinity": {PREFERRED: [weighted(7, "b")]}}},
            {
                "name": "NodeResourcesFit",
                "args": {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": GPU}]}},
            },
            {
                "name": "NodeResourcesBalancedAllocation",
                "args": {"resources": [{"name": "cpu"}, {"name": GPU}]},
            },
        ],
    ),
    "kube with default constraints": lambda: make_profile(
        preset="kube",
        pluginConfig=[
            {
                "name": "PodTopologySpread",
                "args": {
                    "defaultingType": "List",
                    "defaultConstraints": [
                        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
                        {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                    ],
                },
            }
        ],
    ),
    "mixed": lambda: make_profile(
        plugins={"score": {"enabled": [{"name": "NodeResourcesFit", "weight": 3}, {"name": "MemoryFit"}]}}
    ),
}

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
BLUE: dict[str, Any] = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"colour": "blue"}}}
BLUE_HOST = {**BLUE, "topologyKey": HOSTNAME}
BLUE_OF_TEAM = {**BLUE, "namespaceSelector": {"matchLabels": {"team": "devops"}}}
HARD, SOFT = "DoNotSchedule", "ScheduleAnyway"


OWNERS = ("one", "two")


def owner(name: str) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "controller": True}


def workload(kind: type[ClusterObject], name: str, selector: Any) -> ClusterObject:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "default"}, "spec": {"selector": selector}}, kind
    )


def prefers(weight: int, term: dict[str, Any]) -> dict[str, Any]:
    return {"weight": weight, "podAffinityTerm": term}


def ruled(name: str, *spread: dict[str, Any], colour: str = "blue", **affinity: Any) -> PodInfo:
    """A pod that others' rules may see as blue, with these rules of its own about blue ones."""
    constraints = [{**BLUE, "maxSkew": 1, **constraint} for constraint in spread]
    spec = {"affinity": affinity, "topologySpreadConstraints": constraints}
    return make_pod(name).labels(colour=colour).req(memory="256Mi").spec(**spec).info()


WAITING: list[PodInfo] = [
    make_pod("plain").req(cpu="500m", memory="512Mi").info(),
    make_pod("plain-too").req(cpu="500m", memory="512Mi").info(),
    make_pod("large").req(cpu="2", memory="3Gi").info(),
    make_pod("gpu").req({GPU: "1"}, cpu="1", memory="1Gi").info(),
    make_pod("gpu-too").req(cpu="500m", memory="1Gi").req({GPU: "1"}, cpu="500m", memory="0").info(),
    make_pod("zonal").req(memory="1Gi").selector({"zone": "a"}).info(),
    make_pod("tolerant").req(memory="1Gi").toleration(operator="Exists").info(),
    make_pod("web").host_port(80).req(memory="256Mi").info(),
    make_pod("pinned").pinned_to("n1", "n7").info(),
    make_pod("nothing").info(),
    make_pod("fond").req(memory="1Gi").prefers(5, in_zone("a")).info(),
    make_pod("fonder").req(memory="1Gi").prefers(5, in_zone("b")).prefers(9, in_zone("a")).info(),
    make_pod("app").container(image="app:v1", resources={"requests": {"memory": "1Gi"}}).info(),
    make_pod("app-too").container(image="app:v1", resources={"requests": {"memory": "2Gi"}}).info(),
    make_pod("new").container(image="app:v2", resources={"requests": {"memory": "1Gi"}}).info(),
    make_pod("demanding").spec(hostNetwork=True, hostUsers=False).info(),
    make_pod("blue").labels(colour="blue").info(),
    ruled("away", podAntiAffinity={REQUIRED: [BLUE]}),
    ruled("near", podAffinity={REQUIRED: [BLUE]}),
    ruled("fan", podAffinity={PREFERRED: [prefers(2, BLUE)]}),
    ruled("shy", podAntiAffinity={PREFERRED: [prefers(2, BLUE)]}),
    ruled("alone", podAntiAffinity={REQUIRED: [BLUE_HOST]}),
    ruled("away-and-near", podAntiAffinity={REQUIRED: [BLUE_HOST]}, podAffinity={REQUIRED: [BLUE]}),
    ruled("near-twice", podAffinity={REQUIRED: [BLUE_OF_TEAM, BLUE_HOST]}),
    ruled("near-others", colour="red", podAffinity={REQUIRED: [BLUE]}),
    ruled("fan-and-shy", podAffinity={PREFERRED: [prefers(3, BLUE), prefers(1, BLUE_HOST)]}),
    ruled("even", {"whenUnsatisfiable": HARD}),
    ruled("even-anywhere", {"whenUnsatisfiable": HARD, "maxSkew": 2, "minDomains": 2}, colour="red"),
    ruled("even-twice", {"whenUnsatisfiable": HARD}, {"whenUnsatisfiable": HARD, "topologyKey": HOSTNAME}),
    ruled("even-where-allowed", {"whenUnsatisfiable": HARD, "nodeTaintsPolicy": "Honor"}),
    ruled("rather-even", {"whenUnsatisfiable": SOFT}),
    ruled(
        "rather-even-twice",
        {"whenUnsatisfiable": SOFT, "maxSkew": 3},
        {"whenUnsatisfiable": SOFT, "topologyKey": HOSTNAME},
    ),
    *(make_pod(f"of-{name}").labels(colour="blue").owners(owner(name)).info() for name in OWNERS),
]

WORKLOADS = [
    *(workload(ReplicaSet, name, {"matchLabels": {"colour": c}}) for name in OWNERS for c in ("blue", "red")),
    workload(Service, "service", {"colour": "blue"}),
]

IMAGES, SIZES = ("app:v1", "app:v2", "other:v1"), (100 << 20, 700 << 20)
names = st.integers(0, 7).map(lambda i: f"n{i}")


@st.composite
def nodes(draw: st.DrawFn) -> NodeBuilder:
    node = make_node(draw(names)).allocatable(
        cpu=draw(st.sampled_from(["1", "2", "4"])),
        memory=draw(st.sampled_from(["1Gi", "4Gi", "8Gi"])),
        pods=draw(st.sampled_from(["1", "3", "110"])),
    )
    if draw(st.booleans()):
        node.allocatable({GPU: draw(st.sampled_from(["0", "1", "2"]))})
    labels = {}
    if draw(st.booleans()):
        labels["zone"] = draw(st.sampled_from(["a", "b"]))
    if draw(st.booleans()):
        labels[HOSTNAME] = draw(names)
    node.labels(labels)
    if draw(st.integers(0, 3)) == 0:
        node.taint("t", effect=draw(st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"])))
    if draw(st.integers(0, 3)) == 0:
        node.taint("u", effect="PreferNoSchedule")
    node.images({image: draw(st.sampled_from(SIZES)) for image in draw(st.sets(st.sampled_from(IMAGES)))})
    if draw(st.booleans()):
        node.features("UserNamespacesHostNetworkSupport")
    return node.cordoned(draw(st.integers(0, 3)) == 0)


changes = st.one_of(
    st.tuples(st.just("node"), nodes()),
    st.tuples(st.just("no node"), names),
    st.tuples(st.just("pod"), st.tuples(st.sampled_from(WAITING), names, st.integers(0, 20))),
    st.tuples(st.just("no pod"), st.integers(0, 20)),
    st.tuples(st.just("new mix"), st.sampled_from(WAITING)),
    st.tuples(st.just("object"), st.sampled_from(WORKLOADS)),
    st.tuples(st.just("no object"), st.sampled_from(WORKLOADS)),
    st.tuples(st.just("namespace"), st.sampled_from([None, {}, {"team": "devops"}])),
)


class History:
    """The state and a mix, changed step by step."""

    def __init__(self) -> None:
        self.mix = ShapeMix()
        self.state = ClusterState(self.mix.frozen)
        self.arrivals = 0

    def apply(self, change: tuple[str, Any]) -> None:
        match change:
            case "node", node:
                self.state.upsert_node(node.obj())
            case "no node", name:
                self.state.remove_node(name)
            case "pod", (like, node, number):
                manifest = make_pod(f"p{number}").on(node)
                manifest._containers = [dict(c) for c in like_containers(like)]
                manifest.labels(**like.labels).spec(affinity=msgspec.to_builtins(like.pod.spec.affinity))
                self.state.confirm(manifest.info())
            case "no pod", number:
                self.state.remove_pod(f"uid-of-default/p{number}")
            case "namespace", labels:
                self.state.nodes.pods.set_namespace("default", labels)
            case "new mix", like:
                for _ in range(EPOCH_ARRIVALS):
                    self.arrivals += 1
                    self.mix.observe(str(self.arrivals), like.requests or {"cpu": 1}, daemon=False)
                self.state.nodes.mix = self.mix.frozen
            case "object", item:
                self.state.nodes.cluster.upsert(item)
            case "no object", item:
                self.state.nodes.cluster.remove(type(item), item.metadata)


def like_containers(pod: PodInfo) -> list[dict[str, Any]]:
    requests = {name: f"{n}m" if name == "cpu" else str(n) for name, n in pod.requests.items()}
    ports = [{"hostPort": port} for _, port, _ in pod.host_ports]
    return [{"name": "c", "resources": {"requests": requests}, "ports": ports}]


@pytest.mark.parametrize("profile", PROFILES)
@settings(max_examples=settings().max_examples // 4)
@given(
    kinds_kept=st.sampled_from([CACHED_KINDS, 2]),
    changes_kept=st.sampled_from([tally.KEPT, 2]),
    start=st.lists(nodes(), max_size=8),
    steps=st.lists(st.tuples(changes, st.lists(st.sampled_from(WAITING), max_size=3)), max_size=25),
)
def test_cached_answers_are_fresh_answers(
    profile: str,
    kinds_kept: int,
    changes_kept: int,
    start: list[NodeBuilder],
    steps: list[tuple[tuple[str, Any], list[PodInfo]]],
) -> None:
    """A pod asked for after every step would hide mistakes that several changes make together."""
    with mock.patch.object(tally, "KEPT", changes_kept):
        history = History()
        make = PROFILES[profile]
        lasting = Cycle(make(), history.state.nodes, cached_kinds=kinds_kept)
        for node in start:
            history.apply(("node", node))
        for change, asked in [*steps, (("no pod", 0), WAITING)]:
            history.apply(change)
            for pod in asked:
                assert_alike(lasting, Cycle(make(), history.state.nodes), pod)


def assert_alike(lasting: Cycle, fresh: Cycle, pod: PodInfo) -> None:
    """Not only the same node, but for the same reasons."""
    assert lasting.place(pod) == fresh.place(pod)
    (filters, raw), (fresh_filters, fresh_raw) = lasting.explain(pod), fresh.explain(pod)
    for answers, expected in zip(filters, fresh_filters, strict=True):
        assert answers.first.tolist() == expected.first.tolist()
        assert answers.bits.tolist() == expected.bits.tolist()
        rejected = expected.bits != 0
        assert answers.unresolvable[rejected].tolist() == expected.unresolvable[rejected].tolist()
    feasible = np.all([answers.first == PASSES for answers in fresh_filters], axis=0)
    assert raw.keys() == fresh_raw.keys()
    for name, scores in raw.items():
        assert scores[feasible].tolist() == fresh_raw[name][feasible].tolist(), name
    assert ranks(lasting, pod, feasible) == ranks(fresh, pod, feasible)


def ranks(cycle: Cycle, pod: PodInfo, feasible: NDArray[np.bool_]) -> list[int]:
    """Scores of the plugins that look beyond a node, where the pod fits."""
    rows = np.flatnonzero(feasible)
    remote = cycle.remote.answers(pod, cycle._answers(pod, cycle.read_key(pod)).remote)
    return list(map(int, remote.rank(rows, len(rows)))) if len(rows) else []
