"""An engine in virtual time, as its tests speak of it."""

from __future__ import annotations

from scheduler.core.engine import Decision, Engine
from scheduler.core.profile import Profile
from scheduler.core.queue import Place
from tests.builders import Clock, NodeBuilder, PodBuilder, make_engine, make_node, make_pod


class Cluster:
    """An engine in virtual time."""

    def __init__(self, *profiles: Profile) -> None:
        self.clock = Clock()
        self.engine: Engine = make_engine(self.clock, *profiles)

    def nodes(self, *nodes: NodeBuilder) -> None:
        for node in nodes:
            self.engine.upsert_node(node.obj())

    def pods(self, *pods: PodBuilder) -> None:
        for pod in pods:
            self.engine.upsert_pod(pod.obj())

    def decide(self) -> Decision:
        decision = self.engine.decide()
        assert decision is not None
        return decision

    def wakes(self) -> bool:
        """Whether a pod is due now."""
        self.clock.advance(60)
        decision = self.engine.decide()
        return decision is not None

    @property
    def places(self) -> dict[str, Place]:
        return {queued.info.pod.metadata.name: queued.place for queued in self.engine.queue}


SMALL = "default/small"


def small_pod(name: str = "small") -> PodBuilder:
    return make_pod(name).req(cpu="1", memory="1Gi")


def full_node(name: str = "n") -> NodeBuilder:
    return make_node(name).allocatable(cpu="500m")
