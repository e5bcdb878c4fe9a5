"""Pods that wait: active, backing off, unschedulable, gated, incomplete, tentative.

A pod is in exactly one place. Active pods are handed out by priority, then arrival. A pod that was
tried in vain waits in *unschedulable* until an event that can help it, or five minutes; when it is
woken too soon after its last try it goes through *backoff* first (1 s doubling to 10 s), so that a
pod that can't be helped costs a bounded share of the cycles.
Source of the rules: pkg/scheduler/backend/queue/scheduling_queue.go.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import Enum
from itertools import count

from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key

INITIAL_BACKOFF_S = 1.0
MAX_BACKOFF_S = 10.0
FLUSH_AFTER_S = 300.0
_STALE_ENTRIES = 1024
"""Entries of a heap that may be stale before it is looked through for them."""

Kind = tuple[str, Key]
"""(schedulerName, key): pods that get the same answers."""


class Place(Enum):
    ACTIVE = "active"
    BACKOFF = "backoff"
    UNSCHEDULABLE = "unschedulable"
    GATED = "gated"
    INCOMPLETE = "incomplete"
    """The pod's gang lacks members, or a description."""
    TENTATIVE = "tentative"
    """The pod has a place that its gang's strategy keeps in mind; it waits for the rest of the gang."""
    IN_FLIGHT = "in-flight"
    """Handed out; its decision or its bind is under way."""


class QueuedPod:
    """A waiting pod and what the queue remembers of it."""

    def __init__(self, info: PodInfo, kind: Kind, sequence: int, now: float) -> None:
        self.info, self.kind, self.sequence = info, kind, sequence
        self.place = Place.IN_FLIGHT
        self.attempts = 0
        self.first_seen = self.since = now
        self.backoff_until = now
        self.rejected_by: frozenset[str] = frozenset()
        self.ticket = 0
        """Bumped by every move, so that a heap's older entries for this pod are known as stale."""


_Heap = list[tuple[float, int, int, QueuedPod]]
"""(order, arrival, ticket, pod); an entry whose ticket is not the pod's is stale."""


class _Asleep:
    """The unschedulable pods of one kind, in the order of falling asleep."""

    def __init__(self) -> None:
        self.pods: dict[str, QueuedPod] = {}
        self.rejected_by: set[str] = set()
        """All the plugins that have rejected any of them since the first fell asleep."""


