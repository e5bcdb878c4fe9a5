"""What the strategies do while members are missing, and when something comes between."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.queue import Place
from tests.builders import Clock, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

GIB = 1 << 30
ONE_NODE = {"topology-key": "kubernetes.io/hostname"}


def verdicts(decisions: list[Decision]) -> list[str]:
    return [d.verdict.value for d in decisions]


def tight(engine: Engine) -> int:
    """Memory that is taken, in GiB, held room included."""
    return int(engine.state.nodes.requested[1].sum()) // GIB


# ---- the A + B problem


def a_and_b(strategy: str, clock: Clock) -> tuple[Engine, list[Decision], list[Decision]]:
    """What is decided when A comes, and when B does: A alone fits best where B can't join it."""
    engine = cluster("1280Mi", "2Gi", clock=clock)
    engine.upsert_pod(member("a", "1Gi", strategy=strategy, **ONE_NODE).obj())
    first = decide_all(engine)
    clock.advance(2.0)
    engine.upsert_pod(member("b", "512Mi", strategy=strategy, **ONE_NODE).obj())
    return engine, first, decide_all(engine)


def test_a_and_b_by_hoarding() -> None:
    engine, first, second = a_and_b("hoarding", Clock())
    assert verdicts(first) == ["tentative"]
    assert first[0].message == "has a place on node n0 until the rest of its gang has"
    assert placed(second) == {"a": "n1", "b": "n1"}
    assert engine.gangs.cost.held_byte_seconds == {("hoarding", "wasted"): 2 * GIB, ("hoarding", "used"): 0}
    assert engine.gangs.cost.rollbacks == {"hoarding": 1}
    assert tight(engine) == 1
    assert list(engine.gangs.hoarding.holdings) == []


def test_a_and_b_optimistically() -> None:
    engine, first, second = a_and_b("optimistic", Clock())
    assert verdicts(first) == ["tentative"]
    assert placed(second) == {"a": "n1", "b": "n1"}
    assert engine.gangs.cost.rollbacks == {"optimistic": 1}
    assert engine.gangs.cost.held_byte_seconds == {}


def test_a_and_b_atomically() -> None:
    engine, first, second = a_and_b("atomic", Clock())
    assert first == []
    assert placed(second) == {"a": "n1", "b": "n1"}
    assert engine.gangs.cost.rollbacks == {}


# ---- what others may do meanwhile


@pytest.mark.parametrize(("strategy", "node"), [("hoarding", None), ("optimistic", "n0")])
def test_held_room_is_kept_from_others_and_claimed_room_is_not(strategy: str, node: str | None) -> None:
    engine = cluster("1Gi")
    engine.upsert_pod(member("a", strategy=strategy).obj())
    decide_all(engine)
    engine.upsert_pod(make_pod().named("other").req(memory="1Gi").obj())
    [decision] = decide_all(engine)
    assert decision.node == node


def test_a_claim_that_others_have_taken_is_a_conflict() -> None:
    engine = cluster("1Gi", clock=(clock := Clock()))
    engine.upsert_pod(member("a", strategy="optimistic").obj())
    decide_all(engine)
    engine.upsert_pod(make_pod().named("other").req(memory="1Gi").obj())
    decide_all(engine)
    engine.upsert_pod(member("b", strategy="optimistic").obj())
    assert verdicts(decide_all(engine)) == ["unschedulable"] * 2
    assert engine.gangs.cost.conflicts == {"optimistic": 1}
    engine.remove_pod("uid-of-default/other")
    engine.upsert_node(make_node("n1").allocatable(memory="1Gi").obj())
    clock.advance(60.0)
    assert sorted(placed(decide_all(engine))) == ["a", "b"]


def test_in_mode_sequence_any_change_of_the_node_is_a_conflict() -> None:
    engine = cluster("4Gi")
    options = {"strategy": "optimistic", "conflict-mode": "sequence", "min-count": "3"}
    for name in ("a", "b"):
        engine.upsert_pod(member(name, **options).obj())
        decide_all(engine)
    assert engine.gangs.cost.conflicts == {}
    engine.upsert_pod(make_pod().named("other").req(memory="1Gi").obj())
    decide_all(engine)
    engine.upsert_pod(member("c", **options).obj())
    assert sorted(placed(decide_all(engine))) == ["a", "b", "c"]
    assert engine.gangs.cost.conflicts == {"optimistic": 1}


