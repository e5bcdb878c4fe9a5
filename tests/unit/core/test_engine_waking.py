"""What wakes a pod that fitted nowhere, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from scheduler.core.engine import Verdict
from scheduler.core.pod_info import PodInfo
from scheduler.core.queue import Place
from scheduler.core.waking import WAKE_SLICE_S
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod
from tests.unit.core.deciding import Cluster, full_node, small_pod

Action = Callable[[Cluster], object]

WAKING: dict[str, Action] = {
    "a new node": lambda c: c.nodes(make_node("other")),
    "a larger node": lambda c: c.nodes(make_node("n").allocatable(cpu="5")),
    "a pod that finished": lambda c: c.pods(make_pod("big").req(cpu="4").on("n").phase("Succeeded")),
    "a pod that was deleted": lambda c: c.engine.remove_pod("uid-of-default/big"),
    "a pod that shrank": lambda c: c.pods(make_pod("big").req(cpu="2").on("n")),
}
NOT_WAKING: dict[str, Action] = {
    "a heartbeat": lambda c: c.nodes(make_node("n").annotations(beat="2")),
    "labels": lambda c: c.nodes(make_node("n").labels({"zone": "a"})),
    "a new node that is too small": lambda c: c.nodes(full_node("other")),
    "a pod that shrank too little": lambda c: c.pods(make_pod("big").req(cpu="3500m").on("n")),
    "another pod that waits": lambda c: c.pods(make_pod("gated").gated()),
    "a node that left": lambda c: c.engine.remove_node("n"),
}


@pytest.mark.parametrize("what", [*WAKING, *NOT_WAKING])
def test_only_what_can_help_wakes(what: str) -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    cluster.pods(make_pod("big").req(cpu="4").on("n"), small_pod())
    assert cluster.decide().verdict is Verdict.UNSCHEDULABLE
    {**WAKING, **NOT_WAKING}[what](cluster)
    assert cluster.wakes() == (what in WAKING)


@pytest.mark.parametrize(
    ("rejected", "node", "helped"),
    [
        (small_pod(), make_node("n").cordoned(), make_node("n")),
        (small_pod(), make_node("n").taint("t"), make_node("n")),
        (small_pod(), make_node("n").taint("t"), make_node("n").taint("t", effect="PreferNoSchedule")),
        (small_pod().selector({"zone": "a"}), make_node("n"), make_node("n").labels({"zone": "a"})),
        (small_pod(), make_node("n").allocatable(pods="0"), make_node("n")),
        (small_pod(), make_node("n").without("memory"), make_node("n")),
    ],
)
def test_every_filter_is_helped_by_what_it_waits_for(
    rejected: PodBuilder, node: NodeBuilder, helped: NodeBuilder
) -> None:
    cluster = Cluster()
    cluster.nodes(node)
    cluster.pods(rejected)
    assert cluster.decide().verdict is Verdict.UNSCHEDULABLE
    cluster.nodes(helped)
    assert cluster.wakes()


def test_a_host_port_that_became_free_wakes() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n"))
    cluster.pods(make_pod("first").host_port(80), make_pod("second").host_port(80))
    assert cluster.decide().node == "n"
    assert cluster.decide().rejected_by == {"NodePorts"}
    cluster.engine.bind_void("uid-of-default/first")
    assert cluster.wakes()


def test_a_second_reason_that_shows_is_waited_for_too() -> None:
    """Cordoned at first: of what else is wrong with the node nothing has been said yet."""
    cluster = Cluster()
    cluster.nodes(make_node("n").cordoned())
    cluster.pods(make_pod("big").req(cpu="4").on("n"), small_pod())
    assert cluster.decide().rejected_by == {"NodeUnschedulable"}
    cluster.nodes(make_node("n"))
    assert not cluster.wakes()
    cluster.engine.remove_pod("uid-of-default/big")
    assert cluster.wakes()


def test_waking_one_kind_leaves_the_other_asleep() -> None:
    cluster = Cluster()
    cluster.nodes(full_node())
    cluster.pods(small_pod(), make_pod("large").req(cpu="8"))
    assert {cluster.decide().verdict, cluster.decide().verdict} == {Verdict.UNSCHEDULABLE}
    cluster.nodes(make_node("n"))
    cluster.clock.advance(60)
    cluster.engine.wake_helped()
    assert cluster.places == {"small": Place.ACTIVE, "large": Place.UNSCHEDULABLE}


def test_wake_checks_take_a_bounded_share_of_the_time() -> None:
    cluster = Cluster()
    cluster.nodes(full_node())
    cluster.pods(small_pod())
    cluster.decide()
    checks = []

    def slow(pod: PodInfo, rows: Any) -> frozenset[str]:
        checks.append(cluster.clock())
        cluster.clock.advance(1)
        return frozenset()

    cycle: Any = cluster.engine.cycles["wholepod"]
    cycle.rejected_by = slow
    for i in range(100):
        cluster.nodes(full_node().allocatable(cpu=f"{i}m"))
        cluster.engine.wake_helped()
        cluster.clock.advance(0.1)
    assert [later - earlier >= 4 for earlier, later in pairwise(checks)] == [True] * 3
    due = cluster.engine.next_due()
    assert due is not None
    assert due <= cluster.clock() + 4


def test_a_wake_check_of_many_kinds_is_done_in_slices() -> None:
    cluster = Cluster()
    cluster.nodes(make_node("n").allocatable(pods="0"))
    kinds = 10
    cluster.pods(*(make_pod(f"p{i}").req(cpu=f"{i + 1}m") for i in range(kinds)))
    while cluster.engine.decide() is not None:
        pass
    cycle: Any = cluster.engine.cycles["wholepod"]
    check = cycle.rejected_by

    def slow(pod: PodInfo, rows: Any) -> frozenset[str] | None:
        cluster.clock.advance(WAKE_SLICE_S / 2)
        answer: frozenset[str] | None = check(pod, rows)
        return answer

    cycle.rejected_by = slow
    cluster.nodes(make_node("n"))
    cluster.engine.remove_pod("uid-of-default/p3")
    woken: list[int] = []
    while sum(woken) < kinds - 1:
        due = cluster.engine.next_due()
        assert due is not None
        cluster.clock.now = max(due, cluster.clock.now)
        woken.append(cluster.engine.wake_helped())
    assert max(woken) <= 3
    assert cluster.engine.queue.unschedulable_kinds() == []


def test_next_due() -> None:
    cluster = Cluster()
    assert cluster.engine.next_due() is None
    cluster.pods(small_pod())
    assert cluster.engine.next_due() == cluster.clock()
    cluster.decide()
    due = cluster.engine.next_due()
    assert due is not None
    assert due > cluster.clock()
    cluster.nodes(make_node("n"))
    assert cluster.engine.next_due() == cluster.clock()
