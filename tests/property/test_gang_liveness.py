"""That gangs get on in bounded time, by the engine alone and in virtual time, so that bounds are exact.

Twenty gangs on a cluster that fits two: their first halves come first, so that under `hoarding` they hold
all there is, each lacking what others hold. And a gang of half the cluster among single pods that take
every place that comes up. The same on real API servers: tests/bench/gang_liveness.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.engine import Verdict
from scheduler.core.gangs.gang import GangPolicy, Strategy
from scheduler.core.gangs.reservation import LOOK_AGAIN_S, RETRY_S
from scheduler.core.gangs.shortage import LOOK_EVERY_S
from scheduler.core.queue import MAX_BACKOFF_S
from tests.builders import Clock, PodBuilder, make_engine, make_node, make_pod, make_profile

STRATEGIES = [strategy.value for strategy in Strategy]
STARVATION_AFTER_S = GangPolicy().starvation_after_s
TICK_S = 0.25
RESOLVED_WITHIN_S = LOOK_EVERY_S + 2 * TICK_S
"""Far below the backoffs that gangs have reached by then."""


@dataclass
class Cluster:
    """Nodes of `slots` GiB, pods of one GiB; what is decided is bound at once."""

    nodes: int
    slots: int
    clock: Clock = field(default_factory=Clock)
    pods: dict[str, PodBuilder] = field(default_factory=dict)
    bound_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        profile = make_profile(gangs={"maxHeldFraction": {"namespace": 1, "cluster": 1}})
        self.engine = make_engine(self.clock, profile)
        for i in range(self.nodes):
            node = make_node(f"n{i}").allocatable(memory=f"{self.slots}Gi", cpu="1000", pods="1000")
            self.engine.upsert_node(node.obj())

    def add(self, name: str, gang: str = "", strategy: str = "", needs: int = 0) -> None:
        # Created long after each other, so that seniority is the order of creation.
        created = (
            f"2026-01-01T{len(self.pods) // 3600:02}:{len(self.pods) // 60 % 60:02}:{len(self.pods) % 60:02}Z"
        )
        pod = make_pod(name).created(created).req(memory="1Gi")
        if gang:
            options = {"gang": gang, "min-count": str(needs), "strategy": strategy, "hold-timeout": "1h"}
            pod.annotations({f"wholepod.io/{key}": value for key, value in options.items()})
        self.pods[name] = pod
        self.engine.upsert_pod(pod.obj())

    def remove(self, name: str) -> None:
        self.bound_at.pop(name, None)
        self.engine.remove_pod(f"uid-of-default/{name}")

    def decide(self) -> None:
        while (decision := self.engine.decide()) is not None or self.engine.gangs.planning:
            if decision is not None and decision.verdict is Verdict.PLACED:
                assert decision.node is not None
                name = decision.pod.pod.metadata.name
                self.engine.bind_confirmed(decision.pod.uid)
                self.engine.upsert_pod(self.pods[name].on(decision.node).obj())
                self.bound_at[name] = self.clock.now

    def tick(self) -> None:
        self.clock.advance(TICK_S)
        self.decide()


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 6), run_s=st.sampled_from([1.0, 7.0, 60.0]))
def test_gangs_that_block_each_other_all_complete(strategy: str, seed: int, size: int, run_s: float) -> None:
    cluster, rng = Cluster(nodes=2, slots=size), random.Random(seed)
    gangs = {f"g{i:02}": [f"g{i:02}-{k}" for k in range(size)] for i in range(20)}
    first = [(gang, pod) for gang, pods in gangs.items() for pod in pods[: (size + 1) // 2]]
    second = [(gang, pod) for gang, pods in gangs.items() for pod in pods[(size + 1) // 2 :]]
    for half in (first, second):
        rng.shuffle(half)
        for gang, pod in half:
            cluster.add(pod, gang, strategy, needs=size)
            cluster.decide()
    waiting, running = set(gangs), dict[str, float]()
    room_since = cluster.clock.now
    while waiting:
        cluster.tick()
        now = cluster.clock.now
        for gang in sorted(waiting):
            bound = sum(pod in cluster.bound_at for pod in gangs[gang])
            assert bound in (0, size)
            if bound:
                waiting.discard(gang)
                running[gang] = now + run_s
                room_since = now
        for gang, until in list(running.items()):
            if until <= now:
                del running[gang]
                room_since = now
                for pod in gangs[gang]:
                    cluster.remove(pod)
        assert len(running) == 2 or not waiting or now - room_since <= RESOLVED_WITHIN_S, waiting
    if strategy == "hoarding":
        assert cluster.engine.gangs.cost.deadlocks > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_large_gang_does_not_starve_among_single_pods(strategy: str, seed: int) -> None:
    cluster, rng, run_s = Cluster(nodes=10, slots=8), random.Random(seed), 30.0
    singles = 0
    ends: dict[str, float] = {}
    members = [f"m{i}" for i in range(40)]

    def live() -> None:
        """Singles end, and others are there to take their places at once."""
        nonlocal singles
        for name, end in list(ends.items()):
            if name in cluster.bound_at and end <= cluster.clock.now:
                del ends[name]
                cluster.remove(name)
        waiting = sum(name not in cluster.bound_at for name in ends)
        for _ in range(8 - waiting):
            singles += 1
            ends[f"s{singles}"] = cluster.clock.now + rng.uniform(0.5, 1.0) * run_s
            cluster.add(f"s{singles}")
        cluster.tick()

    for _ in range(200):
        live()
    assert len(cluster.bound_at) > 60  # of 80 places
    for name in members:
        cluster.add(name, "g", strategy, needs=len(members))
    began = cluster.clock.now
    within_s = STARVATION_AFTER_S + RETRY_S + run_s + MAX_BACKOFF_S + LOOK_AGAIN_S
    while not all(name in cluster.bound_at for name in members):
        live()
        assert cluster.clock.now - began <= within_s
    assert cluster.clock.now - began > STARVATION_AFTER_S
    # And the stream flows on.
    before = singles
    for _ in range(200):
        live()
    assert singles > before
    assert cluster.engine.gangs.reservations.nodes == frozenset()
