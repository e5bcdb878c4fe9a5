"""What is looked at now and then is bounded and can't fail, whatever gangs ask for and plugins do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scheduler.core.cycle import Cycle
from scheduler.core.gangs.gang import GangPolicy
from scheduler.core.gangs.shortage import LOOK_EVERY_S
from tests.builders import Clock, make_node
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


def test_a_plugin_that_fails_when_nodes_are_to_be_kept_is_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = cluster("1Gi", clock=(clock := Clock()))
    for name in "ab":
        engine.upsert_pod(member(name).obj())
    decide_all(engine)

    def fails(*args: Any) -> Any:
        raise RuntimeError("of a plugin's")

    monkeypatch.setattr(Cycle, "explain", fails)
    clock.advance(GangPolicy().starvation_after_s)
    assert engine.decide() is None
    assert not engine.gangs.reservations.nodes


def test_looks_at_a_gang_of_many_sizes_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = cluster("1Gi", clock=(clock := Clock()))
    for i in range(60):
        engine.upsert_pod(member(f"m{i}", f"{1024 + i}Mi", **{"min-count": "60"}).obj())
    decide_all(engine)
    asked: list[object] = []

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            asked.append(function)
            return function(*args, **more)

        return counted

    monkeypatch.setattr(Cycle, "rejections", counting(Cycle.rejections))
    monkeypatch.setattr(np, "minimum", counting(np.minimum))
    clock.advance(1.1)
    engine.gangs.expire()
    assert 0 < len(asked) < 60


def test_a_gang_of_many_sizes_is_tried_when_there_is_room_for_it() -> None:
    engine = cluster("50Gi", clock=(clock := Clock()))
    for i in range(40):
        engine.upsert_pod(member(f"m{i}", f"{2048 + i}Mi", **{"min-count": "40"}).obj())
    assert not placed(decide_all(engine))
    engine.upsert_node(make_node("more").allocatable(memory="64Gi").obj())
    clock.advance(LOOK_EVERY_S)
    assert len(placed(decide_all(engine))) == 40