# ---- holds end


def test_holds_end_when_their_time_is_up() -> None:
    engine = cluster("1Gi", clock=(clock := Clock()))
    engine.upsert_pod(member("a", strategy="hoarding", **{"hold-timeout": "90s"}).obj())
    decide_all(engine)
    assert engine.gangs.hoarding.next_due() == clock.now + 90.0
    clock.advance(90.0)
    [decision] = decide_all(engine)
    assert decision.verdict is Verdict.WAITING
    assert decision.message == "gang default/g gave up what it held: its hold timed out"
    assert tight(engine) == 0
    assert engine.gangs.cost.held_byte_seconds == {("hoarding", "wasted"): 90 * GIB}
    assert engine.queue.depths()[Place.BACKOFF] == 1


@pytest.mark.parametrize("daemon", [False, True])
def test_a_hold_gives_way_to_higher_priority_and_to_daemons(daemon: bool) -> None:
    engine = cluster("1Gi", "1Gi")
    for name in ("a", "b"):
        engine.upsert_pod(member(name, strategy="hoarding", **{"min-count": "3"}).obj())
    assert verdicts(decide_all(engine)) == ["tentative"] * 2
    pod = make_pod().named("first").req(memory="1Gi")
    engine.upsert_pod((pod.owner("DaemonSet") if daemon else pod.priority(1)).obj())
    decisions = decide_all(engine)
    assert verdicts(decisions) == ["placed", "waiting", "waiting"]
    assert tight(engine) == 1  # all of the gang's holds go, if one does


def test_a_hold_goes_when_somebody_else_takes_its_place() -> None:
    engine = cluster("1Gi")
    engine.upsert_pod(member("a", strategy="hoarding").obj())
    decide_all(engine)
    engine.upsert_pod(make_pod().named("other").req(memory="1Gi").scheduler("another").on("n0").obj())
    assert tight(engine) == 1
    [decision] = decide_all(engine)
    assert decision.message == "gang default/g gave up what it held: others took its place on node n0"


def test_a_hold_goes_with_its_node_and_with_its_pod() -> None:
    engine = cluster("1Gi", "1Gi")
    for name in ("a", "b"):
        engine.upsert_pod(member(name, strategy="hoarding", **{"min-count": "3"}).obj())
    decide_all(engine)
    engine.remove_pod("uid-of-default/b")
    assert tight(engine) == 1
    [holding] = engine.gangs.hoarding.holdings
    [hold] = holding.holds.values()
    engine.remove_node(hold.node)
    assert list(engine.gangs.hoarding.holdings) == []
    assert engine.state.pods == {}


def test_a_member_that_is_deleted_while_it_holds_is_let_go() -> None:
    engine = cluster("1Gi")
    pod = member("a", strategy="hoarding")
    engine.upsert_pod(pod.obj())
    decide_all(engine)
    engine.upsert_pod(pod.terminating().obj())
    assert tight(engine) == 0
    assert verdicts(decide_all(engine)) == ["terminating"]


# ---- deadlock


def test_of_two_gangs_that_block_each_other_the_senior_one_gets_on() -> None:
    engine = cluster("1Gi", "1Gi", clock=(clock := Clock()))
    long = {"strategy": "hoarding", "hold-timeout": "1h"}
    for name, gang, created in (("a1", "a", "1"), ("b1", "b", "2")):
        pod = member(name, gang=gang, **long).created(f"2026-01-01T00:00:0{created}Z")
        engine.upsert_pod(pod.obj())
    assert verdicts(decide_all(engine)) == ["tentative"] * 2
    engine.upsert_pod(member("b2", gang="b", **long).created("2026-01-01T00:00:04Z").obj())
    assert verdicts(decide_all(engine)) == ["unschedulable"]  # a's other member is not there yet
    engine.upsert_pod(member("a2", gang="a", **long).created("2026-01-01T00:00:03Z").obj())
    decisions = decide_all(engine)
    assert sorted(placed(decisions)) == ["a1", "a2"]
    assert engine.gangs.cost.deadlocks == 1
    [loser] = [d for d in decisions if d.verdict is Verdict.WAITING]
    assert (
        loser.message == "gang default/b gave up what it held: its place went to gang default/a, its senior"
    )
    for name in ("a1", "a2"):
        engine.bind_confirmed(f"uid-of-default/{name}")
        engine.remove_pod(f"uid-of-default/{name}")
    clock.advance(60.0)
    assert sorted(placed(decide_all(engine))) == ["b1", "b2"]


