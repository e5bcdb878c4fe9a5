"""Gangs are counted in the states that they are shown in."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest

from scheduler.core.engine import Engine
from scheduler.core.gangs.census import UNKNOWN_STRATEGY, census, held_memory_bytes
from scheduler.core.gangs.view import views
from tests.unit.core.gangs.words import cluster, decide_all, member


def counted(engine: Engine) -> dict[tuple[str, str], int]:
    """Checked against what each gang is shown as."""
    counts = {(state.value, strategy): number for (state, strategy), number in census(engine).items()}
    shown = views(engine, [gang.ref for gang in engine.gangs.book], ())
    assert counts == Counter((view.state.value, view.strategy or UNKNOWN_STRATEGY) for view in shown)
    return counts


def test_from_incomplete_to_bound() -> None:
    engine = cluster("4Gi")
    assert counted(engine) == {}
    engine.upsert_pod(member("a").obj())
    assert counted(engine) == {("incomplete", "atomic"): 1}
    engine.upsert_pod(member("b").obj())
    assert counted(engine) == {("waiting", "atomic"): 1}
    decide_all(engine)
    assert counted(engine) == {("committing", "atomic"): 1}
    engine.bind_confirmed("uid-of-default/a")
    engine.upsert_pod(member("a").on("n0").obj())
    assert counted(engine) == {("committing", "atomic"): 1}
    engine.bind_confirmed("uid-of-default/b")
    engine.upsert_pod(member("b").on("n0").obj())
    assert counted(engine) == {("bound", "atomic"): 1}
    engine.upsert_pod(member("b").on("n0").terminating().obj())
    assert counted(engine) == {("incomplete", "atomic"): 1}


@pytest.mark.parametrize(("strategy", "state"), [("hoarding", "holding"), ("optimistic", "claimed")])
def test_places_kept_in_mind(strategy: str, state: str) -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("a", strategy=strategy).obj())
    engine.upsert_pod(member("x", gang="wrong", strategy="greedy").obj())
    engine.upsert_pod(member("y", "9Gi", gang="large").obj())
    engine.upsert_pod(member("z", "9Gi", gang="large").obj())
    decide_all(engine)
    assert counted(engine) == {
        (state, strategy): 1,
        ("incomplete", UNKNOWN_STRATEGY): 1,
        ("waiting", "atomic"): 1,
    }
    assert held_memory_bytes(engine) == ({"hoarding": 1 << 30} if strategy == "hoarding" else {})


def test_while_one_is_planned() -> None:
    engine = cluster("4Gi", clock=count().__next__)  # each look at the clock takes longer than a slice
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    assert engine.decide() is None
    assert counted(engine) == {("planning", "atomic"): 1}
