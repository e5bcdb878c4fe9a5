"""Default spread constraints: which objects select a pod, what is kept, and which arguments are refused."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from scheduler.api_objects import ClusterObject, ReplicaSet, ReplicationController, Service, StatefulSet
from scheduler.core.cycle import Cycle
from scheduler.core.engine import Verdict
from scheduler.core.objects import ClusterObjects
from scheduler.core.topology_rules import Selector
from scheduler.plugins.default_spread import SYSTEM, WORKLOADS, DefaultSpread, PodTopologySpreadArgs
from scheduler.plugins.pod_topology_spread import PodTopologySpread
from tests.builders import Clock, NodeBuilder, PodBuilder, make_engine, make_node, make_pod, make_profile
from tests.unit.plugins.filtering import state_of

ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"
APP: Selector = (("app", "In", ("x",)),)
TIER: Selector = (("tier", "In", ("front",)),)
HARD_ZONES = [{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}]


def item(kind: type[ClusterObject], name: str = "owner", namespace: str = "default", **spec: Any) -> Any:
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, kind)


def owned(
    kind: str = "ReplicaSet", api_version: str = "apps/v1", name: str = "pod", **more: Any
) -> PodBuilder:
    reference = {"apiVersion": api_version, "kind": kind, "name": "owner", "controller": True, **more}
    return make_pod(name).labels(app="x", tier="front").owners(reference)


def selector_of(pod: PodBuilder, *objects: ClusterObject) -> Selector:
    """What the pods are spread by; empty for a pod that is not spread."""
    cluster = ClusterObjects()
    for each in objects:
        cluster.upsert(each)
    rules = DefaultSpread(PodTopologySpreadArgs()).rules(pod.info(), cluster)
    assert not rules.hard
    assert not rules.soft or [c.topology_key for c in rules.soft] == [c.topology_key for c in SYSTEM]
    selectors = {constraint.selector or () for constraint in rules.soft}
    return selectors.pop() if selectors else ()


SELECTS_APP: dict[str, Any] = {"selector": {"matchLabels": {"app": "x"}}}


@pytest.mark.parametrize(
    ("pod", "objects", "expected"),
    [
        (make_pod(), [], ()),
        (owned(), [], ()),
        (owned(), [item(ReplicaSet, **SELECTS_APP)], APP),
        (owned("StatefulSet"), [item(StatefulSet, **SELECTS_APP)], APP),
        (owned("ReplicationController", "v1"), [item(ReplicationController, selector={"app": "x"})], APP),
        # Right name, wrong kind, group or namespace; or no controller.
        (owned(), [item(StatefulSet, **SELECTS_APP)], ()),
        (owned("StatefulSet", "apps/v1beta1"), [item(StatefulSet, **SELECTS_APP)], ()),
        (owned("ReplicaSet", "example.com/v1"), [item(ReplicaSet, **SELECTS_APP)], ()),
        (owned(), [item(ReplicaSet, namespace="other", **SELECTS_APP)], ()),
        (owned(controller=False), [item(ReplicaSet, **SELECTS_APP)], ()),
        # A selector that selects nothing, or everything, adds nothing.
        (owned(), [item(ReplicaSet)], ()),
        (owned(), [item(ReplicaSet, selector={})], ()),
        (owned(), [item(Service, "s")], ()),
        (owned(), [item(Service, "s", selector={})], ()),
        # Services count if they mean the pod, and add up.
        (owned(), [item(Service, "s", selector={"app": "x"})], APP),
        (owned(), [item(Service, "s", selector={"app": "x", "tier": "back"})], ()),
        (owned(), [item(Service, "s", "other", selector={"app": "x"})], ()),
        (
            make_pod().labels(app="x", tier="front"),
            [item(Service, "s", selector={"app": "x"}), item(Service, "t", selector={"tier": "front"})],
            APP + TIER,
        ),
        (
            owned(),
            [item(Service, "s", selector={"tier": "front"}), item(ReplicaSet, **SELECTS_APP)],
            APP + TIER,
        ),
        # A controller need not mean its pod. Maps are merged, other selectors must hold as well.
        (
            owned("ReplicationController", "v1"),
            [item(Service, "s", selector={"app": "x"}), item(ReplicationController, selector={"app": "y"})],
            (("app", "In", ("y",)),),
        ),
        (
            owned(),
            [
                item(Service, "s", selector={"app": "x"}),
                item(ReplicaSet, selector={"matchLabels": {"app": "y"}}),
            ],
            (("app", "In", ("x",)), ("app", "In", ("y",))),
        ),
    ],
)
def test_what_selects_a_pod(pod: PodBuilder, objects: list[ClusterObject], expected: Selector) -> None:
    assert selector_of(pod, *objects) == expected


def test_what_is_kept_follows_the_cluster() -> None:
    cluster, spread, info = ClusterObjects(), DefaultSpread(PodTopologySpreadArgs()), owned().info()
    assert spread.rules(info, cluster).soft == ()
    steps = [
        (item(Service, "s", selector={"app": "x"}), APP),
        (item(ReplicaSet, selector={"matchLabels": {"tier": "front"}}), APP + TIER),
        (item(Service, "s", selector={"app": "z"}), TIER),
    ]
    for change, expected in steps:
        cluster.upsert(change)
        rules = spread.rules(info, cluster)
        assert rules.soft[0].selector == expected
        assert spread.rules(owned(name="sibling").info(), cluster) is rules
    cluster.remove(ReplicaSet, steps[1][0].metadata)
    assert spread.rules(info, cluster).soft == ()
    # One plugin may see several clusters.
    other = ClusterObjects()
    other.upsert(item(ReplicaSet, **SELECTS_APP))
    assert spread.rules(info, other).soft[0].selector == APP
    assert spread.rules(info, cluster).soft == ()


def test_pods_share_a_kind_whatever_selects_them() -> None:
    state = state_of(make_node())
    for name in ("one", "two"):
        state.nodes.cluster.upsert(item(ReplicaSet, name, **SELECTS_APP))
    cycle = Cycle(make_profile(preset="kube"), state.nodes)
    pods = [owned(name=name).info() for name in ("one", "two")]
    assert len({cycle.read_key(pod) for pod in (*pods, make_pod().info())}) == 1


def test_own_constraints_take_the_place_of_defaults() -> None:
    plugin, own = PodTopologySpread(), {"topologyKey": "rack", "maxSkew": 1}
    nodes = state_of(*NODES).nodes
    nodes.cluster.upsert(item(ReplicaSet, **SELECTS_APP))
    spread_hard = owned().spec(topologySpreadConstraints=[{**own, "whenUnsatisfiable": "DoNotSchedule"}])
    assert plugin.prefers(owned().info(), nodes.view())
    assert plugin.context(owned().info(), nodes.view())
    assert not plugin.prefers(spread_hard.info(), nodes.view())
    assert not plugin.context(spread_hard.info(), nodes.view())


NODES: list[NodeBuilder] = [
    make_node("a1").labels({HOSTNAME: "a1", ZONE: "a"}),
    make_node("a2").labels({HOSTNAME: "a2", ZONE: "a"}),
    make_node("b1").labels({HOSTNAME: "b1", ZONE: "b"}),
    make_node("nowhere").labels({HOSTNAME: "nowhere"}),
]


@pytest.mark.parametrize(
    ("args", "normalized"),
    [
        # ln(4 + 2) for the pod on the node, ln(3 + 2) for the one in its zone, 2 and 4 for the skews:
        # raw 9, 8, 6, and 2 for `nowhere`, which is in no zone and pays for none.
        ({}, [22, 33, 55, 100]),
        # All labels are needed here; ln(3 + 2) and ln(2 + 2): raw 9, 7, 6.
        (
            {
                "defaultingType": "List",
                "defaultConstraints": [
                    {"maxSkew": 3, "topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway"},
                    {"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway"},
                ],
            },
            [66, 88, 100, 0],
        ),
    ],
)
def test_nodes_without_a_zone(args: dict[str, Any], normalized: list[int]) -> None:
    plugin = PodTopologySpread(args)
    nodes = state_of(*NODES, pods=(owned(name="first").on("a1"),)).nodes
    nodes.cluster.upsert(item(ReplicaSet, **SELECTS_APP))
    ranking = plugin.rank(owned().info(), nodes.view(), np.ones(4, np.bool_))
    assert ranking.normalized.tolist() == normalized


def test_memory_fit_spreads_nobody_who_has_not_asked() -> None:
    assert make_profile(preset="memory-fit").watches.isdisjoint(WORKLOADS)
    assert make_profile(preset="kube").watches.issuperset(WORKLOADS)
    asked = [{"name": "PodTopologySpread", "args": {"defaultingType": "System"}}]
    assert make_profile(preset="memory-fit", pluginConfig=asked).watches.issuperset(WORKLOADS)
    hard = [{"name": "PodTopologySpread", "args": {"defaultConstraints": HARD_ZONES}}]
    assert make_profile(preset="memory-fit", pluginConfig=hard).watches.issuperset(WORKLOADS)


def test_hard_defaults_keep_pods_waiting_until_their_owner_changes() -> None:
    clock = Clock()
    args = {"defaultingType": "List", "defaultConstraints": HARD_ZONES}
    config = [{"name": "PodTopologySpread", "args": args}]
    engine = make_engine(clock, make_profile(preset="kube", pluginConfig=config))
    for node in NODES[:2]:
        engine.upsert_node(node.obj())
    engine.upsert_node(NODES[2].cordoned().obj())
    engine.upsert_object(item(ReplicaSet, **SELECTS_APP))
    engine.upsert_pod(owned(name="first").on("a1").obj())
    engine.upsert_pod(owned(name="second").obj())
    decision = engine.decide()
    assert decision is not None
    assert decision.verdict is Verdict.UNSCHEDULABLE
    assert decision.message.startswith(
        "0/3 nodes are available: 1 node(s) were unschedulable, "
        "2 node(s) didn't match pod topology spread constraints. "
    )
    clock.advance(60)
    engine.upsert_object(item(ReplicaSet, "another", **SELECTS_APP))
    assert engine.decide() is None
    clock.advance(60)
    engine.upsert_object(item(ReplicaSet, selector={"matchLabels": {"app": "y"}}))
    decision = engine.decide()
    assert decision is not None
    assert decision.verdict is Verdict.PLACED


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([{**HARD_ZONES[0], "maxSkew": 0}], "defaultConstraints[0].maxSkew: must be 1 or more, got 0"),
        ([{**HARD_ZONES[0], "topologyKey": ""}], "defaultConstraints[0].topologyKey: is required"),
        (
            [{**HARD_ZONES[0], "topologyKey": "a/b/c"}],
            "defaultConstraints[0].topologyKey: 'a/b/c' is no name of a label",
        ),
        (
            [{**HARD_ZONES[0], "whenUnsatisfiable": "Never"}],
            "defaultConstraints[0].whenUnsatisfiable: must be DoNotSchedule or ScheduleAnyway, got 'Never'",
        ),
        (
            [{**HARD_ZONES[0], "labelSelector": {}}],
            "defaultConstraints[0].labelSelector: must not be there, "
            "as selectors follow from what owns each pod",
        ),
        (
            HARD_ZONES * 2,
            f"defaultConstraints[1]: there is another one with {ZONE} and DoNotSchedule",
        ),
        ([{"maxSkew": 1}], "defaultConstraints[0]: object missing required field `topologyKey`"),
        ([{**HARD_ZONES[0], "selector": {}}], "defaultConstraints[0].selector: unknown field"),
    ],
)
def test_constraints_that_make_no_sense(constraints: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PodTopologySpread({"defaultingType": "List", "defaultConstraints": constraints})


def test_the_system_brings_its_own_constraints() -> None:
    with pytest.raises(ValueError, match="defaultingType: System brings its own constraints"):
        PodTopologySpread({"defaultConstraints": HARD_ZONES})