def test_who_gave_up_does_not_hold_again_before_the_winner_is_complete() -> None:
    engine = cluster("1Gi", "1Gi", "1Gi", clock=(clock := Clock()))
    long = {"strategy": "hoarding", "hold-timeout": "1h"}
    senior, junior = {"gang": "a", "min-count": "4", **long}, {"gang": "b", "min-count": "3", **long}
    for i, options in enumerate((senior, junior, senior, junior)):
        pod = member(f"m{i}", **options).created(f"2026-01-01T00:00:0{i}Z")
        engine.upsert_pod(pod.obj())
        decide_all(engine)
    assert engine.gangs.cost.deadlocks == 0
    engine.upsert_pod(member("m4", **senior).created("2026-01-01T00:00:05Z").obj())
    decisions = decide_all(engine)
    assert engine.gangs.cost.deadlocks == 1
    assert verdicts(decisions).count("waiting") == 1
    clock.advance(20.0)
    assert all("waits until that is complete" in d.message for d in decide_all(engine))
    assert tight(engine) == 3


# ---- sizes


def test_the_largest_member_is_placed_first_whenever_it_came() -> None:
    engine = cluster("3Gi", "2Gi")
    options = {"min-count": "3"}
    for name, memory in (("s1", "1Gi"), ("s2", "1Gi"), ("big", "3Gi")):
        engine.upsert_pod(member(name, memory, **options).obj())
    assert placed(decide_all(engine)) == {"s1": "n1", "s2": "n1", "big": "n0"}


def test_a_sleeping_pod_is_woken_when_a_hold_ends() -> None:
    clock = Clock()
    engine = cluster("2Gi", clock=clock)
    engine.upsert_pod(member("a", "2Gi", strategy="hoarding", **{"hold-timeout": "30s"}).obj())
    decide_all(engine)
    engine.upsert_pod(make_pod().named("single").req(memory="2Gi").obj())
    assert not placed(decide_all(engine))
    clock.advance(30)
    assert placed(decide_all(engine)) == {"single": "n0"}  # (the gang's member backs off first)


def test_a_sleeping_pod_is_woken_when_a_gang_moves_its_holds() -> None:
    engine = cluster("1280Mi", "2Gi", clock=(clock := Clock()))
    engine.upsert_pod(member("a", "1Gi", strategy="hoarding", **ONE_NODE).obj())
    decide_all(engine)
    engine.upsert_pod(make_pod("other").req(memory="1Gi").pinned_to("n0").obj())
    assert verdicts(decide_all(engine)) == ["unschedulable"]
    clock.advance(2.0)
    engine.upsert_pod(member("b", "512Mi", strategy="hoarding", **ONE_NODE).obj())
    assert placed(decide_all(engine)) == {"a": "n1", "b": "n1", "other": "n0"}


# ---- giving way


def test_of_holds_that_can_not_all_stay_the_senior_ones_do() -> None:
    engine = cluster("3Gi")
    for name, created in (("junior", "2026-01-02T00:00:00Z"), ("senior", "2026-01-01T00:00:00Z")):
        engine.upsert_pod(member(name, gang=name, strategy="hoarding").created(created).obj())
        decide_all(engine)
    engine.upsert_pod(make_pod("urgent").req(memory="2Gi").priority(10).obj())
    assert placed(decide_all(engine)) == {"urgent": "n0"}
    assert [holding.gang.ref.name for holding in engine.gangs.hoarding.holdings] == ["senior"]


@pytest.mark.parametrize("wrong", ["size", "node"])
def test_no_hold_is_touched_for_a_pod_that_would_not_fit_without(wrong: str) -> None:
    engine = cluster("3Gi")
    engine.upsert_pod(member("a", strategy="hoarding").obj())
    decide_all(engine)
    pod = make_pod("urgent").req(memory="4Gi" if wrong == "size" else "3Gi").priority(10)
    engine.upsert_pod((pod if wrong == "size" else pod.selector({"no": "where"})).obj())
    before = engine.state.nodes.generation
    assert not placed(decide_all(engine))
    assert engine.state.nodes.generation == before
