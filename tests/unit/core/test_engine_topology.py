"""Waking pods that rules about other pods keep waiting: what happens on one node helps on another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scheduler.api import Namespace, ObjectMeta
from scheduler.core.engine import Engine, Verdict
from scheduler.core.queue import Place
from tests.builders import Clock, PodBuilder, make_engine, make_node, make_pod

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def term(app: str, **more: Any) -> dict[str, Any]:
    return {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}, **more}


def avoiding(app: str, name: str = "waiting", **more: Any) -> PodBuilder:
    return make_pod(name).spec(affinity={"podAntiAffinity": {REQUIRED: [term(app, **more)]}})


def following(app: str, name: str = "waiting", **more: Any) -> PodBuilder:
    return make_pod(name).spec(affinity={"podAffinity": {REQUIRED: [term(app, **more)]}})


def spreading(app: str, name: str = "waiting") -> PodBuilder:
    constraint = {**term(app), "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    return make_pod(name).labels(app=app).spec(topologySpreadConstraints=[constraint])


class Cluster:
    """Two nodes in zone a and one in zone b, in virtual time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.engine: Engine = make_engine(self.clock)
        for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
            self.node(name, zone)

    def node(self, name: str, zone: str, *, cordoned: bool = False) -> None:
        self.engine.upsert_node(make_node(name).labels({"zone": zone}).cordoned(cordoned).obj())

    def pods(self, *pods: PodBuilder) -> None:
        for pod in pods:
            self.engine.upsert_pod(pod.obj())

    def namespace(self, name: str, **labels: str) -> None:
        self.engine.upsert_namespace(Namespace(metadata=ObjectMeta(name=name, labels=labels)))

    def sleeps(self) -> None:
        """The pod that waits is tried in vain, and nothing has happened that could wake it."""
        decision = self.engine.decide()
        assert decision is not None
        assert decision.verdict is Verdict.UNSCHEDULABLE, decision
        self.clock.advance(60)
        assert self.engine.decide() is None

    def wakes(self) -> str | None:
        """Where the pod is placed that has been woken; None when none was."""
        decision = self.engine.decide()
        return decision.node if decision is not None else None


def app(name: str, app: str, node: str) -> PodBuilder:
    return make_pod(name).labels(app=app).on(node)


def pod_goes(cluster: Cluster) -> None:
    cluster.engine.remove_pod("uid-of-default/x-in-a")


def pod_comes(cluster: Cluster) -> None:
    cluster.pods(app("new", "y", "a1"))


def pod_is_relabelled(cluster: Cluster) -> None:
    cluster.pods(app("x-in-a", "y", "a1"))


def pod_is_deleted(cluster: Cluster) -> None:
    cluster.pods(app("x-in-a", "x", "a1").terminating())


def node_goes(cluster: Cluster) -> None:
    cluster.engine.remove_node("b1")


def node_moves(cluster: Cluster) -> None:
    cluster.node("a2", "c")


@pytest.mark.parametrize(
    ("waiting", "event", "woken_for"),
    [
        (following("y"), pod_comes, {"a1", "a2"}),
        (following("y"), pod_is_relabelled, {"a1", "a2"}),
        (following("y"), pod_goes, set()),
        (avoiding("x"), pod_goes, {"a1", "a2"}),
        (avoiding("x"), pod_is_relabelled, {"a1", "a2"}),
        (avoiding("x"), pod_is_deleted, set()),
        (avoiding("x"), pod_comes, set()),
        (avoiding("x"), node_moves, {"a2"}),
        (spreading("x"), pod_goes, {"a1", "a2"}),
        (spreading("x"), pod_is_deleted, {"a1", "a2"}),
        (spreading("x"), pod_is_relabelled, {"a1", "a2"}),
        (spreading("x"), node_goes, {"a1", "a2"}),
        (spreading("x"), node_moves, {"a2"}),
        (spreading("x"), pod_comes, set()),
    ],
)
def test_what_wakes_a_pod(waiting: PodBuilder, event: Callable[[Cluster], None], woken_for: set[str]) -> None:
    """For `avoiding`, b1 is taken by another x; for `spreading`, b1 is empty and cordoned."""
    cluster = Cluster()
    cluster.pods(app("x-in-a", "x", "a1"))
    if waiting.obj().spec.topology_spread_constraints:
        cluster.node("b1", "b", cordoned=True)
    else:
        cluster.pods(app("x-in-b", "x", "b1"))
    cluster.pods(waiting)
    cluster.sleeps()
    event(cluster)
    node = cluster.wakes()
    assert node in woken_for if woken_for else node is None


