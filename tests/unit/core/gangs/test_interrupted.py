"""What happens in the midst of an attempt leaves no room taken for nobody, and no member forgotten."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Engine
from scheduler.core.nodes import MEMORY
from scheduler.core.queue import Place
from tests.builders import BusyClock, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


def uid(name: str) -> str:
    return f"uid-of-default/{name}"


def assert_sound(engine: Engine) -> None:
    """Each room is one pod's, and a waiting pod has one if and only if its strategy keeps it."""
    state, gangs = engine.state, engine.gangs
    for name, row in state.nodes.row_of.items():
        there = sum(placed.info.usage.get("memory", 0) for placed in state.pods_on(name))
        assert int(state.nodes.requested[MEMORY, row]) == there
    held = {uid for holding in gangs.hoarding.holdings for uid in holding.holds}
    claimed = {uid for claims in gangs.optimistic.claims.values() for uid in claims}
    tentative = {pod.info.uid for pod in engine.queue if pod.place is Place.TENTATIVE}
    assert tentative == held | claimed
    roomy = {pod.info.uid for pod in engine.queue if pod.info.uid in state.pods}
    assert held == {uid for uid in roomy if engine.queue.get(uid).place is not Place.IN_FLIGHT}  # type: ignore[union-attr]


def test_a_claimed_member_that_is_bound_while_its_gang_is_planned_is_claimed_no_more() -> None:
    engine = cluster("4Gi", "4Gi", clock=BusyClock())
    options = {"strategy": "optimistic", "min-count": "12"}
    engine.upsert_pod(member("a", **options).obj())
    decide_all(engine)
    for i in range(4):
        engine.upsert_pod(member(f"b{i}", "10Mi", **options).obj())
    assert engine.decide() is None
    assert engine.gangs.planning
    engine.upsert_pod(member("a", **options).on("n0").obj())
    decide_all(engine)
    assert_sound(engine)
    for i in range(7):
        engine.upsert_pod(member(f"c{i}", "10Mi", **options).obj())
    assert len(placed(decide_all(engine))) == 11
    assert_sound(engine)


@pytest.mark.parametrize("change", ["gone", "another", "terminating", "bound"])
@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_gang_that_changes_while_it_looks_for_victims_keeps_what_it_holds(
    change: str, who: str, after: int
) -> None:
    """Its attempt by `hoarding` has ended then, and `a` holds room."""
    engine = cluster("4Gi", "4Gi", clock=BusyClock())
    for i in range(7):
        engine.upsert_pod(make_pod(f"low-{i}").req(memory="1Gi").on(f"n{i % 2}").obj())
    options = {"strategy": "hoarding", "min-count": "3"}
    for name in "abc":
        engine.upsert_pod(member(name, **options).priority(10).obj())
    for _ in range(after):
        engine.decide()
    pod = member(who, **options).priority(10)
    if change == "gone":
        engine.remove_pod(uid(who))
    elif change == "another":
        engine.upsert_pod(pod.toleration("x", operator="Exists").obj())
    else:
        engine.upsert_pod((pod.terminating() if change == "terminating" else pod.on("n0")).obj())
    assert not any(placed.lifted for placed in engine.state.pods.values())
    decide_all(engine)
    assert_sound(engine)


@pytest.mark.parametrize("comes_back", [False, True])
@pytest.mark.parametrize("after", range(4, 10))
def test_a_junior_loses_its_node_while_its_senior_is_planned_without_it(after: int, comes_back: bool) -> None:
    engine = cluster("16Gi", "16Gi", "14Gi", clock=BusyClock())
    junior = {"gang": "junior", "strategy": "hoarding", "min-count": "4"}
    for i in range(4):
        engine.upsert_pod(member(f"j{i}", "15800Mi", **junior).created("2026-01-02T00:00:00Z").obj())
    decide_all(engine)
    engine.upsert_pod(make_pod("x").req(memory="14Gi").on("n2").obj())
    senior = {"gang": "senior", "strategy": "hoarding", "min-count": "30"}
    for i in range(30):
        engine.upsert_pod(member(f"s{i}", **senior).created("2026-01-01T00:00:00Z").obj())
    for _ in range(after):
        engine.decide()
    engine.remove_pod(uid("x"))
    engine.remove_node("n1")
    if comes_back:
        engine.upsert_node(make_node("n1").allocatable(memory="16Gi").obj())
    assert not [d.message for d in decide_all(engine) if "failed with" in d.message]
    assert_sound(engine)
