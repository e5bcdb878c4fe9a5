"""Everything the scheduler writes: binds, pods' volumes, deletions of victims, status patches, events.

**Order.** What decisions wait for takes turns: binds, pods' volumes, deletions, and the nominations that
come before these; and among binds those of single pods and of gangs' members. With a strict order, one
urgent pod would wait for its victims until no bind of thousands of others is left. After them come other
status patches, then events. The token of the rate limit is taken first and the work chosen after it, so
that a bind never waits behind an event. Under pressure the end is shed: events and patches wait in bounded
queues, and what finds its queue full is dropped and counted. That is the newest on purpose: a pod that
stays pending is judged again and then says it again, whereas one that is dropped from the front has waited
for nothing. The others are never shed; assumed room bounds the number of binds and of pods whose volumes
are written, and each preemptor waits for its victims.

**Workers** are a fixed set of tasks that pull from deques: a task per request would double the
cost of a request.

Two modules hold what is special: `steps` how a write gets its definite outcome, `status_patches` what
keeps a pod's patches from racing its bind.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import structlog

from scheduler.kube.besteffort import TIMEOUT_S, BestEffort, Job
from scheduler.kube.binding import Binding, BindOutcome
from scheduler.kube.client import KubeClient
from scheduler.kube.deletion import Deletion, DeletionOutcome
from scheduler.kube.payloads import BindRequest, DeleteRequest, PodEvent, StatusPatch, hostname, utc_now
from scheduler.kube.pool import Lane, WorkerPool
from scheduler.kube.ratelimit import TokenBucket
from scheduler.kube.status_patches import StatusPatches, Then
from scheduler.kube.steps import StepLane
from scheduler.kube.volume_writes import VolumeOutcome, VolumeRequest, VolumeWrites

log = structlog.get_logger(__name__)

BIND, VOLUMES, DELETE, STATUS, EVENT = "bind", "volumes", "delete", "status", "event"
# A pod that stays pending says the same at every attempt. Half of the time that the API server keeps
# an event (--event-ttl, 1 h), so that the pod's only event is renewed when it is gone.
_EVENT_REMEMBERED_S = 1800.0
_EVENTS_REMEMBERED = 20_000


class WriterLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Rate (requests a second; burst), requests in flight, and how much may wait.

    All but binds may take half of the places in flight each, so that a bind finds one.
    """

    qps: float = 50.0
    burst: int = 100
    in_flight: int = 32
    queued_patches: int = 10_000
    queued_events: int = 20_000


class Drained(NamedTuple):
    """What was left when `drain` returned."""

    undecided: Sequence[BindRequest]
    """Binds whose outcome nobody knows."""
    unsent: Sequence[BindRequest]
    """Binds that were given up before they reached the API server."""
    events: int
    """Events not written."""


