"""Members beyond those that a gang needs, and gangs that gave way to others."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Engine, Verdict
from tests.builders import Clock, make_engine, make_node
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

ZONE = {"topology-key": "zone"}
STRATEGIES = ["atomic", "hoarding", "optimistic"]


def zones(**memory: str) -> Engine:
    """A node for each, named like its zone."""
    engine = make_engine(Clock())
    for zone, amount in memory.items():
        engine.upsert_node(make_node(zone).labels({"zone": zone}).allocatable(memory=amount).obj())
    return engine


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_surplus_members_that_are_there_join_in_the_domain_as_far_as_they_fit(strategy: str) -> None:
    engine = zones(east="3Gi", west="1Gi")
    for name in ("a", "b", "c", "d"):
        engine.upsert_pod(member(name, strategy=strategy, **ZONE).obj())
    decisions = decide_all(engine)
    assert set(placed(decisions).values()) == {"east"}
    assert len(placed(decisions)) == 3
    commits = {id(d.commit): d.commit for d in decisions if d.node is not None}
    [commit] = [each for each in commits.values() if each is not None]
    assert len(commit.nodes) >= 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_later_members_are_singles_that_are_confined_to_the_domain(strategy: str) -> None:
    engine = zones(east="3Gi", west="9Gi")
    west = engine.state.nodes.objects[engine.state.nodes.row_of["west"]]
    engine.remove_node("west")
    for name in ("a", "b"):
        engine.upsert_pod(member(name, strategy=strategy, **ZONE).obj())
    assert placed(decide_all(engine)) == {"a": "east", "b": "east"}
    engine.upsert_node(west)
    engine.upsert_pod(member("late", strategy=strategy, **ZONE).obj())
    [late] = decide_all(engine)
    assert (late.node, late.commit) == ("east", None)
    engine.upsert_pod(member("too-late", strategy=strategy, **ZONE).obj())
    [refused] = decide_all(engine)
    assert refused.verdict is Verdict.UNSCHEDULABLE
    assert "1 node(s) are outside zone=east" in refused.message


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_a_domain_later_members_go_anywhere(strategy: str) -> None:
    engine = zones(east="2Gi", west="9Gi")
    for name in ("a", "b", "c", "d"):
        engine.upsert_pod(member(name, strategy=strategy).obj())
        decide_all(engine)
    assert engine.state.nodes.requested[1].sum() >> 30 == 4


# ---- who gave way


def wounded(clock: Clock, winners_timeout: str) -> Engine:
    """Gang b has given way to gang a, one of whose members is missing."""
    engine = cluster("1Gi", "1Gi", "1Gi", clock=clock)
    senior = {"gang": "a", "min-count": "4", "strategy": "hoarding", "hold-timeout": winners_timeout}
    junior = {"gang": "b", "min-count": "2", "strategy": "hoarding", "hold-timeout": "1h"}
    for i, options in enumerate((senior, junior, senior, junior, senior)):
        pod = member(f"m{i}", **options).created(f"2026-01-01T00:00:0{i}Z")
        engine.upsert_pod(pod.obj())
        decide_all(engine)
    assert engine.gangs.cost.deadlocks == 1
    assert held_by(engine) == {"a"}
    return engine


def held_by(engine: Engine) -> set[str]:
    return {holding.gang.ref.name for holding in engine.gangs.hoarding.holdings}


def test_who_gave_way_waits_as_long_as_the_winner_holds() -> None:
    engine = wounded(clock := Clock(), "1h")
    for _ in range(10):
        clock.advance(60.0)
        assert placed(decide_all(engine)) == {}
        assert held_by(engine) == {"a"}


def test_who_gave_way_goes_on_when_the_winner_dies() -> None:
    engine = wounded(clock := Clock(), "1h")
    for i in (0, 2, 4):
        engine.remove_pod(f"uid-of-default/m{i}")
    clock.advance(20.0)
    assert placed(decide_all(engine)).keys() == {"m1", "m3"}


def test_who_gave_way_goes_on_when_the_winner_gives_up() -> None:
    """Else it would wait for ever for a gang whose other members never come."""
    engine = wounded(clock := Clock(), "5m")
    clock.advance(300.0)
    for _ in range(3):
        got = placed(decide_all(engine))
        if got:
            break
        clock.advance(11.0)
    assert got.keys() == {"m1", "m3"}
