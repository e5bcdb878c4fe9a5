"""However hard a gang is to plan, planning pauses often and comes to an end."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.planner import Planner
from scheduler.core.gangs.rooms import Member, Rooms
from tests.builders import PodBuilder, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


class FrozenClock:
    """Each slice of planning is one step."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def spread(name: str, count: int) -> PodBuilder:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}},
    }
    pod = member(name, **{"min-count": str(count)}).labels(app="x")
    return pod.spec(topologySpreadConstraints=[constraint])


def follows(i: int, count: int) -> PodBuilder:
    """The larger ones are tried first, and each needs the next smaller one beside it."""
    pod = member(f"m{i}", f"{100 + i}Mi", **{"min-count": str(count)}).labels(app=f"x{i}")
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": f"x{i - 1}"}}}
    wanted = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return pod.spec(affinity=wanted) if i else pod


def zones(memory: str = "8Gi", clock: FrozenClock | None = None) -> Engine:
    engine = cluster(clock=clock)
    for i in range(9):
        node = make_node(f"n{i}").labels({"zone": f"z{i % 3}"}).allocatable(memory=memory)
        engine.upsert_node(node.obj())
    return engine


def test_a_search_pauses_after_each_look_at_whether_members_hold_together() -> None:
    """One of three zones is full, so that none of the many ways to spread the members over it will do."""
    engine, count = zones(clock=FrozenClock()), 9
    for i in range(0, 9, 3):
        engine.upsert_pod(make_pod(f"full{i}").req(memory="8Gi").on(f"n{i}").obj())
    for i in range(count):
        engine.upsert_pod(spread(f"m{i}", count).obj())
    changes = []
    while True:
        before = engine.state.nodes.generation
        decision = engine.decide()
        changes.append(engine.state.nodes.generation - before)
        if decision is not None:
            break
    assert decision.verdict is Verdict.UNSCHEDULABLE
    assert len(changes) > 100
    assert max(changes) <= 4 * count


@pytest.mark.parametrize("count", [12, 24])
def test_members_that_need_each_other_one_by_one_are_placed(count: int) -> None:
    engine = zones()
    for i in range(count):
        engine.upsert_pod(follows(i, count).obj())
    assert len(placed(decide_all(engine))) == count


def test_members_that_need_each_other_one_by_one_are_not_tried_for_ever() -> None:
    engine, count = zones(), 24
    cycle = engine.cycles["wholepod"]
    infos = [follows(i, count).info() for i in reversed(range(count))]
    members = [Member(info, cycle.read_key(info), cycle) for info in infos]
    planner = Planner(members, engine.state, Rooms(engine.state), need=count, budget=10)
    assert sum(1 for _ in planner.steps()) < count * count / 2
    assert planner.plan.budget_spent
    assert not planner.plan.found
    assert not engine.state.pods
