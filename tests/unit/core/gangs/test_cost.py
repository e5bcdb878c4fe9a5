"""What gangs cost, to the byte-second."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Engine
from scheduler.core.gangs.cost import GangCost
from scheduler.core.gangs.dispatch import GangDispatch
from scheduler.core.gangs.gang import GangPolicy
from scheduler.core.post_filters import PostFilters
from tests.builders import Clock, PodBuilder, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

GIB = 1 << 30
STRATEGIES = ("atomic", "hoarding", "optimistic")


def cost_of(engine: Engine) -> GangCost:
    """As a scrape sees it."""
    engine.gangs.accounts.settle()
    return engine.gangs.cost


def bind(engine: Engine, pod: PodBuilder, node: str) -> None:
    """The watch shows it bound."""
    engine.bind_confirmed(pod.info().uid)
    engine.upsert_pod(pod.on(node).obj())


# ---- held


def test_a_hold_that_ends_in_a_commit_is_used() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    for name, memory, seconds in (("a", "1Gi", 10.0), ("b", "2Gi", 5.0), ("c", "1Gi", 0.0)):
        engine.upsert_pod(member(name, memory, strategy="hoarding", **{"min-count": "3"}).obj())
        decide_all(engine)
        clock.advance(seconds)
    held = engine.gangs.cost.held_byte_seconds
    assert held == {("hoarding", "used"): (15 * 1 + 5 * 2) * GIB}


def test_a_hold_that_is_released_is_wasted() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        options = {"strategy": "hoarding", "min-count": "3", "hold-timeout": "60s"}
        engine.upsert_pod(member(name, "2Gi", **options).obj())
        decide_all(engine)
        clock.advance(30.0)
    decide_all(engine)  # the time is up since the first member was placed
    assert engine.gangs.cost.held_byte_seconds == {("hoarding", "wasted"): (60 + 30) * 2 * GIB}
    assert engine.gangs.cost.rollbacks == {"hoarding": 1}


# ---- reserved


@pytest.mark.parametrize("strategy", ["atomic", "optimistic"])
def test_what_is_free_on_nodes_that_are_kept_is_reserved(strategy: str) -> None:
    engine = cluster("1Gi", "2Gi", clock=(clock := Clock()))
    engine.upsert_pod(make_pod().named("s").req(memory="1Gi").on("n1").obj())
    for name in ("a", "b"):
        engine.upsert_pod(member(name, "1500Mi", strategy=strategy).obj())
    decide_all(engine)
    engine.upsert_node(make_node("n2").allocatable(memory="2Gi").obj())
    decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    decide_all(engine)
    assert engine.gangs.reservations.nodes == {"n1", "n2"}
    clock.advance(20.0)
    engine.remove_pod("uid-of-default/s")
    assert sorted(placed(decide_all(engine))) == ["a", "b"]
    # 1 GiB on n1 and 2 on n2; the pod on n1 went at the end, when both members took their places at once.
    assert engine.gangs.cost.reserved_byte_seconds == {strategy: 20 * 3 * GIB}


# ---- bound but incomplete


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_that_are_bound_while_others_wait_are_counted(strategy: str) -> None:
    engine = cluster("8Gi", clock=(clock := Clock()))
    pods = [
        member(name, memory, strategy=strategy, **{"min-count": "3"})
        for name, memory in (("a", "1Gi"), ("b", "2Gi"), ("c", "1Gi"), ("surplus", "4Gi"))
    ]
    for pod in pods:
        engine.upsert_pod(pod.obj())
    assert len(placed(decide_all(engine))) == 4
    clock.advance(7.0)  # none is bound
    bind(engine, pods[0], "n0")
    clock.advance(2.0)
    bind(engine, pods[1], "n0")
    clock.advance(3.0)
    assert cost_of(engine).incomplete_byte_seconds == {strategy: (2 * 1 + 3 * 3) * GIB}
    bind(engine, pods[2], "n0")
    clock.advance(100.0)  # the fourth is not needed
    assert cost_of(engine).incomplete_byte_seconds == {strategy: (2 * 1 + 3 * 3) * GIB}


def test_a_gang_that_shrinks_since_its_members_end_is_not_incomplete() -> None:
    engine = cluster("8Gi", clock=(clock := Clock()))
    pods = [member(name) for name in ("a", "b")]
    for pod in pods:
        engine.upsert_pod(pod.on("n0").obj())
    clock.advance(5.0)
    engine.upsert_pod(pods[0].phase("Succeeded").obj())
    clock.advance(5.0)
    assert cost_of(engine).incomplete_byte_seconds == {}
    engine.upsert_pod(member("a2").gated().obj())  # it could not be bound
    clock.advance(5.0)
    assert cost_of(engine).incomplete_byte_seconds == {}
    engine.upsert_pod(member("a2").obj())
    clock.advance(5.0)
    assert cost_of(engine).incomplete_byte_seconds == {"atomic": 5 * GIB}


# ---- free while wanted


@pytest.mark.parametrize("strategy", ["atomic", "optimistic"])
def test_free_memory_counts_where_a_refused_gang_could_have_used_it(strategy: str) -> None:
    engine = cluster("3Gi", "1Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        engine.upsert_pod(member(name, "2Gi", strategy=strategy).obj())
    decide_all(engine)
    clock.advance(10.0)
    # The first node takes one of them, and then has 3 GiB less than both ask for; the other takes none.
    assert cost_of(engine).free_byte_seconds == {strategy: 10 * 3 * GIB}
    engine.upsert_pod(make_pod().named("s").req(memory="1536Mi").on("n0").obj())
    decide_all(engine)
    clock.advance(10.0)
    assert cost_of(engine).free_byte_seconds == {strategy: 10 * 3 * GIB}
    engine.upsert_node(make_node("n2").allocatable(memory="9Gi").obj())
    clock.advance(5.0)  # asleep until somebody decides
    assert sorted(placed(decide_all(engine))) == ["a", "b"]
    clock.advance(50.0)
    assert cost_of(engine).free_byte_seconds == {strategy: 10 * 3 * GIB}


def test_no_more_counts_than_the_gangs_ask_for() -> None:
    engine = cluster("1Gi", "64Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        pod = member(name, "1Gi", **{"topology-key": "zone"})  # a label that no node has
        engine.upsert_pod(pod.obj())
    decide_all(engine)
    clock.advance(10.0)
    assert cost_of(engine).free_byte_seconds == {"atomic": 10 * 2 * GIB}
    engine.remove_pod("uid-of-default/b")
    decide_all(engine)
    clock.advance(10.0)
    assert cost_of(engine).free_byte_seconds == {"atomic": 10 * 2 * GIB}  # it lacks a member, not memory


def test_a_gang_that_is_placed_at_once_has_wanted_nothing() -> None:
    engine = cluster("4Gi", "1Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        engine.upsert_pod(member(name, "2Gi").obj())
    assert len(placed(decide_all(engine))) == 2
    clock.advance(10.0)
    decide_all(engine)
    assert cost_of(engine).free_byte_seconds == {}


def test_a_change_within_the_second_is_looked_at_when_it_is_over() -> None:
    engine = cluster("3Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        engine.upsert_pod(member(name, "2Gi").obj())
    decide_all(engine)
    clock.advance(0.25)
    engine.upsert_pod(make_pod().named("s").req(memory="2Gi").on("n0").obj())
    decide_all(engine)
    assert engine.gangs.accounts.next_due() == clock.now + 0.75
    clock.advance(0.75)
    decide_all(engine)
    clock.advance(60.0)
    assert cost_of(engine).free_byte_seconds == {"atomic": 3 * GIB}  # the first second as it began


# ---- time to gang


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_time_to_gang_ends_when_enough_members_are_bound(strategy: str) -> None:
    engine = cluster("8Gi", clock=(clock := Clock()))
    pods = [member(name, strategy=strategy) for name in ("a", "b", "surplus")]
    for pod, seconds in zip(pods, (30.0, 4.0, 1.0), strict=True):
        engine.upsert_pod(pod.obj())
        decide_all(engine)
        clock.advance(seconds)
    bind(engine, pods[0], "n0")
    assert cost_of(engine).since_first_member == {}
    clock.advance(0.5)
    bind(engine, pods[1], "n0")
    clock.advance(9.0)
    bind(engine, pods[2], "n0")
    cost = cost_of(engine)
    [first], [ready] = cost.since_first_member.values(), cost.since_min_count.values()
    assert (len(first), first.sum_s) == (1, 35.5)
    assert (len(ready), ready.sum_s) == (1, 5.5)


def test_gangs_that_somebody_else_had_bound_are_not_timed() -> None:
    engine = cluster("8Gi", clock=(clock := Clock()))
    for name in ("a", "b"):  # a new leader finds them so
        engine.upsert_pod(member(name).on("n0").obj())
        clock.advance(5.0)
    assert cost_of(engine).since_first_member == {}


def test_a_gang_that_lost_a_member_is_timed_from_the_loss() -> None:
    engine = cluster("8Gi", clock=(clock := Clock()))
    pods = [member(name) for name in ("a", "b")]
    for pod in pods:
        engine.upsert_pod(pod.obj())
    decide_all(engine)
    for pod in pods:
        bind(engine, pod, "n0")
    clock.advance(1000.0)
    engine.remove_pod(pods[1].info().uid)
    clock.advance(3.0)
    again = member("b2")
    engine.upsert_pod(again.obj())
    assert list(placed(decide_all(engine))) == ["b2"]
    clock.advance(2.0)
    bind(engine, again, "n0")
    cost = cost_of(engine)
    assert cost.since_first_member["atomic"].sum_s == 5.0
    assert cost.since_min_count["atomic"].sum_s == 2.0
    assert cost.incomplete_byte_seconds == {"atomic": 2 * GIB}


# ---- planning


def test_the_processor_time_of_planning_is_counted_by_strategy() -> None:
    engine = cluster("8Gi")
    gangs = engine.gangs
    ticks = iter(range(1000))
    again = GangDispatch(
        engine.state,
        engine.queue,
        engine.cycles,
        Clock(),
        PostFilters(engine.state),
        on_freed=lambda node: None,
        on_released=lambda node, info: None,
        on_asleep=lambda name, plugins: None,
        cpu_clock=lambda: next(ticks) * 0.25,
    )
    engine.gangs = again
    for name in ("a", "b"):
        engine.upsert_pod(member(name, strategy="optimistic").obj())
    assert len(placed(decide_all(engine))) == 2
    assert again.cost.planning_cpu_s == {"optimistic": 0.25}
    assert gangs.cost.planning_cpu_s == {}
