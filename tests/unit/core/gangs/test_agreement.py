"""Members of a native group that differ where they must not."""

from __future__ import annotations

import pytest

from scheduler.core.queue import Place
from tests.builders import PodBuilder
from tests.unit.core.gangs.test_preempting import native, pod_group, show, uid
from tests.unit.core.gangs.words import cluster, decide_all, placed

ALL = "all pods in a single pod group should have the same"


def member(name: str, priority: int = 10) -> PodBuilder:
    return native(name, "g", priority=priority)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (
            [member("a"), member("b", priority=5)],
            f"{ALL} priority as the pod group's priority, got 5 and 10",
        ),
        (
            [member("a"), member("b").spec(preemptionPolicy="Never")],
            f"{ALL} preemption policy, got Never and PreemptLowerPriority",
        ),
    ],
)
def test_a_group_whose_members_differ_waits_and_says_so(members: list[PodBuilder], why: str) -> None:
    engine = cluster("8Gi")
    engine.upsert_object(pod_group("g", priority=10))
    show(engine, *members)
    assert decide_all(engine) == []
    gang = engine.gangs.book.of(uid("a"))
    assert gang is not None
    assert engine.gangs._why_incomplete(gang) == why
    engine.remove_pod(uid("b"))
    show(engine, member("b"))
    assert sorted(placed(decide_all(engine))) == ["a", "b"]


def test_a_group_that_has_no_priority_yet_takes_that_of_its_pods() -> None:
    engine = cluster("8Gi")
    engine.upsert_object(pod_group("g"))
    show(engine, member("a"), member("b"))
    assert sorted(placed(decide_all(engine))) == ["a", "b"]


def test_the_groups_own_policy_counts() -> None:
    engine = cluster("1Gi")
    group = pod_group("g", priority=10)
    group.spec.preemption_policy = "Never"
    engine.upsert_object(group)
    show(engine, member("a"), member("b"))
    assert decide_all(engine) == []
    place = engine.queue.get(uid("a"))
    assert place is not None
    assert place.place is Place.INCOMPLETE
