"""What a profile lets gangs ask for, and what becomes of those that ask for more."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.incomplete import TELL_AFTER_S
from tests.builders import Clock, make_engine, make_node, make_pod, make_profile
from tests.unit.core.gangs.words import decide_all, member, placed

GIB = 1 << 30


def capped(clock: Clock, *memory: str, **gangs: Any) -> Engine:
    """Nodes n0, n1, …, and a profile `wholepod` with these caps."""
    engine = make_engine(clock, make_profile(gangs=gangs))
    for i, amount in enumerate(memory):
        engine.upsert_node(make_node(f"n{i}").allocatable(memory=amount).obj())
    return engine


def held(engine: Engine) -> list[str]:
    return sorted(
        hold.queued.info.pod.metadata.name
        for holding in engine.gangs.hoarding.holdings
        for hold in holding.holds.values()
    )


def test_a_strategy_that_the_profile_does_not_allow_keeps_the_gang_waiting() -> None:
    engine = capped(clock := Clock(), "4Gi", strategies=["atomic", "optimistic"])
    engine.upsert_pod(member("a", strategy="hoarding").obj())
    clock.advance(TELL_AFTER_S)
    [decision] = decide_all(engine)
    assert (decision.verdict, decision.message) == (
        Verdict.WAITING,
        "annotation wholepod.io/strategy: hoarding is none of the strategies (atomic, optimistic) that "
        "gangs.strategies of profile wholepod allows; use one of these, or have it added there",
    )


def test_gangs_that_name_no_strategy_follow_the_profiles() -> None:
    engine = capped(Clock(), "4Gi", defaultStrategy="hoarding")
    engine.upsert_pod(member("a").obj())
    assert [d.verdict for d in decide_all(engine)] == [Verdict.TENTATIVE]
    assert held(engine) == ["a"]


@pytest.mark.parametrize(("asked", "seconds"), [("1h", 90.0), ("30s", 30.0), (None, 60.0)])
def test_a_hold_timeout_is_cut_to_the_profiles(asked: str | None, seconds: float) -> None:
    engine = capped(clock := Clock(), "4Gi", maxHoldTimeout=90)
    options = {} if asked is None else {"hold-timeout": asked}
    engine.upsert_pod(member("a", strategy="hoarding", **options).obj())
    decide_all(engine)
    assert engine.gangs.hoarding.next_due() == clock.now + seconds


def test_a_namespace_holds_no_more_than_its_share() -> None:
    engine = capped(Clock(), "4Gi", "4Gi", maxHeldFraction={"namespace": 0.25, "cluster": 1})
    long = {"strategy": "hoarding", "min-count": "4", "hold-timeout": "1h"}
    for name in ("a", "b", "c"):
        engine.upsert_pod(member(name, **long).obj())
    refused = [d for d in decide_all(engine) if d.verdict is Verdict.WAITING]
    assert held(engine) == ["a", "b"]
    assert [(d.pod.pod.metadata.name, d.message) for d in refused] == [
        (
            "c",
            "gang default/g may hold no more: with this member, gangs of namespace default would hold more "
            "memory than gangs.maxHeldFraction.namespace of profile wholepod allows (0.25 of the cluster's "
            "8192Mi). It is placed when others hold less, or when all members that it needs fit at once. "
            "With annotation wholepod.io/strategy: atomic it would hold nothing",
        )
    ]
    elsewhere = member("d", **long).named("d", namespace="other")
    engine.upsert_pod(elsewhere.obj())
    decide_all(engine)
    assert held(engine) == ["a", "b", "d"]
    assert engine.state.nodes.requested[1].sum() == 3 * GIB  # what may not be held keeps nobody out


def test_all_namespaces_together_hold_no_more_than_the_clusters_share() -> None:
    engine = capped(Clock(), "4Gi", maxHeldFraction={"namespace": 0.5, "cluster": 0.5})
    for name, namespace in (("a", "one"), ("b", "two"), ("c", "three")):
        pod = member(name, strategy="hoarding").named(name, namespace=namespace)
        engine.upsert_pod(pod.obj())
    [refused] = [d for d in decide_all(engine) if d.verdict is Verdict.WAITING]
    assert held(engine) == ["a", "b"]
    assert "gangs of all namespaces" in refused.message
    assert "gangs.maxHeldFraction.cluster of profile wholepod allows (0.5 of" in refused.message


def test_a_gang_that_is_complete_is_placed_whatever_the_caps() -> None:
    """It holds nothing then. So gangs never wait for each other because of caps."""
    engine = capped(clock := Clock(), "4Gi", maxHeldFraction={"namespace": 0, "cluster": 0})
    for name in ("a", "b", "c"):
        engine.upsert_pod(member(name, strategy="hoarding", **{"min-count": "3"}).obj())
        decide_all(engine)
        clock.advance(20.0)
    assert held(engine) == []
    assert engine.state.nodes.requested[1].sum() == 3 * GIB
    assert engine.gangs.cost.held_byte_seconds.total() == 0


def test_members_that_may_not_be_held_are_when_others_hold_less() -> None:
    engine = capped(clock := Clock(), "4Gi", maxHeldFraction={"namespace": 0.25, "cluster": 0.25})
    engine.upsert_pod(member("a", gang="g", strategy="hoarding", **{"hold-timeout": "30s"}).obj())
    decide_all(engine)
    engine.upsert_pod(member("b", gang="h", strategy="hoarding", **{"hold-timeout": "1h"}).obj())
    decide_all(engine)
    assert held(engine) == ["a"]
    engine.remove_pod("uid-of-default/a")
    clock.advance(20.0)
    decide_all(engine)
    assert held(engine) == ["b"]


def test_a_gang_starves_when_its_profile_says_so() -> None:
    clock = Clock()
    profiles = [make_profile(name, gangs={"starvationAfter": s}) for name, s in (("slow", 60), ("fast", 20))]
    engine = make_engine(clock, *profiles)
    engine.upsert_node(make_node("n").allocatable(memory="2Gi").obj())
    engine.upsert_pod(make_pod().named("single").scheduler("slow").req(memory="2Gi").obj())
    decide_all(engine)
    engine.bind_confirmed("uid-of-default/single")
    for gang in ("slow", "fast"):
        for number in range(2):
            engine.upsert_pod(member(f"{gang}{number}", gang=gang).scheduler(gang).obj())
        decide_all(engine)
    clock.advance(20.0)
    decide_all(engine)
    assert engine.gangs.reservations.gang is engine.gangs.book.of("uid-of-default/fast0")
    assert not placed(decide_all(engine))