class SchedulingQueue:
    """All waiting pods by uid. `clock` gives seconds from any fixed point."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        initial_backoff_s: float = INITIAL_BACKOFF_S,
        max_backoff_s: float = MAX_BACKOFF_S,
        flush_after_s: float = FLUSH_AFTER_S,
    ) -> None:
        self._clock = clock
        self._initial_backoff_s, self._max_backoff_s = initial_backoff_s, max_backoff_s
        self._flush_after_s = flush_after_s
        self._pods: dict[str, QueuedPod] = {}
        self._sequence = count()
        self._active: _Heap = []
        self._backoff: _Heap = []
        self._asleep: dict[Kind, _Asleep] = {}
        self._next_flush = clock() + flush_after_s
        """No sleeping pod is due before; may be too early, never too late."""
        self.incoming: Counter[tuple[str, str]] = Counter()
        """(queue, event) → moves so far: kube-scheduler's queue_incoming_pods_total."""

    def __contains__(self, uid: str) -> bool:
        return uid in self._pods

    def get(self, uid: str) -> QueuedPod | None:
        return self._pods.get(uid)

    def __iter__(self) -> Iterator[QueuedPod]:
        return iter(self._pods.values())

    def depths(self) -> dict[Place, int]:
        """Number of pods in each place."""
        counts = Counter(pod.place for pod in self._pods.values())
        return {place: counts[place] for place in Place}

    def add(self, info: PodInfo, kind: Kind) -> QueuedPod:
        """Takes in a pod that is new here: to active, or to gated."""
        pod = self._pods[info.uid] = QueuedPod(info, kind, next(self._sequence), self._clock())
        self._move(pod, Place.GATED if info.gated else Place.ACTIVE, "PodAdd")
        return pod

    def update(self, info: PodInfo, kind: Kind, *, concerned: bool = False) -> None:
        """Replaces a waiting pod's object. It is tried again if what decisions read has changed;
        `concerned` says so of what its kind does not show."""
        pod = self._pods[info.uid]
        changed = concerned or pod.kind != kind or pod.info.priority != info.priority
        if changed:
            self._unlist(pod)
        pod.info, pod.kind = info, kind
        if pod.place is Place.IN_FLIGHT:
            return
        if info.gated:
            if pod.place is not Place.GATED:
                self._move(pod, Place.GATED, "PodUpdate")
        elif pod.place is Place.GATED:
            pod.first_seen = self._clock()  # how long a gate was closed is not our doing
            self._move(pod, Place.ACTIVE, "PodUpdate")
        elif changed and pod.place not in (Place.BACKOFF, Place.INCOMPLETE, Place.TENTATIVE):
            self._try_again(pod, "PodUpdate")

    def remove(self, uid: str) -> QueuedPod | None:
        """Forgets a pod, wherever it is."""
        pod = self._pods.pop(uid, None)
        if pod is not None:
            self._unlist(pod)
            pod.ticket += 1
            # Nobody pops on a standby, yet pods come and go there for weeks.
            self._active = _without_stale(self._active, len(self._pods))
            self._backoff = _without_stale(self._backoff, len(self._pods))
        return pod

    def pop(self) -> QueuedPod | None:
        """The next pod to try, or None. It stays known as in flight until it is moved or removed."""
        self._release_due()
        while self._active:
            _, _, ticket, pod = heapq.heappop(self._active)
            if ticket == pod.ticket:
                pod.place = Place.IN_FLIGHT
                pod.attempts += 1
                return pod
        return None

    def set_unschedulable(self, pod: QueuedPod, rejected_by: frozenset[str]) -> None:
        """Puts a pod that fits nowhere to sleep until `wake` or the flush."""
        pod.rejected_by = rejected_by
        pod.backoff_until = self._clock() + self._backoff_s(pod.attempts)
        self._move(pod, Place.UNSCHEDULABLE, "ScheduleAttemptFailure")

    def set_backoff(self, pod: QueuedPod) -> None:
        """Tries a pod again after its backoff: its decision was good, carrying it out failed."""
        pod.backoff_until = self._clock() + self._backoff_s(pod.attempts)
        self._move(pod, Place.BACKOFF, "ScheduleAttemptFailure")

    def set_incomplete(self, pod: QueuedPod) -> None:
        """Puts a pod aside until `activate`."""
        self._move(pod, Place.INCOMPLETE, "GangIncomplete")

    def set_tentative(self, pod: QueuedPod) -> None:
        """Puts a pod aside that has a place, for the time being."""
        self._move(pod, Place.TENTATIVE, "GangTentative")

    def activate(self, pod: QueuedPod, event: str) -> None:
        """Has a pod tried as soon as its turn comes."""
        self._move(pod, Place.ACTIVE, event)

    def take(self, pod: QueuedPod) -> None:
        """Hands out a pod that waits, whenever its turn would be."""
        self._unlist(pod)
        pod.ticket += 1
        pod.place = Place.IN_FLIGHT
        pod.attempts += 1

    def unschedulable_kinds(self) -> list[Kind]:
        """Kinds with pods asleep."""
        return list(self._asleep)

    def asleep(self, kind: Kind) -> tuple[Collection[QueuedPod], frozenset[str]] | None:
        """The sleeping pods of a kind, and all the plugins that rejected any of them."""
        asleep = self._asleep.get(kind)
        if asleep is None:
            return None
        return asleep.pods.values(), frozenset(asleep.rejected_by)

    def note_rejections(self, kind: Kind, plugins: Iterable[str]) -> None:
        """These plugins, too, keep the sleeping pods of a kind from some node by now."""
        self._asleep[kind].rejected_by.update(plugins)

    def wake(self, pods: Iterable[QueuedPod], event: str) -> int:
        """Moves sleeping pods to active, or to backoff where it is not over yet; returns how many."""
        woken = 0
        for pod in list(pods):
            if pod.place is Place.UNSCHEDULABLE:
                self._try_again(pod, event)
                woken += 1
        return woken

    def next_due(self) -> float | None:
        """When `pop` may find more than now without an event: a backoff or a flush that ends."""
        while self._backoff and self._backoff[0][2] != self._backoff[0][3].ticket:
            heapq.heappop(self._backoff)
        times = [self._backoff[0][0]] if self._backoff else []
        if self._asleep:
            times.append(self._next_flush)
        return min(times, default=None)

    def has_active(self) -> bool:
        while self._active and self._active[0][2] != self._active[0][3].ticket:
            heapq.heappop(self._active)
        return bool(self._active)

    # ---- internals

    def _backoff_s(self, attempts: int) -> float:
        return min(self._initial_backoff_s * 2.0 ** min(max(attempts - 1, 0), 30), self._max_backoff_s)

    def _release_due(self) -> None:
        now = self._clock()
        while self._backoff and self._backoff[0][0] <= now:
            _, _, ticket, pod = heapq.heappop(self._backoff)
            if ticket == pod.ticket:
                self._move(pod, Place.ACTIVE, "BackoffComplete")
        if now < self._next_flush:
            return
        self._next_flush = now + self._flush_after_s
        for asleep in list(self._asleep.values()):
            for pod in list(asleep.pods.values()):
                if pod.since + self._flush_after_s > now:
                    self._next_flush = min(self._next_flush, pod.since + self._flush_after_s)
                    break  # the others fell asleep later
                self._move(pod, Place.ACTIVE, "UnschedulableTimeout")

    def _try_again(self, pod: QueuedPod, event: str) -> None:
        self._move(pod, Place.BACKOFF if pod.backoff_until > self._clock() else Place.ACTIVE, event)

    def _move(self, pod: QueuedPod, place: Place, event: str) -> None:
        self._unlist(pod)
        pod.place, pod.since = place, self._clock()
        pod.ticket += 1
        self.incoming[place.value, event] += 1
        if place is Place.ACTIVE:
            heapq.heappush(self._active, (-pod.info.priority, pod.sequence, pod.ticket, pod))
        elif place is Place.BACKOFF:
            heapq.heappush(self._backoff, (pod.backoff_until, pod.sequence, pod.ticket, pod))
        elif place is Place.UNSCHEDULABLE:
            asleep = self._asleep.setdefault(pod.kind, _Asleep())
            asleep.pods[pod.info.uid] = pod
            asleep.rejected_by |= pod.rejected_by

    def _unlist(self, pod: QueuedPod) -> None:
        asleep = self._asleep.get(pod.kind)
        if asleep is not None and asleep.pods.pop(pod.info.uid, None) is not None and not asleep.pods:
            del self._asleep[pod.kind]


def _without_stale(heap: _Heap, live: int) -> _Heap:
    """The heap without stale entries, once these outnumber what can be live."""
    if len(heap) <= 2 * live + _STALE_ENTRIES:
        return heap
    kept = [entry for entry in heap if entry[2] == entry[3].ticket]
    heapq.heapify(kept)
    return kept