class Writer:
    """Start it with `run` in a task; the other methods return at once.

    `on_bound(uid, outcome)` is called once for each bind, `on_volumes(uid, outcome)` for each pod's volumes,
    `on_deleted(uid, outcome)` for each deletion, that was neither cancelled nor left over by `drain`.
    `on_drop(class, why)` and `on_retry(class)` count; the classes are bind, volumes, delete, status and
    event. `leads` is asked right before each request of the first three: a process that was stopped for a
    while finds its queue as it left it, but no longer its lease.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        on_bound: Callable[[str, BindOutcome], None],
        on_volumes: Callable[[str, VolumeOutcome], None] = lambda uid, outcome: None,
        on_deleted: Callable[[str, DeletionOutcome], None] = lambda uid, outcome: None,
        leads: Callable[[], bool] = lambda: True,
        limits: WriterLimits | None = None,
        on_drop: Callable[[str, str], None] = lambda work, why: None,
        on_retry: Callable[[str], None] = lambda work: None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._on_bound, self._on_deleted = on_bound, on_deleted
        self._limits = limits or WriterLimits()
        self._on_drop = on_drop
        self._rng = rng or random.Random()
        self._clock = clock
        self._hostname = hostname()
        half = max(1, self._limits.in_flight // 2)
        bucket = TokenBucket(self._limits.qps, self._limits.burst, clock=clock)
        self._binds: StepLane[BindRequest, BindOutcome] = StepLane(
            client,
            limit=self._limits.in_flight,
            bucket=bucket,
            wake=self._wake,
            may_write=leads,
            on_outcome=self._bound,
            on_retry=lambda: on_retry(BIND),
            in_second_line=lambda request: request.annotations is not None,
        )
        self._volumes: StepLane[VolumeRequest, VolumeOutcome] = StepLane(
            client,
            limit=half,
            bucket=bucket,
            wake=self._wake,
            may_write=leads,
            on_outcome=on_volumes,
            on_retry=lambda: on_retry(VOLUMES),
        )
        self._deletions: StepLane[DeleteRequest, DeletionOutcome] = StepLane(
            client,
            limit=half,
            bucket=bucket,
            wake=self._wake,
            may_write=leads,
            on_outcome=self._deleted,
            on_retry=lambda: on_retry(DELETE),
        )
        self._best_effort = BestEffort(
            bucket=bucket, on_drop=on_drop, on_retry=on_retry, rng=self._rng, clock=clock
        )
        self._patches = StatusPatches(
            client,
            self._best_effort,
            work=STATUS,
            limit=half,
            queue_limit=self._limits.queued_patches,
            wake=self._wake,
            on_drop=on_drop,
            on_free=self._patch_done,
        )
        self._events: Lane[Job[PodEvent]] = Lane(self._do_event, limit=half)
        self._event_retries = 0
        self._events_written: dict[str, float] = {}  # name → when, oldest first
        self._pool = WorkerPool(
            (self._binds.lane, self._volumes.lane, self._patches.urgent, self._deletions.lane),
            (self._patches.lane, self._events),
            workers=self._limits.in_flight,
            bucket=bucket,
        )
        self._draining = False
        self._progress = asyncio.Event()

    def bind(self, request: BindRequest) -> None:
        """Raises ValueError for a pod whose bind is under way, RuntimeError once draining."""
        if self._draining:
            raise RuntimeError("the writer is draining")
        self._binds.add(Binding(request, rng=self._rng, clock=self._clock))
        self._patches.drop(request.uid)
        if not self._patches.under_way(request.uid):
            self._binds.start(request.uid)

    def write_volumes(self, request: VolumeRequest) -> None:
        """Raises ValueError for a pod whose volumes are being written; ignored once draining."""
        if not self._draining:
            self._volumes.add(VolumeWrites(request, rng=self._rng))
            self._volumes.start(request.uid)

    def cancel_volumes(self, uid: str) -> bool:
        """As `cancel`, of the writes about a pod's volumes."""
        return self._volumes.cancel(uid)

    def delete(self, request: DeleteRequest) -> None:
        """Raises ValueError for a pod whose deletion is under way; ignored once draining."""
        if not self._draining:
            self._deletions.add(Deletion(request, rng=self._rng))
            self._deletions.start(request.uid)

    def cancel(self, uid: str) -> bool:
        """Forget a bind or deletion: its pod is gone, or bound, or we lead no more. False if there is none.

        A request under way is not called back; its outcome is not reported.
        """
        self._progress.set()
        return self._binds.cancel(uid) or self._deletions.cancel(uid)

    def cancel_unsent(self, uid: str) -> bool:
        """The same, but only if nothing of it has been sent yet."""
        return not (self._binds.sent(uid) or self._deletions.sent(uid)) and self.cancel(uid)

    def patch_status(self, patch: StatusPatch, then: Then | None = None) -> None:
        """Takes the place of the pod's waiting patch; ignored while the pod is being bound, or once draining.

        `then` is called once, when the patch is written or given up.
        """
        if patch.uid not in self._binds and not self._draining:
            self._patches.put(patch, then)
        elif then is not None:
            then()

    def post_event(self, event: PodEvent) -> None:
        """An event that exists already counts as written; one that we wrote lately is not even sent."""
        written_at = self._events_written.get(event.event_name, -math.inf)
        if self._clock() < written_at + _EVENT_REMEMBERED_S:
            return
        if len(self._events.waiting) >= self._limits.queued_events:
            self._on_drop(EVENT, "queue_full")
            return
        self._queue_event(Job(event))

    @property
    def undecided(self) -> Sequence[BindRequest]:
        """Binds that may have been sent and have no outcome: they may still be executed."""
        return self._binds.requests

    def pending(self) -> dict[str, int]:
        """Work not done yet, by class."""
        return {
            BIND: len(self._binds),
            VOLUMES: len(self._volumes),
            DELETE: len(self._deletions),
            STATUS: len(self._patches),
            EVENT: len(self._events.waiting) + self._events.in_flight + self._event_retries,
        }

    async def run(self) -> None:
        """Until cancelled. An exception here is a bug of ours or comes from a callback."""
        await self._pool.run()

    async def drain(
        self, timeout_s: float, *, when_settled: Callable[[], Awaitable[None]] | None = None
    ) -> Drained:
        """Settle the binds and deletions that are under way, then write the events; start nothing new.

        `run` must go on meanwhile. `when_settled` is awaited in between, also if time is up by then
        (see `undecided`); the events need no leader.
        """
        end = asyncio.get_running_loop().time() + timeout_s
        self._draining = True
        self._patches.close()
        self._volumes.cancel_all()  # the next process goes on from what is written
        self._deletions.cancel_unsent()
        unsent = self._binds.cancel_unsent()
        await self._until_done(lambda: {**self.pending(), EVENT: 0}, end)
        if when_settled is not None:
            await when_settled()
        await self._until_done(self.pending, end)
        if any(self.pending().values()):
            log.warning("writes left undone at shutdown", pending=self.pending())
        return Drained(undecided=self.undecided, unsent=unsent, events=self.pending()[EVENT])

    async def _until_done(self, pending: Callable[[], dict[str, int]], end: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                while any(pending().values()):
                    self._progress.clear()
                    await self._progress.wait()

    def _wake(self) -> None:
        self._pool.wake()

    def _bound(self, uid: str, outcome: BindOutcome) -> None:
        self._on_bound(uid, outcome)
        self._progress.set()

    def _deleted(self, uid: str, outcome: DeletionOutcome) -> None:
        self._on_deleted(uid, outcome)
        self._progress.set()

    def _patch_done(self, uid: str) -> bool:
        self._progress.set()
        self._binds.start(uid)
        return uid in self._binds

    # Events.

    def _queue_event(self, job: Job[PodEvent]) -> None:
        self._events.waiting.append(job)
        self._wake()

    async def _do_event(self, job: Job[PodEvent]) -> None:
        body = job.what.body(utc_now(), self._hostname)
        retry_in_s = await self._best_effort.send(
            job,
            EVENT,
            lambda: self._client.request("POST", job.what.path, body=body, timeout_s=TIMEOUT_S),
        )
        if job.written:
            self._events_written[job.what.event_name] = self._clock()
            if len(self._events_written) > _EVENTS_REMEMBERED:
                del self._events_written[next(iter(self._events_written))]
        if retry_in_s is not None:
            self._event_retries += 1
            asyncio.get_running_loop().call_later(retry_in_s, self._retry_event, job)
        self._progress.set()

    def _retry_event(self, job: Job[PodEvent]) -> None:
        self._event_retries -= 1
        self._queue_event(job)
