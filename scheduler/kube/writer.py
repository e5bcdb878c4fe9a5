"""Everything the scheduler writes about pods: binds, then what binds wait for, status patches, events.

**Order.** A free worker takes a bind if there is one, else a write about a pod's volumes, else a status
patch, else an event. The token of the rate limit is taken first and the work chosen after it, so
that a bind never waits behind an event. Under pressure the end is shed: events and patches wait in
bounded queues, and what finds its queue full is dropped and counted. That is the newest on purpose:
a pod that stays pending is judged again and then says it again, whereas one that is dropped from
the front has waited for nothing. Binds and their volumes are never shed; assumed room bounds their
number.

**Workers** are a fixed set of tasks that pull from deques: a task per request would double the
cost of a request. A bind that has to wait sleeps in a timer, not in a worker.

**One pod, one order.** A patch that says `PodScheduled=False` must not overtake, or be overtaken
by, the bind of its pod: a bind drops its pod's queued patch and waits for the one under way. Of
the patches of a pod only the newest is kept, and no two are under way at once.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from scheduler.kube.besteffort import BestEffort, Job
from scheduler.kube.binding import Again, Binding, BindOutcome
from scheduler.kube.client import STRATEGIC_MERGE_PATCH, KubeClient
from scheduler.kube.payloads import BindRequest, ConditionPatch, PodEvent, hostname, utc_now
from scheduler.kube.pool import Lane, WorkerPool
from scheduler.kube.ratelimit import TokenBucket
from scheduler.kube.volume_writes import VolumeOutcome, VolumeRequest, VolumeWrites

log = structlog.get_logger(__name__)

BIND, VOLUMES, STATUS, EVENT = "bind", "volumes", "status", "event"
# A pod that stays pending says the same at every attempt. Half of the time that the API server keeps
# an event (--event-ttl, 1 h), so that the pod's only event is renewed when it is gone.
_EVENT_REMEMBERED_S = 1800.0
_EVENTS_REMEMBERED = 20_000
_NOT_LEADING_DELAY_S = 0.5  # until somebody cancels the bind, as one who lost the lease must


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

    `on_bound(uid, outcome)` is called once for each bind that was neither cancelled nor left over by
    `drain`, `on_volumes(uid, outcome)` likewise. `on_drop(class, why)` and `on_retry(class)` count; the
    classes are bind, volumes, status and event. `may_bind` is asked right before each bind, and each
    request about volumes, is sent: a process that was stopped for a while finds its queue as it left
    it, but no longer its lease.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        on_bound: Callable[[str, BindOutcome], None],
        on_volumes: Callable[[str, VolumeOutcome], None] = lambda uid, outcome: None,
        may_bind: Callable[[], bool] = lambda: True,
        limits: WriterLimits | None = None,
        on_drop: Callable[[str, str], None] = lambda work, why: None,
        on_retry: Callable[[str], None] = lambda work: None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._on_bound, self._on_volumes = on_bound, on_volumes
        self._may_bind = may_bind
        self._limits = limits or WriterLimits()
        self._on_drop = on_drop
        self._on_retry = on_retry
        self._rng = rng or random.Random()
        self._clock = clock
        self._hostname = hostname()
        half = max(1, self._limits.in_flight // 2)
        self._bind_lane = Lane(self._do_bind, limit=self._limits.in_flight)
        self._volume_lane = Lane(self._do_volumes, limit=half)
        self._status_lane = Lane(self._do_patch, limit=half)  # of uids: what is sent is in _patches
        self._event_lane = Lane(self._do_event, limit=half)
        self._bucket = TokenBucket(self._limits.qps, self._limits.burst, clock=clock)
        self._best_effort = BestEffort(
            client, bucket=self._bucket, on_drop=on_drop, on_retry=on_retry, rng=self._rng, clock=clock
        )
        self._pool = WorkerPool(
            (self._bind_lane, self._volume_lane, self._status_lane, self._event_lane),
            workers=self._limits.in_flight,
            bucket=self._bucket,
        )
        self._binds: dict[str, Binding] = {}
        self._volumes: dict[str, VolumeWrites] = {}
        self._stepping: set[Binding] = set()
        self._patches: dict[str, Job[ConditionPatch]] = {}  # the newest of each pod, not yet sent
        self._patching: set[str] = set()
        self._patch_retries: dict[str, asyncio.TimerHandle] = {}
        self._event_retries = 0
        self._events_written: dict[str, float] = {}  # name → when, oldest first
        self._draining = False
        self._progress = asyncio.Event()

    def bind(self, request: BindRequest) -> None:
        """Raises ValueError for a uid whose bind is under way, RuntimeError once draining."""
        if self._draining:
            raise RuntimeError("the writer is draining")
        if request.uid in self._binds:
            raise ValueError(f"pod {request.namespace}/{request.name} ({request.uid}) is being bound already")
        binding = Binding(request, rng=self._rng, clock=self._clock)
        self._binds[request.uid] = binding
        self._drop_patch(request.uid)
        if request.uid not in self._patching:
            self._queue_bind(binding)

    def write_volumes(self, request: VolumeRequest) -> None:
        """Raises ValueError for a pod whose volumes are being written; ignored once draining."""
        if request.uid in self._volumes:
            raise ValueError(f"the volumes of pod {request.uid} are being written already")
        if not self._draining:
            self._volumes[request.uid] = VolumeWrites(request, rng=self._rng)
            self._queue_volumes(self._volumes[request.uid])

    def cancel_volumes(self, uid: str) -> bool:
        """As `cancel`, of the writes about a pod's volumes."""
        return self._volumes.pop(uid, None) is not None

    def cancel(self, uid: str) -> bool:
        """Forget a bind: its pod is gone or bound, or we lead no more. False if there is none.

        A request under way is not called back; its outcome is not reported.
        """
        return self._binds.pop(uid, None) is not None

    def patch_condition(self, patch: ConditionPatch) -> None:
        """Takes the place of the pod's waiting patch; ignored while the pod is being bound."""
        if patch.uid in self._binds or self._draining:
            return
        if patch.uid not in self._patches and len(self._patches) >= self._limits.queued_patches:
            self._on_drop(STATUS, "queue_full")
            return
        self._queue_patch(Job(patch))

    def post_event(self, event: PodEvent) -> None:
        """An event that exists already counts as written; one that we wrote lately is not even sent."""
        written_at = self._events_written.get(event.event_name, -math.inf)
        if self._clock() < written_at + _EVENT_REMEMBERED_S:
            return
        if len(self._event_lane.waiting) >= self._limits.queued_events:
            self._on_drop(EVENT, "queue_full")
            return
        self._queue_event(Job(event))

    def pending(self) -> dict[str, int]:
        """Work not done yet, by class."""
        return {
            BIND: len(self._binds),
            VOLUMES: len(self._volumes),
            STATUS: len(self._patches) + len(self._patching) + len(self._patch_retries),
            EVENT: len(self._event_lane.waiting) + self._event_lane.in_flight + self._event_retries,
        }

    async def run(self) -> None:
        """Until cancelled. An exception here is a bug of ours or comes from `on_bound`."""
        await self._pool.run()

    async def drain(self, timeout_s: float) -> Drained:
        """Settle the binds that are under way, then write the events; start nothing new.

        `run` must go on meanwhile.
        """
        self._draining = True
        self._volumes.clear()  # the next process goes on from what is written
        for uid in [*self._patches, *self._patch_retries]:
            self._drop_patch(uid)
        unsent = [
            binding.request
            for binding in self._binds.values()
            if binding not in self._stepping and not binding.undecided
        ]
        for request in unsent:
            self.cancel(request.uid)
        # Out of the lane as well: each of them would cost a token, and events wait for those.
        waiting = self._bind_lane.waiting
        kept = [binding for binding in waiting if binding.request.uid in self._binds]
        waiting.clear()
        waiting.extend(kept)
        try:
            async with asyncio.timeout(timeout_s):
                while any(self.pending().values()):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.warning("writes left undone at shutdown", pending=self.pending())
        undecided = [binding.request for binding in self._binds.values()]
        return Drained(undecided=undecided, unsent=unsent, events=self.pending()[EVENT])

    # Binds.

    def _queue_bind(self, binding: Binding) -> None:
        self._bind_lane.waiting.append(binding)
        self._pool.wake()

    async def _do_bind(self, binding: Binding) -> None:
        uid = binding.request.uid
        if self._binds.get(uid) is not binding:
            return  # cancelled while it waited
        if not self._may_bind():
            asyncio.get_running_loop().call_later(_NOT_LEADING_DELAY_S, self._queue_bind, binding)
            return
        self._stepping.add(binding)
        try:
            result = await binding.step(self._client)
        finally:
            self._stepping.discard(binding)
        if self._binds.get(uid) is not binding:
            return  # cancelled under way
        if isinstance(result, Again):
            self._on_retry(BIND)
            if result.pause_s:
                self._bucket.pause(result.pause_s)
            if result.delay_s:
                asyncio.get_running_loop().call_later(result.delay_s, self._queue_bind, binding)
            else:
                self._bind_lane.waiting.appendleft(binding)
            return
        del self._binds[uid]
        self._on_bound(uid, result)
        self._progress.set()

    # Volumes.

    def _queue_volumes(self, writes: VolumeWrites) -> None:
        self._volume_lane.waiting.append(writes)
        self._pool.wake()

    async def _do_volumes(self, writes: VolumeWrites) -> None:
        uid = writes.request.uid
        if self._volumes.get(uid) is not writes:
            return
        later = asyncio.get_running_loop().call_later
        if not self._may_bind():
            later(_NOT_LEADING_DELAY_S, self._queue_volumes, writes)
            return
        result = await writes.step(self._client)
        if self._volumes.get(uid) is not writes:
            return
        if isinstance(result, Again):
            if result.retry:
                self._on_retry(VOLUMES)
            if result.pause_s:
                self._bucket.pause(result.pause_s)
            later(result.delay_s, self._queue_volumes, writes)
            return
        del self._volumes[uid]
        self._on_volumes(uid, result)

    # Status patches.

    def _queue_patch(self, job: Job[ConditionPatch]) -> None:
        uid = job.what.uid
        if retry := self._patch_retries.pop(uid, None):
            retry.cancel()
        waits = uid in self._patches or uid in self._patching
        self._patches[uid] = job
        if not waits:
            self._status_lane.waiting.append(uid)
            self._pool.wake()

    def _drop_patch(self, uid: str) -> None:
        self._patches.pop(uid, None)
        if retry := self._patch_retries.pop(uid, None):
            retry.cancel()

    async def _do_patch(self, uid: str) -> None:
        job = None if uid in self._patching else self._patches.pop(uid, None)
        if job is None:
            return  # dropped for a bind, or queued once more when the one under way is done
        self._patching.add(uid)
        try:
            retry_in_s = await self._best_effort.send(
                job,
                STATUS,
                method="PATCH",
                path=job.what.path,
                body=job.what.body(utc_now()),
                content_type=STRATEGIC_MERGE_PATCH,
            )
        finally:
            self._patching.discard(uid)
        binding = self._binds.get(uid)
        if binding is not None:
            self._queue_bind(binding)  # it waited for us
        elif uid in self._patches:
            self._status_lane.waiting.append(uid)
        elif retry_in_s is not None and not self._draining:
            self._patch_retries[uid] = asyncio.get_running_loop().call_later(
                retry_in_s, self._queue_patch, job
            )
        self._pool.wake()
        self._progress.set()

    # Events.

    def _queue_event(self, job: Job[PodEvent]) -> None:
        self._event_lane.waiting.append(job)
        self._pool.wake()

    async def _do_event(self, job: Job[PodEvent]) -> None:
        retry_in_s = await self._best_effort.send(
            job, EVENT, method="POST", path=job.what.path, body=job.what.body(utc_now(), self._hostname)
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
