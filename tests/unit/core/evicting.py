"""A cluster in virtual time in which pods preempt others, as tests speak of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scheduler.api import LabelSelector, ObjectMeta
from scheduler.api_objects import LabelSelectorSpec, PodDisruptionBudget, PodDisruptionBudgetStatus
from scheduler.core.engine import Decision
from scheduler.core.queue import Place
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod, make_profile
from tests.unit.core import deciding

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
FOUND = "found a potential placement for pod on node"


class Cluster(deciding.Cluster):
    """An engine in virtual time, and the API objects that it was shown."""

    def __init__(self, **profile: Any) -> None:
        super().__init__(make_profile(**profile))

    def decide_later(self) -> Decision | None:
        self.clock.advance(60)
        return self.engine.decide()

    def gone(self, *names: str) -> None:
        for name in names:
            self.engine.remove_pod(uid(name))

    def place_of(self, name: str) -> Place | None:
        queued = self.engine.queue.get(uid(name))
        return queued.place if queued is not None else None

    def nominated_to(self, name: str) -> str | None:
        return self.engine.state.nominations.node_of(uid(name))


def uid(name: str) -> str:
    return f"uid-of-default/{name}"


def node(name: str = "n") -> NodeBuilder:
    return make_node(name).allocatable(cpu="4")


def low(name: str, on: str = "n", cpu: str = "2", priority: int = 0) -> PodBuilder:
    return make_pod(name).req(cpu=cpu).priority(priority).on(on)


def high(name: str = "high", cpu: str = "2", priority: int = 10) -> PodBuilder:
    return make_pod(name).req(cpu=cpu).priority(priority)


def victims(decision: Decision) -> list[str]:
    assert decision.preemption is not None, decision.message
    return [victim.pod.metadata.name for victim in decision.preemption.victims]


def budget(allowed: int, *, disrupted: Iterable[str] = (), **labels: str) -> PodDisruptionBudget:
    return PodDisruptionBudget(
        metadata=ObjectMeta(name="budget", namespace="default"),
        spec=LabelSelectorSpec(LabelSelector(match_labels=labels)),
        status=PodDisruptionBudgetStatus(allowed, dict.fromkeys(disrupted, "2026-01-01T00:00:00Z")),
    )


def preempting() -> Cluster:
    """One preemption under way: `high` for `a` on `n`."""
    cluster = Cluster()
    cluster.nodes(node())
    cluster.pods(low("a", cpu="4"), high())
    assert victims(cluster.decide()) == ["a"]
    return cluster
