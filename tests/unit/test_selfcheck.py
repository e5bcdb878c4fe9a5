"""The comparison of our picture with the API server's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.engine import Engine
from scheduler.kube import selfcheck
from scheduler.kube.selfcheck import compare_with_api
from tests.builders import make_engine, make_node, make_pod
from tests.unit.answers import client_of

NODES = [make_node("n"), make_node("m")]
PODS = [
    make_pod("waits"),
    make_pod("runs").on("n"),
    make_pod("of others").scheduler("somebody-else"),
    make_pod("ends").terminating(),
]


@pytest.fixture(autouse=True)
def _second_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "SECOND_LOOK_S", 0.0)


async def check(
    folder: Path, engine: Engine, *looks: tuple[list[Any], list[Any]]
) -> tuple[dict[str, Any], list[str]]:
    """The result, and the selectors pods were asked with. looks: nodes and pods at each look."""
    remaining, selectors = list(looks), []

    def nodes(request: Any, body: Any) -> Any:
        return {"items": [node.manifest() for node in remaining[0][0]]}

    def pods(request: Any, body: Any) -> Any:
        selectors.append(request.query["fieldSelector"])
        look = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return {"items": [pod.manifest() for pod in look[1]]}

    async with client_of(folder, {"GET /api/v1/nodes": nodes, "GET /api/v1/pods": pods}) as client:
        return await compare_with_api(client, engine, pod_selector="status.phase!=Failed"), selectors


def engine_with(nodes: list[Any], pods: list[Any]) -> Engine:
    engine = make_engine()
    for node in nodes:
        engine.upsert_node(node.obj())
    for pod in pods:
        engine.upsert_pod(pod.obj())
    return engine


async def test_no_difference_needs_no_second_look(tmp_path: Path) -> None:
    result, selectors = await check(tmp_path, engine_with(NODES, PODS), (NODES, PODS))
    assert result == {"consistent": True, "nodes": 2, "pods": 4, "differences": []}
    assert selectors == ["status.phase!=Failed"] * len(selectors)


def _with_assumed(engine: Engine) -> None:
    engine.upsert_node(make_node("n").obj())
    engine.upsert_pod(make_pod("assumed").obj())
    assert engine.decide() is not None


async def test_assumed_pods_are_no_difference(tmp_path: Path) -> None:
    engine = make_engine()
    _with_assumed(engine)
    result, _ = await check(tmp_path, engine, ([make_node("n")], [make_pod("assumed")]))
    assert result["differences"] == []


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (lambda e: e.remove_node("m"), "node m is not known here"),
        (lambda e: e.upsert_node(make_node("x").obj()), "node x does not exist"),
        (lambda e: e.remove_pod("uid-of-default/runs"), "pod default/runs is on node n, here on none"),
        (
            lambda e: e.upsert_pod(make_pod("runs").on("m").obj()),
            "pod default/runs is on node n, here on m",
        ),
        (
            lambda e: e.upsert_pod(make_pod("waits").on("m").obj()),
            "pod default/waits has no node, here it is on m",
        ),
        (lambda e: e.remove_pod("uid-of-default/waits"), "pod default/waits waits, but not in the queue"),
        (
            lambda e: e.upsert_pod(make_pod("ghost").on("n").obj()),
            "pod default/ghost does not exist, here it is on n",
        ),
        (
            lambda e: e.upsert_pod(make_pod("ghost").obj()),
            "pod default/ghost does not exist, here it waits",
        ),
    ],
)
async def test_lasting_differences_are_named(
    spoil: Callable[[Engine], object], difference: str, tmp_path: Path
) -> None:
    engine = engine_with(NODES, PODS)
    spoil(engine)
    result, _ = await check(tmp_path, engine, (NODES, PODS))
    assert result == {"consistent": False, "nodes": 2, "pods": 4, "differences": [difference]}


async def test_what_the_watch_has_not_brought_yet_does_not_count(tmp_path: Path) -> None:
    behind = ([*NODES, make_node("x")], [*PODS, make_pod("new")])
    result, selectors = await check(tmp_path, engine_with(NODES, PODS), behind, (NODES, PODS))
    assert result["consistent"]
    assert len(selectors) == 2
