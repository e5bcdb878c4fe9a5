"""How gangs are shown, in each state that they can be in."""

from __future__ import annotations

from itertools import count

import pytest

from scheduler.core.engine import Engine
from scheduler.core.gangs.ref import GANG, GangRef, Source
from scheduler.core.gangs.view import GangView, views
from tests.builders import Clock, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member

REF = GangRef(Source.ANNOTATIONS, "default", "g")


def shown(engine: Engine, *, committing: bool = False) -> GangView:
    [gang] = views(engine, [REF], {REF} if committing else ())
    return gang


def told(name: str, message: str) -> dict[str, object]:
    """Status of a pod that says so."""
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": name, "message": message}]}


def brief(gang: GangView) -> tuple[str, int, int, int, str]:
    return gang.state.value, gang.placed, gang.existing, gang.min_count, gang.waits_for


def members(gang: GangView) -> dict[str, tuple[str, str]]:
    return {member.name: (member.state.value, member.node) for member in gang.members}


def test_incomplete_gangs() -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("a").created("2026-01-01T00:00:00Z").priority(3).obj())
    gang = shown(engine)
    assert brief(gang) == ("incomplete", 0, 1, 2, "1 more member to exist")
    assert (gang.namespace, gang.name, gang.source) == ("default", "g", "annotations")
    assert (gang.strategy, gang.priority, gang.created) == ("atomic", 3, "2026-01-01T00:00:00Z")
    engine.upsert_pod(member("b").gated().obj())
    gang = shown(engine)
    assert brief(gang) == ("incomplete", 0, 1, 2, "1 more member to exist (1 are gated)")
    assert members(gang)["b"] == ("gated", "")


def test_a_stateful_set_may_be_why_members_are_missing() -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("a").owner("StatefulSet").obj())
    hint = "(a StatefulSet creates its pods one by one unless its podManagementPolicy is Parallel)"
    assert shown(engine).waits_for == f"1 more member to exist {hint}"


def test_a_gang_that_is_described_badly_says_how() -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("a", strategy="greedy").obj())
    gang = shown(engine)
    assert (gang.state.value, gang.strategy, gang.min_count) == ("incomplete", "", 0)
    assert gang.waits_for.startswith("annotation wholepod.io/strategy must be one of")


def test_waiting_gangs_say_what_their_pods_say() -> None:
    engine = cluster("1Gi")
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    decide_all(engine)
    assert brief(shown(engine)) == ("waiting", 0, 2, 2, "room for its members")
    engine.upsert_pod(member("a").status(**told("Unschedulable", "0/1 nodes are available")).obj())
    gang = shown(engine)
    assert gang.waits_for == "0/1 nodes are available"
    assert gang.members[0].why == "0/1 nodes are available"


def test_a_gang_that_is_being_planned() -> None:
    engine = cluster("4Gi", clock=count().__next__)  # each look at the clock takes longer than a slice
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    assert engine.decide() is None
    assert engine.gangs.planning
    assert shown(engine).state.value == "planning"


@pytest.mark.parametrize(
    ("strategy", "state", "place"), [("hoarding", "holding", "held"), ("optimistic", "claimed", "claimed")]
)
def test_places_kept_in_mind(strategy: str, state: str, place: str) -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("a", strategy=strategy).obj())
    decide_all(engine)
    gang = shown(engine)
    assert brief(gang) == (state, 1, 1, 2, "1 more member to exist")
    assert members(gang) == {"a": (place, "n0")}


def test_from_commit_to_bound() -> None:
    engine = cluster("4Gi")
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    decide_all(engine)
    gang = shown(engine, committing=True)
    assert brief(gang) == ("committing", 2, 2, 2, "2 more members to be bound")
    assert members(gang) == {"a": ("binding", "n0"), "b": ("binding", "n0")}
    for name in ("a", "b"):
        engine.bind_confirmed(f"uid-of-default/{name}")
        engine.upsert_pod(member(name).on("n0").obj())
    gang = shown(engine)
    assert brief(gang) == ("bound", 2, 2, 2, "")
    assert members(gang)["b"] == ("bound", "n0")
    engine.upsert_pod(member("b").on("n0").terminating().obj())
    gang = shown(engine)
    assert brief(gang) == ("incomplete", 1, 1, 2, "1 more member to exist")
    assert members(gang)["b"] == ("terminating", "n0")


def test_kept_nodes_are_counted() -> None:
    clock = Clock()
    engine = cluster("2Gi", "2Gi", clock=clock)
    for name in ("x", "y"):
        engine.upsert_pod(make_pod(name).req(memory="1Gi").on("n0").obj())
    for name in ("a", "b"):
        engine.upsert_pod(member(name, "2Gi").obj())
    decide_all(engine)
    assert shown(engine).reserved_nodes == 0
    clock.advance(61)
    decide_all(engine)
    assert engine.gangs.reservations.gang is not None
    assert shown(engine).reserved_nodes == 2


def test_only_gangs_with_members_are_shown() -> None:
    engine = cluster("4Gi")
    assert views(engine, [REF], ()) == []
    engine.upsert_pod(make_pod("other").annotations({GANG: "h"}).obj())
    [other] = views(engine, [gang.ref for gang in engine.gangs.book], ())
    assert other.name == "h"
