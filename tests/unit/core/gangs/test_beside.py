"""Optimistic gangs are planned while others' pods are decided; what these take is a conflict."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.gangs.optimistic import CONFLICTS_TOLERATED
from scheduler.core.queue import Place
from tests.builders import BusyClock, PodBuilder, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

MEMBERS = 24


def gang(memory: str = "1Gi", /, **more: str) -> list[PodBuilder]:
    options = {"strategy": "optimistic", "min-count": str(MEMBERS), **more}
    return [member(f"m{i}", memory, **options) for i in range(MEMBERS)]


def begun(engine: Engine, members: list[PodBuilder]) -> None:
    """A plan for the gang is half done; no member has been decided."""
    for pod in members:
        engine.upsert_pod(pod.obj())
    for _ in range(6):
        assert engine.decide() is None
    assert engine.gangs.planning
    assert not engine.gangs.planning_alone


def conflicts(engine: Engine) -> int:
    return engine.gangs.cost.conflicts["optimistic"]


def foreign(name: str, node: str, memory: str = "1Gi") -> PodBuilder:
    return make_pod().named(name).req(memory=memory).scheduler("another").on(node)


def decide_each(engine: Engine, between: Callable[[], None]) -> list[Decision]:
    """Decides until the plan is made and handed out; something happens after each call."""
    decisions = []
    while engine.gangs.planning or engine.gangs.decided:
        decision = engine.decide()
        if decision is not None:
            decisions.append(decision)
        between()
    return decisions


def test_single_pods_are_decided_while_a_gang_is_planned() -> None:
    engine = cluster(*["4Gi"] * 8, clock=BusyClock())
    begun(engine, gang())
    engine.upsert_pod(make_pod().named("single").req(memory="1Gi").obj())
    first = next(d for _ in range(100) if (d := engine.decide()) is not None)
    assert first.pod.pod.metadata.name == "single"
    assert first.verdict is Verdict.PLACED
    assert engine.gangs.planning
    assert len(placed(decide_all(engine))) == MEMBERS


def test_room_that_others_take_meanwhile_is_a_conflict_and_the_gang_is_planned_anew() -> None:
    engine = cluster("24Gi", "24Gi", clock=BusyClock())
    begun(engine, gang())
    engine.upsert_pod(foreign("x", "n0", "12Gi").obj())
    engine.upsert_pod(foreign("y", "n1", "12Gi").obj())
    assert sorted(placed(decide_all(engine)).values(), key=str) == ["n0"] * 12 + ["n1"] * 12
    assert conflicts(engine) == 1
    assert engine.gangs.cost.rollbacks == {"optimistic": 1}
    assert engine.gangs.cost.infeasible == {}


def test_what_does_not_fit_after_a_conflict_is_infeasible() -> None:
    engine = cluster("24Gi", clock=BusyClock())
    begun(engine, gang())
    engine.upsert_pod(foreign("x", "n0", "24Gi").obj())
    assert placed(decide_all(engine)) == {}
    assert conflicts(engine) == 1
    assert engine.gangs.cost.infeasible == {"optimistic": 1}
    assert engine.state.assumed_count == 0


@pytest.mark.parametrize(("mode", "expected"), [("fit", 0), ("sequence", 1)])
def test_a_change_that_leaves_room_is_a_conflict_in_mode_sequence_alone(mode: str, expected: int) -> None:
    engine = cluster("60Gi", clock=BusyClock())
    begun(engine, gang(**{"conflict-mode": mode}))
    engine.upsert_pod(foreign("x", "n0").obj())
    assert len(placed(decide_all(engine))) == MEMBERS
    assert conflicts(engine) == expected


def test_in_mode_incremental_members_without_a_conflict_are_held_and_the_others_planned_at_once() -> None:
    engine = cluster("12Gi", "12Gi", "12Gi", clock=BusyClock())
    begun(engine, gang(transaction="incremental"))
    held: set[int] = set()

    def look() -> None:
        held.update(len(holding.holds) for holding in engine.gangs.hoarding.holdings)

    engine.upsert_pod(foreign("x", "n0", "6Gi").obj())
    engine.upsert_pod(foreign("y", "n1", "6Gi").obj())
    engine.upsert_pod(foreign("z", "n2", "1Gi").obj())
    decisions = decide_each(engine, look)
    assert placed(decisions) == {}  # there is room for 23
    assert conflicts(engine) == 1
    assert engine.gangs.cost.rollbacks.total() == 0
    assert max(held) >= 12
    engine.remove_pod("uid-of-default/z")
    assert len(placed(decide_all(engine))) == MEMBERS


def test_after_five_conflicts_nobody_is_decided_beside() -> None:
    engine = cluster("99Gi", clock=BusyClock())
    begun(engine, gang(**{"conflict-mode": "sequence"}))
    alone = False
    number = 0

    def disturb() -> None:
        nonlocal alone, number
        alone = alone or engine.gangs.planning_alone
        number += 1
        labels = {"kubernetes.io/hostname": "n0", "number": str(number)}
        engine.upsert_node(make_node("n0").labels(labels).allocatable(memory="99Gi").obj())

    decisions = decide_each(engine, disturb)
    assert alone
    assert len(placed(decisions)) == MEMBERS
    assert conflicts(engine) == CONFLICTS_TOLERATED


def test_room_that_comes_free_while_it_is_planned_is_not_overlooked() -> None:
    engine = cluster("22Gi", clock=(clock := BusyClock()))
    engine.upsert_pod(make_pod().named("asleep").req(memory="50Gi").obj())
    engine.upsert_node(make_node("n1").allocatable(memory="2Gi").obj())
    engine.upsert_pod(foreign("x", "n1", "2Gi").obj())
    decide_all(engine)
    begun(engine, gang())
    engine.remove_pod("uid-of-default/x")  # looked at for the pod that sleeps, before the members sleep
    engine.wake_helped()
    decisions = decide_all(engine)
    clock.advance(30.0)
    assert len(placed(decisions + decide_all(engine))) == MEMBERS


def test_a_member_that_comes_late_is_planned_next() -> None:
    engine = cluster("60Gi", clock=BusyClock())
    begun(engine, gang())
    engine.upsert_pod(member("late", strategy="optimistic", **{"min-count": str(MEMBERS)}).obj())
    decisions = decide_all(engine)
    assert len(placed(decisions)) == MEMBERS + 1
    assert decisions[-1].pod.pod.metadata.name == "late"
    assert decisions[-1].commit is None


def test_a_plan_is_dropped_when_a_member_goes() -> None:
    engine = cluster("60Gi", clock=BusyClock())
    begun(engine, gang(**{"min-count": "23"}))
    engine.remove_pod("uid-of-default/m3")
    decisions = decide_all(engine)
    assert placed(decisions).keys() == {f"m{i}" for i in range(MEMBERS) if i != 3}
    assert conflicts(engine) == 0


def test_two_gangs_are_planned_one_after_the_other_and_an_atomic_one_between() -> None:
    engine = cluster("60Gi", clock=BusyClock())
    begun(engine, gang())
    second = [member(f"s{i}", gang="second", strategy="optimistic") for i in range(2)]
    third = [member(f"t{i}", gang="third") for i in range(2)]
    for pod in (*second, *third):
        engine.upsert_pod(pod.obj())
    names = [d.pod.pod.metadata.name for d in decide_all(engine) if d.verdict is Verdict.PLACED]
    assert names[:2] == ["t0", "t1"]
    assert names[2:] == [*(f"m{i}" for i in range(MEMBERS)), "s0", "s1"]


def test_members_that_need_each_other_are_validated_together() -> None:
    engine = cluster("4Gi", "4Gi", clock=BusyClock())
    for name, other in (("a", "b"), ("b", "a")):
        pod = member(name, strategy="optimistic").labels(app=name)
        term = {"labelSelector": {"matchLabels": {"app": other}}, "topologyKey": "kubernetes.io/hostname"}
        required = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        engine.upsert_pod(pod.spec(affinity=required).obj())
    assert engine.decide() is None
    number = 0

    def disturb() -> None:
        nonlocal number
        number += 1
        engine.upsert_pod(foreign(f"x{number}", "n0", "1Mi").obj())

    nodes = placed(decide_each(engine, disturb))
    assert nodes.keys() == {"a", "b"}
    assert len(set(nodes.values())) == 1
    assert conflicts(engine) == 0


def test_an_error_while_planning_leaves_members_that_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = cluster("60Gi", clock=(clock := BusyClock()))
    begun(engine, gang())
    filters = engine.cycles["wholepod"].profile.filters

    def fails(*_: object) -> None:
        raise RuntimeError("of a plugin's")

    with monkeypatch.context() as patch:
        patch.setattr(type(filters[-1]), "filter", fails)
        for plugin in filters:
            patch.setattr(type(plugin), "filter", fails)
        decisions = decide_all(engine)
    assert {d.verdict for d in decisions} == {Verdict.WAITING}
    assert all(queued.place is Place.BACKOFF for queued in engine.queue)
    clock.advance(20.0)
    assert len(placed(decide_all(engine))) == MEMBERS
