"""Gangs that have others evicted, and gangs that are evicted."""

from __future__ import annotations

import pytest

from scheduler.api import ObjectMeta
from scheduler.api_objects import (
    AllDisruptionMode,
    DisruptionMode,
    GangPolicy,
    PodGroup,
    PodGroupSpec,
    SchedulingPolicy,
)
from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.queue import Place
from tests.builders import Clock, PodBuilder, make_pod
from tests.unit.core.evicting import budget
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


def low(name: str, node: str, memory: str = "1Gi", priority: int = 0) -> PodBuilder:
    return make_pod(name).req(memory=memory).priority(priority).on(node)


def urgent(name: str, memory: str = "1Gi", /, **more: str) -> PodBuilder:
    return member(name, memory, **more).priority(10)


def native(name: str, group: str, memory: str = "1Gi", priority: int = 0) -> PodBuilder:
    pod = make_pod(name).req(memory=memory).priority(priority)
    return pod.spec(schedulingGroup={"podGroupName": group})


def pod_group(name: str, *, min_count: int = 2, whole: bool = False, priority: int | None = None) -> PodGroup:
    return PodGroup(
        metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-of-{name}"),
        spec=PodGroupSpec(
            scheduling_policy=SchedulingPolicy(gang=GangPolicy(min_count=min_count)),
            disruption_mode=DisruptionMode(all=AllDisruptionMode() if whole else None),
            priority=priority,
        ),
    )


def show(engine: Engine, *pods: PodBuilder) -> None:
    for pod in pods:
        engine.upsert_pod(pod.obj())


def uid(name: str) -> str:
    return f"uid-of-default/{name}"


def names(decision: Decision) -> set[str]:
    assert decision.preemption is not None, decision.message
    return {victim.pod.metadata.name for victim in decision.preemption.victims}


def preempting(decisions: list[Decision]) -> dict[str, str | None]:
    """Members that wait for room → where."""
    return {d.pod.pod.metadata.name: d.nominated_node for d in decisions if d.preemption is not None}


def is_as_shown(engine: Engine) -> None:
    """Nobody is lifted, and the table counts everybody once."""
    assert not any(p.lifted for p in engine.state.pods.values())
    nodes = engine.state.nodes
    for name, row in nodes.row_of.items():
        pods = engine.state.pods_on(name)
        assert nodes.pod_count[row] == len(pods)
        assert nodes.requested[1, row] == sum(p.info.usage.get("memory", 0) for p in pods)


@pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
def test_a_gang_takes_the_place_of_single_pods(strategy: str) -> None:
    engine = cluster("1Gi", "1Gi")
    show(engine, low("a", "n0"), low("b", "n1"))
    show(engine, urgent("x", strategy=strategy), urgent("y", strategy=strategy))
    decisions = decide_all(engine)
    waits = preempting(decisions)
    assert sorted(waits) == ["x", "y"]
    assert sorted(str(node) for node in waits.values()) == ["n0", "n1"]
    first, second = (d for d in decisions if d.preemption is not None)
    assert first.preemption is second.preemption
    assert names(first) == {"a", "b"}
    assert first.verdict is Verdict.UNSCHEDULABLE
    assert "pod group preemption: found a placement for podgroup, preempting 2 victims" in first.message
    is_as_shown(engine)
    assert list(engine.gangs.hoarding.holdings) == []

    engine.preemption_done(uid("x"))
    assert decide_all(engine) == []  # it waits
    engine.remove_pod(uid("a"))
    assert placed(decide_all(engine)) == {}
    engine.remove_pod(uid("b"))
    assert sorted(placed(decide_all(engine))) == ["x", "y"]