def test_an_assumed_pod_wakes_those_who_follow_it() -> None:
    cluster = Cluster()
    cluster.pods(following("x"))
    cluster.sleeps()
    cluster.pods(make_pod("leader").labels(app="x").selector({"zone": "b"}))
    assert [cluster.wakes(), cluster.wakes()] == ["b1", "b1"]


def test_a_refused_bind_wakes_those_who_avoided_the_pod() -> None:
    cluster = Cluster()
    cluster.pods(app("x-in-a", "x", "a1"), make_pod("x").labels(app="x").selector({"zone": "b"}))
    assert cluster.wakes() == "b1"
    cluster.pods(avoiding("x"))
    cluster.sleeps()
    cluster.engine.bind_void("uid-of-default/x")
    assert cluster.wakes() == "b1"


def test_pods_of_one_kind_sleep_and_wake_by_what_others_have_against_them() -> None:
    cluster = Cluster()
    for zone, node in (("a", "a1"), ("b", "b1")):
        cluster.pods(avoiding("x", f"avoids-in-{zone}").on(node))
    cluster.pods(*(make_pod(f"full-{i}").req(memory="8Gi").on(node) for i, node in enumerate(["a1", "a2"])))
    cluster.pods(make_pod("full").req(memory="8Gi").on("b1"))
    alike = [make_pod(name).labels(app=name).req(memory="1Gi") for name in ("x", "y", "z")]
    cluster.pods(*alike)
    for _ in alike:
        decision = cluster.engine.decide()
        assert decision is not None
        assert decision.verdict is Verdict.UNSCHEDULABLE
    cluster.clock.advance(60)
    cluster.engine.remove_pod("uid-of-default/full")
    assert cluster.wakes() == "b1"
    places = {queued.info.pod.metadata.name: queued.place for queued in cluster.engine.queue}
    assert places == {"x": Place.UNSCHEDULABLE, "y": Place.IN_FLIGHT, "z": Place.ACTIVE}


def test_a_pod_whose_new_labels_nobody_minds_is_tried_again() -> None:
    cluster = Cluster()
    cluster.pods(
        avoiding("x", "in-a").on("a1"), avoiding("x", "in-b").on("b1"), make_pod("p").labels(app="x")
    )
    cluster.sleeps()
    cluster.pods(make_pod("p").labels(app="x", other="label"))
    assert cluster.wakes() is None, "nobody has rules about that label"
    cluster.pods(make_pod("p").labels(app="y"))
    assert cluster.wakes() is not None


def test_a_namespace_that_changes_sides_wakes_pods() -> None:
    cluster = Cluster()
    team = {"namespaceSelector": {"matchLabels": {"team": "t"}}}
    cluster.pods(make_pod().named("leader", namespace="other").labels(app="x").on("b1"))
    cluster.pods(following("x", "waiting", **team))
    cluster.sleeps()
    cluster.namespace("other", team="u")
    assert cluster.wakes() is None
    cluster.namespace("other", team="t")
    assert cluster.wakes() == "b1"
    cluster.pods(avoiding("x", "away", **team).selector({"zone": "b"}))
    cluster.sleeps()
    cluster.engine.replace_namespaces([])
    assert cluster.wakes() == "b1"


def test_pods_without_rules_wait_for_no_pods() -> None:
    cluster = Cluster()
    cluster.pods(make_pod("large").req(memory="100Gi"))
    cluster.sleeps()
    cluster.pods(app("new", "x", "a1"))
    assert cluster.engine.next_due() == cluster.engine.queue.next_due(), "no check is due"
