"""A gang that has waited too long gets nodes kept for it."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.gang import GangPolicy
from scheduler.core.gangs.reservation import LOOK_AGAIN_S
from tests.builders import Clock, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


def single(number: int, **more: Any) -> Any:
    return make_pod().named(f"s{number}").req(memory="1Gi").priority(more.get("priority", 0))


def starving(clock: Clock, strategy: str = "atomic") -> Engine:
    """Four nodes full of single pods, and a gang of two that has waited so long that it is due."""
    engine = cluster("1Gi", "1Gi", "1Gi", "1Gi", clock=clock)
    for i in range(4):
        engine.upsert_pod(single(i).obj())
    for decision in decide_all(engine):
        engine.bind_confirmed(decision.pod.uid)
    for name in ("a", "b"):
        engine.upsert_pod(member(name, strategy=strategy).obj())
    decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    decide_all(engine)
    return engine


def some_single_ends_on(engine: Engine, nodes: frozenset[str]) -> None:
    uid = next(u for u, p in engine.state.pods.items() if p.node in nodes and "/s" in p.info.name)
    engine.remove_pod(uid)


@pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
def test_room_that_comes_free_is_kept_until_it_is_enough(strategy: str) -> None:
    engine = starving(clock := Clock(), strategy)
    reserved = engine.gangs.reservations.nodes
    assert len(reserved) == 2
    for number in (10, 11):
        some_single_ends_on(engine, reserved)
        engine.upsert_pod(single(number).obj())  # as soon as there is room there is somebody to take it
        clock.advance(11.0)
        got = placed(decide_all(engine))
        assert not any(name.startswith("s") for name in got)
    assert engine.gangs.reservations.nodes == frozenset()
    assert {p.info.pod.metadata.name for p in engine.state.pods.values()} >= {"a", "b"}
    assert engine.gangs.cost.reserved_byte_seconds[strategy] > 0 or strategy == "hoarding"


def test_the_rest_of_the_cluster_goes_on() -> None:
    engine = starving(clock := Clock())
    others = frozenset(engine.state.nodes.names) - engine.gangs.reservations.nodes
    some_single_ends_on(engine, others)
    engine.upsert_pod(single(10).obj())
    [decision] = [d for d in decide_all(engine) if d.verdict is Verdict.PLACED]
    assert decision.node in others
    assert clock.now > 0


def test_higher_priority_is_not_kept_out() -> None:
    engine = starving(Clock())
    reserved = engine.gangs.reservations.nodes
    some_single_ends_on(engine, reserved)
    engine.upsert_pod(single(10, priority=1).obj())
    assert placed(decide_all(engine))["s10"] in reserved


def test_a_pod_that_was_kept_out_is_tried_when_the_gang_gives_up() -> None:
    engine = starving(clock := Clock())
    some_single_ends_on(engine, engine.gangs.reservations.nodes)
    engine.upsert_pod(single(10).obj())
    assert placed(decide_all(engine)) == {}
    engine.remove_pod("uid-of-default/a")
    clock.advance(LOOK_AGAIN_S)
    assert "s10" in placed(decide_all(engine))


def test_nothing_is_kept_for_a_gang_that_would_not_even_fit_an_empty_cluster() -> None:
    engine = cluster("1Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    decide_all(engine)
    assert engine.gangs.reservations.nodes == frozenset()
    engine.upsert_node(make_node("n9").allocatable(memory="1Gi").obj())
    clock.advance(11.0)
    assert sorted(placed(decide_all(engine))) == ["a", "b"]


@pytest.mark.parametrize("strategy", ["atomic", "optimistic"])
def test_nodes_are_kept_from_other_gangs_too(strategy: str) -> None:
    engine = starving(clock := Clock(), strategy)
    reserved = engine.gangs.reservations.nodes
    some_single_ends_on(engine, reserved)
    engine.upsert_pod(member("c", strategy=strategy, gang="h", **{"min-count": "1"}).obj())
    clock.advance(11.0)
    [decision] = [d for d in decide_all(engine) if d.pod.pod.metadata.name == "c"]
    assert "2 node(s) are kept for a gang that has waited longer" in decision.message


def test_the_gang_that_nodes_are_kept_for_is_woken_though_others_like_it_are_kept_out() -> None:
    engine = cluster("1Gi", "1Gi", clock=(clock := Clock()))
    for i in range(2):
        engine.upsert_pod(single(i).obj())
    decide_all(engine)
    for gang, names in (("junior", "cd"), ("senior", "ab")):  # the juniors fall asleep first
        for name in names:
            engine.upsert_pod(member(name, gang=gang).obj())
        decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    decide_all(engine)
    for i in range(2):
        engine.remove_pod(f"uid-of-default/s{i}")
    assert sorted(placed(decide_all(engine))) == ["a", "b"]


def test_gangs_that_would_not_fit_leave_the_turn_to_juniors() -> None:
    engine = starving(clock := Clock(), "atomic")
    reservations = engine.gangs.reservations
    engine.remove_pod("uid-of-default/a")
    engine.remove_pod("uid-of-default/b")
    assert not reservations.nodes
    for i in range(3):
        for name in "ab":
            engine.upsert_pod(member(f"large-{i}-{name}", "2Gi", gang=f"large-{i}").priority(1).obj())
    for name in "cd":
        engine.upsert_pod(member(name, gang="small").obj())
    decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    for _ in range(4):  # one look each, some time apart
        decide_all(engine)
        clock.advance(0.2)
    assert reservations.gang is not None
    assert reservations.gang.ref.name == "small"
    assert len(reservations.nodes) == 2


def test_pods_that_outrank_the_gang_stay() -> None:
    engine = cluster(*["2Gi"] * 3, clock=(clock := Clock()))
    for i in range(3):
        taken, priority = ("512Mi", 10) if i == 1 else ("2Gi", 0)
        engine.upsert_pod(make_pod(f"s{i}").req(memory=taken).priority(priority).on(f"n{i}").obj())
    for name in "ab":
        engine.upsert_pod(member(name, "1600Mi").spec(preemptionPolicy="Never").obj())
    decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    decide_all(engine)
    assert engine.gangs.reservations.nodes == {"n0", "n2"}


@pytest.mark.parametrize("fits", [True, False])
def test_nodes_are_kept_in_one_domain(fits: bool) -> None:
    engine = cluster(*["2Gi"] * 4, clock=(clock := Clock()))
    for i in range(4):
        engine.upsert_pod(single(i).req(memory="1Gi").on(f"n{i}").obj())
    options = {"topology-key": "kubernetes.io/hostname"}
    for name in "ab":
        engine.upsert_pod(member(name, "1Gi" if fits else "1500Mi", **options).obj())
    decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    decide_all(engine)
    assert len(engine.gangs.reservations.nodes) == fits


def test_of_a_gang_of_very_many_sizes_no_member_is_forgotten() -> None:
    engine = cluster(*["2Gi"] * 50, clock=(clock := Clock()))
    for i in range(50):
        engine.upsert_pod(single(i).on(f"n{i}").obj())
    for i in range(40):
        options = {"min-count": "40"}
        engine.upsert_pod(member(f"m{i}", f"{1200 + i}Mi", **options).obj())
    decide_all(engine)
    clock.advance(GangPolicy().starvation_after_s)
    decide_all(engine)
    assert len(engine.gangs.reservations.nodes) == 40
