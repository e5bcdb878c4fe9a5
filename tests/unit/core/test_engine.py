"""The engine's calls one by one; their interplay is in tests/property/test_engine_model.py."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from scheduler.api import ObjectMeta
from scheduler.api_objects import Service
from scheduler.core.engine import Verdict
from scheduler.core.plugin import FilterPlugin, FilterResult, ObjectChange, Wake, passes, rejects
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile
from scheduler.quantity import QuantityError
from tests.builders import make_node, make_pod
from tests.unit.core.deciding import Cluster, small_pod


def test_a_placed_pod_is_assumed_at_once() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n").allocatable(pods="1"))
    cluster.pods(small_pod("a"), small_pod("b"))
    first, second = cluster.decide(), cluster.decide()
    assert (first.verdict, first.node, first.attempts) == (Verdict.PLACED, "n", 1)
    assert (second.verdict, second.node) == (Verdict.UNSCHEDULABLE, None)
    assert second.message == (
        "0/1 nodes are available: 1 Too many pods. "
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )
    assert second.rejected_by == {"NodeResourcesFit"}
    assert cluster.engine.state.assumed_count == 1


def test_without_nodes() -> None:
    cluster = Cluster()
    cluster.pods(small_pod())
    assert cluster.decide().message == "no nodes available to schedule pods"
    cluster.nodes(make_node("n"))
    assert cluster.wakes()


def test_the_time_waited_does_not_count_gates() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    cluster.pods(small_pod().gated())
    cluster.clock.advance(100)
    cluster.pods(small_pod())
    cluster.clock.advance(3)
    assert cluster.decide().waited_s == 3


def test_terminating_pods_are_left_alone() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    cluster.pods(small_pod("never queued").terminating(), small_pod())
    cluster.pods(small_pod().terminating())
    decision = cluster.decide()
    assert (decision.verdict, decision.message) == (
        Verdict.TERMINATING,
        "skip schedule deleting pod: default/small",
    )
    assert not cluster.engine.knows(decision.pod.uid)
    assert cluster.engine.decide() is None


def test_pods_of_other_schedulers_are_not_ours() -> None:
    cluster = Cluster()
    cluster.pods(small_pod().scheduler("somebody-else"))
    assert not cluster.engine.knows("uid-of-default/small")


# ---- binds


@pytest.fixture
def placed() -> Cluster:
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    cluster.pods(small_pod())
    assert cluster.decide().node == "n"
    return cluster


UID = "uid-of-default/small"


def test_confirmed_by_the_answer_then_by_the_watch(placed: Cluster) -> None:
    engine = placed.engine
    engine.bind_confirmed(UID)
    assert UID not in engine.queue
    assert engine.state.pods[UID].assumed
    placed.pods(small_pod())  # the watch is behind
    assert UID not in engine.queue
    placed.pods(small_pod().on("n"))
    assert not engine.state.pods[UID].assumed


def test_confirmed_by_the_watch_then_by_the_answer(placed: Cluster) -> None:
    placed.pods(small_pod().on("n"))
    placed.engine.bind_confirmed(UID)
    assert UID not in placed.engine.queue
    assert placed.engine.state.assumed_count == 0


def test_a_refused_bind_gives_the_room_back_and_tries_again(placed: Cluster) -> None:
    placed.engine.bind_failed(UID)
    assert placed.engine.state.pods == {}
    assert placed.engine.decide() is None, "it backs off first"
    placed.clock.advance(1)
    assert placed.decide().attempts == 2


@pytest.mark.parametrize("void", [True, False])
def test_a_bind_that_came_to_nothing_wakes_those_who_wanted_the_room(void: bool) -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n").allocatable(cpu="1"))
    cluster.pods(small_pod("a"), small_pod("b"))
    assert cluster.decide().node == "n"
    assert cluster.decide().node is None
    if void:
        cluster.engine.bind_void("uid-of-default/a")
    else:
        cluster.engine.bind_failed("uid-of-default/a")
        cluster.engine.remove_pod("uid-of-default/a")
    assert cluster.wakes()


def test_a_void_bind_gives_the_room_back_for_good(placed: Cluster) -> None:
    placed.engine.bind_void(UID)
    assert not placed.engine.knows(UID)


def test_bound_elsewhere_is_believed(placed: Cluster) -> None:
    placed.nodes(make_node("m"))
    placed.pods(small_pod().on("m"))
    placed.engine.bind_void(UID)
    assert placed.engine.state.pods[UID].node == "m"
    assert list(placed.engine.state.nodes.pod_count[:2]) == [0, 1]


def test_a_pod_that_is_gone_is_not_tried_again(placed: Cluster) -> None:
    placed.engine.remove_pod(UID)
    placed.engine.bind_failed(UID)
    assert not placed.engine.knows(UID)


# ---- a pod's life


@pytest.mark.parametrize(
    ("phase", "holds"),
    [("Pending", True), ("Running", True), ("Unknown", True), ("Succeeded", False), ("Failed", False)],
)
def test_the_room_of_a_pod_follows_its_phase(phase: str, holds: bool) -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n").allocatable(pods="1"))
    cluster.pods(make_pod("there").on("n"), make_pod("there").on("n").phase(phase), small_pod())
    assert (cluster.decide().node is None) is holds


def test_a_terminating_pod_holds_its_room_until_it_is_gone() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n").allocatable(pods="1"))
    cluster.pods(make_pod("there").on("n").phase("Running").terminating(), small_pod())
    assert cluster.decide().verdict is Verdict.UNSCHEDULABLE
    cluster.engine.remove_pod("uid-of-default/there")
    assert cluster.wakes()


# ---- plugins that fail


class Moody(FilterPlugin):
    """Fails on nodes it is told to."""

    name = "Moody"
    reads = ()
    wakes_on = Wake.NODE_ADD
    broken: ClassVar[set[str]] = set()

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return ("node(s) were not liked",)

    def filter(self, pod: PodInfo, nodes: Any) -> FilterResult:
        if self.broken & set(nodes.names):
            raise RuntimeError("bad day")
        return rejects(np.array([name == "n" for name in nodes.names]), unresolvable=True)


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(Moody, "broken", set())
    cluster = Cluster(Profile("wholepod", [Moody()], []))
    cluster.nodes(make_node("n"))
    cluster.pods(make_pod())
    return cluster


def test_a_failing_plugin_is_one_pods_trouble(moody: Cluster) -> None:
    Moody.broken.add("n")
    decision = moody.decide()
    assert (decision.verdict, decision.message) == (
        Verdict.ERROR,
        "deciding failed with RuntimeError: bad day",
    )
    assert moody.engine.decide() is None
    Moody.broken.clear()
    moody.clock.advance(1)
    assert moody.decide().message == "0/1 nodes are available: 1 node(s) were not liked."


def test_a_plugin_that_fails_in_a_wake_check_is_no_more_than_that(moody: Cluster) -> None:
    assert moody.decide().verdict is Verdict.UNSCHEDULABLE
    Moody.broken.add("m")
    moody.nodes(make_node("m"))
    moody.clock.advance(60)
    assert moody.decide().verdict is Verdict.ERROR


class Confused(FilterPlugin):
    """Rejects all nodes, and fails at what it is told to."""

    name = "Confused"
    reads = ()
    row_local = False
    wakes_on = Wake.WORKLOAD
    broken: ClassVar[str] = ""

    def context(self, pod: PodInfo, nodes: Any) -> tuple[str]:
        if self.broken == "context":
            raise RuntimeError("bad day")
        return ("the same for all",)

    def may_help(self, pod: PodInfo, change: ObjectChange) -> bool:
        raise RuntimeError("bad day")

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return ("node(s) were not liked",)

    def filter(self, pod: PodInfo, nodes: Any) -> FilterResult:
        if self.broken == "filter":
            raise RuntimeError("bad day")
        return rejects(np.ones(nodes.count, np.bool_), unresolvable=True)


@pytest.mark.parametrize(
    ("event", "broken"), [("object", "context"), ("object", "filter"), ("update", "context")]
)
def test_a_plugin_that_fails_on_the_way_to_a_wake_check_is_no_more_either(
    monkeypatch: pytest.MonkeyPatch, event: str, broken: str
) -> None:
    cluster = Cluster(Profile("wholepod", [Confused()], []))
    cluster.nodes(make_node("n"))
    cluster.pods(make_pod("p"), make_pod("q"))
    for _ in range(2):
        assert cluster.decide().verdict is Verdict.UNSCHEDULABLE
    monkeypatch.setattr(Confused, "broken", broken)
    cluster.clock.advance(60)
    if event == "object":
        cluster.engine.upsert_object(Service(ObjectMeta(name="s", namespace="default")))
    else:
        cluster.pods(make_pod("p").labels(app="a"))
    assert cluster.decide().verdict is Verdict.ERROR


class Choosy(FilterPlugin):
    """Rejects all nodes and thinks no event could change that."""

    name = "Choosy"
    reads = ()
    wakes_on = Wake.NOTHING

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return ("node(s) were known",)

    def filter(self, pod: PodInfo, nodes: Any) -> FilterResult:
        old = np.array([name == "n" for name in nodes.names])
        return rejects(old, unresolvable=True) if old.any() else passes(nodes.count)


def test_a_new_node_is_always_worth_a_look() -> None:
    """No plugin has rejected it yet, so none has to name it in `wakes_on`."""
    cluster = Cluster(Profile("wholepod", [Choosy()], []))
    cluster.nodes(make_node("n"))
    cluster.pods(make_pod())
    assert cluster.decide().verdict is Verdict.UNSCHEDULABLE
    cluster.nodes(make_node("m"))
    assert cluster.wakes()


# ---- bad objects


def test_a_waiting_pod_that_cannot_be_read_is_not_scheduled() -> None:
    cluster = Cluster()
    cluster.pods(small_pod())
    with pytest.raises(QuantityError, match="'lots'"):
        cluster.pods(make_pod("small").req(cpu="lots"))
    assert cluster.engine.decide() is None


@pytest.mark.parametrize("waiting", [True, False])
def test_a_status_that_cannot_be_read_is_refused_before_anything_has_changed(waiting: bool) -> None:
    status = [{"name": "c0", "allocatedResources": {"cpu": "lots"}}]
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    pod = small_pod().status(containerStatuses=status)
    with pytest.raises(QuantityError):
        cluster.pods(pod if waiting else pod.on("n"))
    assert cluster.engine.decide() is None
    assert not cluster.engine.knows(UID)
    cluster.engine.remove_pod(UID)
    assert cluster.engine.state.nodes.pod_count[0] == 0


def test_a_node_that_cannot_be_read_keeps_its_former_self() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n").allocatable(cpu="1"))
    with pytest.raises(QuantityError):
        cluster.nodes(make_node("n").allocatable(cpu="lots"))
    with pytest.raises(QuantityError):
        cluster.nodes(make_node("new").allocatable(cpu="lots"))
    assert cluster.engine.state.nodes.names == ["n"]
    assert cluster.engine.state.nodes.allocatable[0, 0] == 1000


# ---- complete lists


def test_a_list_of_pods_replaces_what_is_known() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    cluster.pods(small_pod("goes"), small_pod("stays"), small_pod("gets a node"), small_pod("there").on("n"))
    listed = [
        small_pod("stays"),
        small_pod("gets a node").on("n"),
        small_pod("new, younger").created("2026-01-02T00:00:00Z"),
        small_pod("new, older").created("2026-01-01T00:00:00Z"),
        make_pod("unreadable").req(cpu="lots"),
    ]
    [(pod, error)] = cluster.engine.replace_pods([pod.obj() for pod in listed])
    assert (pod.metadata.name, type(error)) == ("unreadable", QuantityError)
    assert list(cluster.places) == ["stays", "new, older", "new, younger"]
    assert list(cluster.engine.state.pods) == ["uid-of-default/gets a node"]


def test_a_list_of_nodes_replaces_what_is_known() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("goes"), make_node("stays"))
    listed = [make_node("stays"), make_node("new"), make_node("unreadable").allocatable(cpu="lots")]
    [(node, _)] = cluster.engine.replace_nodes([node.obj() for node in listed])
    assert node.metadata.name == "unreadable"
    assert cluster.engine.state.nodes.names == ["stays", "new"]


def test_a_list_wakes_whom_it_helps() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    cluster.pods(make_pod("big").req(cpu="4").on("n"), small_pod())
    assert cluster.decide().verdict is Verdict.UNSCHEDULABLE
    cluster.engine.replace_pods([small_pod().obj()])
    assert cluster.wakes()
