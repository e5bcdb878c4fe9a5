"""Members whose volumes are bound as they are placed."""

from __future__ import annotations

import pytest

from scheduler.api_objects import ClusterObject
from scheduler.core.engine import Decision, Engine, Verdict
from tests.builders import Clock, PodBuilder, make_engine
from tests.unit.core.gangs.words import decide_all
from tests.unit.plugins.storing import zoned
from tests.unit.storage import claim, storage_class, volume, with_claims

STRATEGIES = ("atomic", "hoarding", "optimistic")


def engine_with(*items: ClusterObject, clock: Clock | None = None) -> Engine:
    """One node."""
    engine = make_engine(clock)
    for node in zoned(a="a"):
        engine.upsert_node(node.obj())
    for item in (storage_class(), *items):
        engine.upsert_object(item)
    return engine


def member(name: str, its_claim: str, strategy: str, min_count: int = 2) -> PodBuilder:
    options = {"gang": "g", "min-count": str(min_count), "strategy": strategy}
    return with_claims(name, its_claim).annotations({f"wholepod.io/{k}": v for k, v in options.items()})


def matched(decisions: list[Decision]) -> dict[str, str]:
    """Claim → volume, of placed pods."""
    plans = [d.volumes for d in decisions if d.verdict is Verdict.PLACED]
    return {b.claim.name: b.volume.name for plan in plans if plan is not None for b in plan.bindings}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_member_gets_a_volume_of_its_own(strategy: str) -> None:
    engine = engine_with(claim("c1"), claim("c2"), volume("v1"), volume("v2"))
    decisions = []
    for i in (1, 2):
        engine.upsert_pod(member(f"p{i}", f"c{i}", strategy).obj())
        decisions += decide_all(engine)
    assert sorted(matched(decisions)) == ["c1", "c2"]
    assert sorted(matched(decisions).values()) == ["v1", "v2"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_members_do_not_share_the_only_volume(strategy: str) -> None:
    engine = engine_with(claim("c1"), claim("c2"), claim("c3"), volume("v"))
    for i in (1, 2):
        engine.upsert_pod(member(f"p{i}", f"c{i}", strategy).obj())
    assert matched(decide_all(engine)) == {}
    engine.upsert_pod(with_claims("single", "c3").obj())
    held = strategy == "hoarding"
    assert matched(decide_all(engine)) == ({} if held else {"c3": "v"})


def test_a_hold_that_ends_gives_its_volume_back_and_wakes_who_waits_for_one() -> None:
    engine = engine_with(claim("c1"), claim("c3"), volume("v"), clock=(clock := Clock()))
    engine.upsert_pod(member("p1", "c1", "hoarding").obj())
    decide_all(engine)
    engine.upsert_pod(with_claims("single", "c3").obj())
    assert matched(decide_all(engine)) == {}
    clock.advance(60.0)
    assert matched(decide_all(engine)) == {"c3": "v"}


def test_a_member_that_is_deleted_while_it_holds_gives_its_volume_back() -> None:
    engine = engine_with(claim("c1"), claim("c3"), volume("v"))
    engine.upsert_pod(member("p1", "c1", "hoarding").obj())
    decide_all(engine)
    engine.remove_pod("uid-of-default/p1")
    engine.upsert_pod(with_claims("single", "c3").obj())
    assert matched(decide_all(engine)) == {"c3": "v"}


def test_a_member_whose_bind_is_refused_gives_its_volume_back() -> None:
    engine = engine_with(claim("c1"), claim("c2"), claim("c3"), volume("v1"), volume("v2"))
    for i in (1, 2):
        engine.upsert_pod(member(f"p{i}", f"c{i}", "atomic").obj())
    taken = matched(decide_all(engine))
    engine.bind_failed("uid-of-default/p1")
    engine.upsert_pod(with_claims("single", "c3").obj())
    assert matched(decide_all(engine)) == {"c3": taken["c1"]}
