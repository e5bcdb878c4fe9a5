"""`transaction: incremental`: what a conflict is not about is held while the rest is planned again."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.incomplete import TELL_AFTER_S
from scheduler.core.queue import Place
from tests.builders import Clock, PodBuilder, make_engine, make_node, make_pod, make_profile
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

LONG = {"hold-timeout": "5m"}


def incremental(name: str, /, **more: str) -> PodBuilder:
    options = {"strategy": "optimistic", "transaction": "incremental", "min-count": "3", **LONG, **more}
    return member(name, **options)


def taken(engine: Engine, name: str, node: str) -> None:
    """Somebody else's pod fills the node."""
    engine.upsert_pod(make_pod().named(name).req(memory="1Gi").scheduler("another").on(node).obj())


def claims(engine: Engine) -> dict[str, str]:
    return {
        claim.queued.info.pod.metadata.name: claim.node
        for by_uid in engine.gangs.optimistic.claims.values()
        for claim in by_uid.values()
    }


def holds(engine: Engine) -> dict[str, str]:
    return {
        hold.queued.info.pod.metadata.name: hold.node
        for holding in engine.gangs.hoarding.holdings
        for hold in holding.holds.values()
    }


def in_conflict(clock: Clock, engine: Engine | None = None, **more: str) -> Engine:
    """Three members: when the last one comes, a node that was claimed is gone, and no other is free."""
    engine = engine or cluster("1Gi", "1Gi", "1Gi", clock=clock)
    for name in ("a", "b"):
        engine.upsert_pod(incremental(name, **more).obj())
    assert {d.verdict for d in decide_all(engine)} == {Verdict.TENTATIVE}
    found = claims(engine)
    assert holds(engine) == {}
    taken(engine, "x", found["a"])
    engine.upsert_pod(incremental("c", **more).obj())
    return engine


def test_while_members_are_missing_claims_keep_nobody_out() -> None:
    engine = cluster("1Gi", "1Gi")
    for name in ("a", "b"):
        engine.upsert_pod(incremental(name).obj())
    decide_all(engine)
    assert len(claims(engine)) == 2
    engine.upsert_pod(make_pod().named("single").req(memory="1Gi").obj())
    assert "single" in placed(decide_all(engine))
    assert holds(engine) == {}


def test_claims_without_conflict_become_holds_and_nothing_is_bound_below_min_count() -> None:
    engine = in_conflict(clock := Clock())
    decisions = decide_all(engine)
    assert placed(decisions) == {}
    assert len(holds(engine)) == 2
    assert claims(engine) == {}
    assert engine.gangs.cost.conflicts == {"optimistic": 1}
    engine.upsert_pod(make_pod().named("single").req(memory="1Gi").obj())
    assert placed(decide_all(engine)) == {}  # held room keeps others out
    engine.upsert_node(make_node("more").allocatable(memory="1Gi").obj())
    clock.advance(20.0)
    got = placed(decide_all(engine))
    assert {"a", "b", "c"} <= got.keys()
    assert "single" not in got
    assert engine.gangs.cost.held_byte_seconds.keys() == {("optimistic", "used")}
    assert engine.gangs.cost.commits == {"optimistic": 1}


def test_by_default_a_conflict_leaves_claims_that_keep_nobody_out() -> None:
    engine = in_conflict(Clock(), transaction="all-or-nothing")
    decide_all(engine)
    assert holds(engine) == {}
    engine.upsert_pod(make_pod().named("single").req(memory="1Gi").obj())
    assert "single" in placed(decide_all(engine))


def test_such_holds_end_with_their_time() -> None:
    engine = in_conflict(clock := Clock())
    decide_all(engine)
    assert engine.gangs.hoarding.next_due() == clock.now + 300.0
    clock.advance(300.0)
    decisions = decide_all(engine)
    messages = {d.message for d in decisions if d.verdict is Verdict.WAITING}
    assert "gang default/g gave up what it held: its hold timed out" in messages
    assert engine.gangs.cost.held_byte_seconds["optimistic", "wasted"] > 0


def test_such_holds_are_subject_to_caps() -> None:
    clock = Clock()
    caps = {"maxHeldFraction": {"namespace": 0.34, "cluster": 1}}
    engine = make_engine(clock, make_profile(gangs=caps))
    for i in range(3):
        engine.upsert_node(make_node(f"n{i}").allocatable(memory="1Gi").obj())
    in_conflict(clock, engine)
    decisions = decide_all(engine)
    assert len(holds(engine)) == 1
    assert sum("may hold no more" in d.message for d in decisions) >= 1
    engine.upsert_node(make_node("more").allocatable(memory="1Gi").obj())
    clock.advance(20.0)
    assert placed(decide_all(engine)).keys() == {"a", "b", "c"}


def test_a_conflict_that_another_plan_avoids_needs_no_holds() -> None:
    engine = in_conflict(Clock(), cluster("1Gi", "1Gi", "1Gi", "1Gi", clock=Clock()))
    assert placed(decide_all(engine)).keys() == {"a", "b", "c"}
    assert holds(engine) == {}


@pytest.mark.parametrize("what", ["deleted", "changed"])
def test_a_held_member_that_goes_takes_nothing_with_it_that_others_need(what: str) -> None:
    engine = in_conflict(clock := Clock())
    decide_all(engine)
    name = sorted(holds(engine))[0]
    if what == "deleted":
        engine.remove_pod(f"uid-of-default/{name}")
    else:
        engine.upsert_pod(incremental(name).container(name="more").obj())
    assert name not in holds(engine)
    engine.upsert_pod(incremental("d").obj())
    engine.upsert_node(make_node("more").allocatable(memory="2Gi").obj())
    clock.advance(20.0)
    assert len(placed(decide_all(engine))) >= 3
    assert all(queued.place is not Place.TENTATIVE for queued in engine.queue)


def test_a_mode_that_nobody_knows_keeps_the_gang_waiting() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    engine.upsert_pod(incremental("a", transaction="half").obj())
    clock.advance(TELL_AFTER_S)
    [decision] = decide_all(engine)
    assert decision.message == (
        "annotation wholepod.io/transaction must be one of all-or-nothing, incremental, got 'half'"
    )
