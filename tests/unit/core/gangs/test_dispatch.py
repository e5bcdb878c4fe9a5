"""Gangs in the engine: incomplete, planned together, decided together."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from scheduler.api_objects import CoschedulingPodGroup
from scheduler.core.engine import Verdict
from scheduler.core.gangs.incomplete import TELL_AFTER_S
from scheduler.core.gangs.ref import GangRef, Source
from scheduler.core.queue import Place
from tests.builders import Clock, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


def test_nothing_is_tried_before_enough_members_exist() -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("a").obj())
    assert decide_all(engine) == []
    assert engine.queue.depths()[Place.INCOMPLETE] == 1
    engine.upsert_pod(member("b").obj())
    decisions = decide_all(engine)
    assert placed(decisions) == {"a": "n0", "b": "n0"}
    commit = decisions[0].commit
    assert commit is not None
    assert decisions[1].commit is commit
    assert (str(commit.ref), commit.min_count, commit.placed_before) == ("default/g", 2, 0)
    assert commit.nodes == {"uid-of-default/a": "n0", "uid-of-default/b": "n0"}


def test_all_or_none_are_placed() -> None:
    engine = cluster("1Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    decisions = decide_all(engine)
    assert [d.verdict for d in decisions] == [Verdict.UNSCHEDULABLE] * 2
    assert decisions[0].message == (
        "gang default/g: 1 of at least 2 waiting members fit: 0/1 nodes are available: 1 Insufficient memory."
    )
    assert engine.state.pods == {}
    engine.upsert_node(make_node("late").allocatable(memory="1Gi").obj())
    assert decide_all(engine) == []  # woken, but it is too soon for another try
    clock.advance(1.0)
    assert sorted(placed(decide_all(engine)).values(), key=str) == ["late", "n0"]


def test_members_beyond_the_least_join_as_far_as_they_fit() -> None:
    engine = cluster("2Gi")
    for name in ("a", "b", "c"):
        engine.upsert_pod(member(name).obj())
    decisions = decide_all(engine)
    assert sorted(d.verdict.value for d in decisions) == ["placed", "placed", "unschedulable"]
    [left] = [d for d in decisions if d.node is None]
    assert left.message == "0/1 nodes are available: 1 Insufficient memory."


def test_a_late_member_is_placed_on_its_own() -> None:
    engine = cluster("4Gi")
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    decide_all(engine)
    engine.upsert_pod(member("late").obj())
    [decision] = decide_all(engine)
    assert (decision.node, decision.commit) == ("n0", None)


def test_the_a_and_b_problem() -> None:
    """A would go to the fuller node on its own, where B can't join it."""
    engine = cluster("1280Mi", "2Gi")
    for name, memory in (("a", "1Gi"), ("b", "512Mi")):
        engine.upsert_pod(member(name, memory, **{"topology-key": "kubernetes.io/hostname"}).obj())
    assert placed(decide_all(engine)) == {"a": "n1", "b": "n1"}


def test_members_that_wait_for_long_are_told_why_once() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    engine.upsert_pod(member("a").obj())
    assert engine.decide() is None
    assert engine.next_due() == clock.now + TELL_AFTER_S
    clock.advance(TELL_AFTER_S)
    decision = engine.decide()
    assert decision is not None
    assert (decision.verdict, decision.message) == (
        Verdict.WAITING,
        "gang default/g has 1 of the 2 members that it needs",
    )
    clock.advance(TELL_AFTER_S)
    assert engine.decide() is None


def test_all_members_that_wait_for_long_are_told() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    for name in "ab":
        engine.upsert_pod(member(name, **{"min-count": "3"}).obj())
    assert engine.decide() is None
    clock.advance(TELL_AFTER_S)
    assert [decision.pod.pod.metadata.name for decision in decide_all(engine)] == ["a", "b"]
    assert engine.next_due() is None


def test_a_member_that_goes_makes_the_gang_incomplete_again() -> None:
    engine = cluster("1Gi")
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    decide_all(engine)
    engine.remove_pod("uid-of-default/b")
    assert engine.queue.depths()[Place.INCOMPLETE] == 1


def test_a_member_that_changes_in_the_middle_of_planning_starts_it_anew() -> None:
    engine = cluster("4Gi", clock=count().__next__)  # a second passes whenever anybody looks
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    assert engine.decide() is None
    assert engine.gangs.planning
    assert len(engine.state.pods) == 1
    engine.upsert_pod(member("b", "2Gi").obj())
    assert not engine.gangs.planning
    assert engine.state.pods == {}
    assert placed(decide_all(engine)) == {"a": "n0", "b": "n0"}
    assert engine.state.pods["uid-of-default/b"].info.requests["memory"] == 2 << 30


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"min-count": "two"},
            "annotation wholepod.io/min-count of default/a, the oldest member, must be a whole number of at "
            "least 1, got 'two'",
        ),
        (
            {"strategy": "hope"},
            "annotation wholepod.io/strategy must be one of atomic, hoarding, optimistic, got 'hope'",
        ),
    ],
)
def test_options_that_make_no_sense_keep_the_gang_waiting(options: dict[str, str], why: str) -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    engine.upsert_pod(member("a", **options).obj())
    clock.advance(TELL_AFTER_S)
    decision = engine.decide()
    assert decision is not None
    assert (decision.verdict, decision.message) == (Verdict.WAITING, why)


def test_a_group_that_does_not_exist_is_waited_for() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    pod = make_pod().labels(**{"scheduling.x-k8s.io/pod-group": "g"}).req(memory="1Gi")
    engine.upsert_pod(pod.obj())
    clock.advance(TELL_AFTER_S)
    decision = engine.decide()
    assert decision is not None
    assert decision.message == (
        "waiting for the PodGroup default/g (podgroups.scheduling.x-k8s.io) to be created"
    )
    group = {"metadata": {"name": "g", "namespace": "default"}, "spec": {"minMember": 1}}
    engine.upsert_object(msgspec.convert(group, CoschedulingPodGroup))
    assert placed(decide_all(engine)) == {"pod": "n0"}


def test_a_gang_that_is_bound_in_part_is_tried_before_all_others() -> None:
    engine = cluster("2Gi")
    for pod in (make_pod().named("urgent").priority(1000).req(memory="1Gi"), member("a"), member("b")):
        engine.upsert_pod(pod.obj())
    ref = GangRef(Source.ANNOTATIONS, "default", "g")
    engine.gangs.put_first(GangRef(Source.ANNOTATIONS, "default", "gone"))
    engine.gangs.put_first(ref)
    decisions = decide_all(engine)
    assert list(placed(decisions)) == ["a", "b"]
    assert decisions[-1].pod.name == "default/urgent"
