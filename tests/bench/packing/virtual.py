"""Replays jobs through the scheduler's own engine in virtual time, with arrivals and departures.

A decision takes no time and a bind neither: what is measured is what waiting for members and for room
costs, not how fast a scheduler is. The members of a gang come apart, as controllers create them; a job
runs from the moment all its pods are bound, and then all of them leave.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec

from scheduler.api import Container, Node, NodeStatus, ObjectMeta, Pod, PodSpec, ResourceRequirements
from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.cost import GangCost
from scheduler.core.gangs.gang import HOLD_TIMEOUT, MIN_COUNT, STRATEGY
from scheduler.core.gangs.ref import GANG
from scheduler.core.queue import SchedulingQueue
from tests.bench.packing.traces import Job, Request
from tests.builders import SCHEDULER_NAME, make_profile

SINGLES = "no gangs"
"""Not a strategy: every pod for itself."""
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_PATIENCE_S = 60.0
"""So long after the last arrival or departure something may still happen by itself: backoffs end."""
_PATIENCE_WITH_HOLDS_S = 7200.0
"""The same, if there are holds, which time out."""
_STALLED = 100_000
"""Turns without progress in time after which something must be wrong."""


@dataclass(frozen=True)
class Scenario:
    """Jobs, and the nodes that they are to run on."""

    name: str
    jobs: Sequence[Job]
    nodes: Sequence[tuple[int, Request]]
    """(how many, allocatable)."""
    apart_s: float
    """Each member of a gang comes so much later than its job is submitted, on average (exponential)."""
    hold_timeout: str
    flush_after_s: float
    """The queue's safety net, which would do most of the work of a replay of months."""
    seed: int = 1

    @property
    def memory_bytes(self) -> int:
        return sum(how_many * request[1] for how_many, request in self.nodes)


@dataclass
class Outcome:
    """What a replay has come to. Times in seconds, of jobs and pods that were bound."""

    strategy: str
    cost: GangCost
    gang_waits_s: list[float] = field(default_factory=list)
    """From the arrival of a gang's last member until all are bound."""
    pod_waits_s: list[float] = field(default_factory=list)
    """Of all pods, from their own arrival."""
    single_waits_s: list[float] = field(default_factory=list)
    """Of pods that are a whole job."""
    unfinished: int = 0
    """Jobs that never had all their pods bound."""
    idle_byte_seconds: float = 0.0
    """Memory of bound pods that waited for others of their job, times how long."""
    work_byte_seconds: float = 0.0
    """Memory of jobs that ran, times how long."""
    ended_s: float = 0.0
    """When the last pod came or the last job ended."""


class _Running:
    """A job on its way."""

    __slots__ = ("bound", "job", "last_arrival", "number")

    def __init__(self, number: int, job: Job) -> None:
        self.number, self.job = number, job
        self.last_arrival = 0.0
        self.bound: list[tuple[float, int]] = []
        """(when, memory_bytes) of its bound pods."""

    def uid(self, index: int) -> str:
        return f"{self.number}-{index}"


