"""Members that are being deleted, and may be so for long, are none that count."""

from __future__ import annotations

from tests.builders import Clock, make_node
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


def test_a_member_that_is_being_deleted_is_not_planned_with_the_others() -> None:
    clock = Clock()
    engine = cluster("1Gi", clock=clock)
    for name in "abc":
        engine.upsert_pod(member(name).obj())
    decide_all(engine)
    engine.upsert_pod(member("b").terminating().obj())
    engine.upsert_node(make_node("n0").allocatable(memory="2Gi").obj())
    clock.advance(20)
    assert set(placed(decide_all(engine))) == {"a", "c"}


def test_members_that_leave_their_nodes_do_not_complete_an_optimistic_gang() -> None:
    engine = cluster("8Gi")
    options = {"strategy": "optimistic", "min-count": "3"}
    for name in "ab":
        engine.upsert_pod(member(name, **options).on("n0").terminating().obj())
    engine.upsert_pod(member("c", **options).obj())
    assert not placed(decide_all(engine))


def test_a_gang_of_the_same_name_owes_nothing_to_who_its_namesake_gave_way_to() -> None:
    engine = cluster("2Gi", "2Gi")
    junior = {"gang": "junior", "strategy": "hoarding", "min-count": "3"}
    old = [member(f"old-{i}", "1500Mi", **junior).created("2026-01-02T00:00:00Z").obj() for i in range(3)]
    for pod in old:
        engine.upsert_pod(pod)
    decide_all(engine)
    senior = {"gang": "senior", "strategy": "hoarding", "min-count": "3"}
    for i in range(2):
        engine.upsert_pod(member(f"s{i}", "1500Mi", **senior).created("2026-01-01T00:00:00Z").obj())
    decide_all(engine)
    assert engine.gangs.cost.deadlocks == 1
    for pod in old:
        engine.remove_pod(pod.metadata.uid)
    for i in range(3):
        engine.upsert_node(make_node(f"more-{i}").allocatable(memory="2Gi").obj())
        engine.upsert_pod(member(f"new-{i}", "1500Mi", **junior).created("2026-01-03T00:00:00Z").obj())
    assert len(placed(decide_all(engine))) == 3
