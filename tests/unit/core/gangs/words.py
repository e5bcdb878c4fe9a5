"""Members, clusters and decisions, as the tests of gangs speak of them."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.core.engine import Decision, Engine, Verdict
from tests.builders import PodBuilder, make_engine, make_node, make_pod


def member(name: str, memory: str = "1Gi", /, **more: str) -> PodBuilder:
    options = {"gang": "g", "min-count": "2", **more}
    annotations = {f"wholepod.io/{key}": value for key, value in options.items()}
    return make_pod().named(name).annotations(annotations).req(memory=memory)


def cluster(*memory: str, clock: Callable[[], float] | None = None) -> Engine:
    engine = make_engine(clock)
    for i, amount in enumerate(memory):
        node = make_node(f"n{i}").labels({"kubernetes.io/hostname": f"n{i}"}).allocatable(memory=amount)
        engine.upsert_node(node.obj())
    return engine


def decide_all(engine: Engine) -> list[Decision]:
    decisions = []
    while (decision := engine.decide()) is not None or engine.gangs.planning:
        if decision is not None:
            decisions.append(decision)
    return decisions


def placed(decisions: list[Decision]) -> dict[str, str | None]:
    return {d.pod.pod.metadata.name: d.node for d in decisions if d.verdict is Verdict.PLACED}