class Replay:
    """One scenario under one strategy."""

    def __init__(self, scenario: Scenario, strategy: str) -> None:
        self._scenario, self._strategy = scenario, strategy
        self.now = 0.0
        queue = SchedulingQueue(lambda: self.now, flush_after_s=scenario.flush_after_s)
        self.engine = Engine([make_profile()], clock=lambda: self.now, queue=queue)
        for kind, (how_many, request) in enumerate(scenario.nodes):
            for i in range(how_many):
                self.engine.upsert_node(_node(f"node-{kind}-{i}", request))
        self.outcome = Outcome(strategy, self.engine.gangs.cost)
        self._waiting: dict[str, tuple[_Running, float]] = {}
        """uid → its job, and since when it waits."""
        self._ends: list[tuple[float, int, _Running]] = []

    def run(self) -> Outcome:
        """Plays all to its end."""
        arrivals = self._arrivals()
        arrivals.reverse()  # the next one is the last
        stalled, changes_until = 0, 0.0
        patience_s = _PATIENCE_S if self._strategy == SINGLES else _PATIENCE_WITH_HOLDS_S
        while arrivals or self._ends or self._waiting:
            before = self.now
            times = [arrivals[-1][0]] if arrivals else []
            times += [self._ends[0][0]] if self._ends else []
            due = self.engine.next_due()
            if not times and (due is None or due > changes_until + patience_s):
                break
            self.now = max(before, min([*times, *([due] if due is not None else [])]))
            stalled = stalled + 1 if self.now == before else 0
            if stalled > _STALLED:
                raise RuntimeError(f"the engine wants to be asked at {self.now} again and again")
            while arrivals and arrivals[-1][0] <= self.now:
                self._arrive(*arrivals.pop())
            while self._ends and self._ends[0][0] <= self.now:
                self._end(heapq.heappop(self._ends)[2])
            if times:
                changes_until = self.now
            self._decide()
        self._close(changes_until)
        return self.outcome

    # ---- internals

    def _arrivals(self) -> list[tuple[float, int, int, _Running]]:
        """(when, a number that breaks ties, which member, its job), in order of time."""
        rng, order, arrivals = random.Random(self._scenario.seed), count(), []
        for number, job in enumerate(self._scenario.jobs):
            running, alone = _Running(number, job), len(job.pods) == 1
            for index in range(len(job.pods)):
                late_s = 0.0 if alone else rng.expovariate(1 / self._scenario.apart_s)
                at = math.ceil(job.submitted_s + late_s)  # controllers create pods in batches
                arrivals.append((at, next(order), index, running))
        return sorted(arrivals, key=lambda arrival: arrival[:2])

    def _arrive(self, at: float, _: int, index: int, running: _Running) -> None:
        running.last_arrival = at
        uid = running.uid(index)
        self._waiting[uid] = running, at
        self.engine.upsert_pod(self._pod(uid, index, running))

    def _decide(self) -> None:
        engine = self.engine
        while (decision := engine.decide()) is not None or engine.gangs.planning:
            if decision is None or decision.verdict is not Verdict.PLACED:
                continue
            uid, pod = decision.pod.uid, decision.pod.pod
            engine.bind_confirmed(uid)
            spec = msgspec.structs.replace(pod.spec, node_name=decision.node)
            engine.upsert_pod(msgspec.structs.replace(pod, spec=spec))
            running, since = self._waiting.pop(uid)
            running.bound.append((self.now, decision.pod.requests["memory"]))
            self.outcome.pod_waits_s.append(self.now - since)
            if len(running.bound) == len(running.job.pods):
                self._begin(running)

    def _begin(self, running: _Running) -> None:
        """All its pods are bound."""
        job, outcome = running.job, self.outcome
        waits_s = outcome.single_waits_s if len(job.pods) == 1 else outcome.gang_waits_s
        waits_s.append(self.now - running.last_arrival)
        outcome.work_byte_seconds += sum(memory for _, memory in job.pods) * job.duration_s
        self._count_idle(running, self.now)
        heapq.heappush(self._ends, (self.now + job.duration_s, running.number, running))

    def _end(self, running: _Running) -> None:
        for index in range(len(running.job.pods)):
            self.engine.remove_pod(running.uid(index))

    def _close(self, ended_s: float) -> None:
        """Nothing has happened since, and nothing more can."""
        self.engine.gangs.accounts.settle()
        stuck = {running.number: running for running, _ in self._waiting.values()}
        self.outcome.unfinished, self.outcome.ended_s = len(stuck), ended_s
        for running in stuck.values():
            self._count_idle(running, ended_s)

    def _count_idle(self, running: _Running, until: float) -> None:
        """Its bound pods have waited for the others."""
        idle = sum(memory * max(until - bound_at, 0.0) for bound_at, memory in running.bound)
        self.outcome.idle_byte_seconds += idle

    def _pod(self, uid: str, index: int, running: _Running) -> Pod:
        annotations: dict[str, str] | None = None
        if self._strategy != SINGLES and len(running.job.pods) > 1:
            annotations = {
                GANG: str(running.number),
                MIN_COUNT: str(len(running.job.pods)),
                STRATEGY: self._strategy,
                HOLD_TIMEOUT: self._scenario.hold_timeout,
            }
        cpu_milli, memory_bytes = running.job.pods[index]
        created = (_EPOCH + timedelta(seconds=int(self.now))).strftime("%Y-%m-%dT%H:%M:%SZ")
        requests = {"cpu": f"{cpu_milli}m", "memory": str(memory_bytes)}
        container = Container(name="c", resources=ResourceRequirements(requests=requests))
        return Pod(
            metadata=ObjectMeta(
                name=uid, namespace="default", uid=uid, creation_timestamp=created, annotations=annotations
            ),
            spec=PodSpec(scheduler_name=SCHEDULER_NAME, containers=[container]),
        )


def _node(name: str, request: Request) -> Node:
    cpu_milli, memory_bytes = request
    allocatable = {"cpu": f"{cpu_milli}m", "memory": str(memory_bytes), "pods": str(2**31 - 1)}
    return Node(metadata=ObjectMeta(name=name), status=NodeStatus(allocatable=allocatable))
