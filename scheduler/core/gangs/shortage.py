"""Gangs that found too little room, and when there is enough.

What makes room for a gang mostly comes bit by bit: another gang ends, pod by pod. The first bit wakes all
that wait, too early, and each try in vain makes the backoff longer; when all the room is there, they would
sleep on beside it. So of each gang that was short of room when it was tried, it is looked at now and then
whether there is as much as it lacks by now. Then its members are tried whatever their backoff, once: if it
is not room that keeps them out, the next time goes by the backoff again.

Room that is held by junior gangs which are blocked themselves counts as free, as the senior one gets it
when it is tried (see `hoarding`): that is how a deadlock is noticed that came about after its last try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.core.gangs.book import GangBook
from scheduler.core.gangs.gang import Strategy
from scheduler.core.gangs.hoarding import Hoarding, seniority
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.reservation import Wanting
from scheduler.core.queue import Place, SchedulingQueue
from scheduler.core.state import ClusterState

LOOK_EVERY_S = 0.5
GANGS_AT_ONCE = 64
"""So many, the most senior ones, are looked at each time; some milliseconds at most."""

Seniority = tuple[int, str, str]
"""See `hoarding.seniority`."""

KINDS_AT_MOST = 8
"""Of a gang's members; most have one or two."""
Requests = tuple[tuple[str, int], ...]
Kinds = tuple[tuple[Requests, int], ...]
"""(requests of a pod, how many such pods), of all members that wait."""

_Free = tuple[NDArray[np.int64], NDArray[np.int64]]
"""int64[resources, n]: room on each node; int64[n]: for so many pods."""


@dataclass(frozen=True, slots=True)
class _Short:
    seniority: Seniority
    kinds: Kinds
    need: int
    topology_key: str
    hoards: bool


def _few(kinds: Counter[Requests]) -> Kinds:
    """Of very many the rarer ones are taken for one that asks for the least of each: it must not be too late
    that a gang is tried."""
    ordered = kinds.most_common()
    rest = [dict(requests) for requests, _ in ordered[KINDS_AT_MOST:]]
    if not rest:
        return tuple(ordered)
    least = {name: min(amounts.get(name, 0) for amounts in rest) for name in rest[0]}
    many = sum(count for _, count in ordered[KINDS_AT_MOST:])
    return (*ordered[:KINDS_AT_MOST], (tuple(least.items()), many))


class Shortage:
    """`wanting` as for `Reservations`."""

    def __init__(
        self,
        state: ClusterState,
        queue: SchedulingQueue,
        book: GangBook,
        clock: Callable[[], float],
        wanting: Callable[[GangRef], Wanting | None],
        hoarding: Hoarding,
    ) -> None:
        self._state, self._queue, self._book, self._clock = state, queue, book, clock
        self._wanting, self._hoarding = wanting, hoarding
        self._short: dict[GangRef, _Short] = {}
        self._next_look = clock()

    def failed(self, ref: GangRef, *, anyway: bool = False) -> None:
        """Members of the gang were tried, and it lacks some; `anyway`: the next try may end otherwise even
        if there is no more room than now."""
        wanting = self._wanting(ref)
        self._short.pop(ref, None)
        if wanting is None:
            return
        kinds = Counter(tuple(member.info.requests.items()) for member in wanting.members)
        short = _Short(
            seniority(wanting.gang),
            _few(kinds),
            wanting.need,
            wanting.options.topology_key,
            hoards=wanting.options.strategy is Strategy.HOARDING,
        )
        if anyway or not self._suffices(short, self._free(), yielded=short.hoards):
            self._short[ref] = short

    def served(self, ref: GangRef) -> None:
        """The gang has what it needs, or is gone."""
        self._short.pop(ref, None)

    def look(self) -> None:
        """Has the most senior gang tried for which there is room now. Cheap when it is not time."""
        for ref in self._hoarding.take_freed():
            self.failed(ref, anyway=True)
        now = self._clock()
        if not self._short or now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        senior = sorted(self._short, key=lambda ref: self._short[ref].seniority)[:GANGS_AT_ONCE]
        # Of those that block each other it is the most senior one that gets on.
        first = next((ref for ref in senior if self._short[ref].hoards), None)
        free = self._free()
        found = next(
            (ref for ref in senior if self._suffices(self._short[ref], free, yielded=ref == first)), None
        )
        if found is not None:
            del self._short[found]
            self._next_look = now  # there may be room for others, too
            self._try_now(found)

    def next_due(self) -> float | None:
        """When `look` may have something to do."""
        return self._next_look if self._short else None

    # ---- internals

    def _try_now(self, ref: GangRef) -> None:
        gang = self._book.named(ref)
        for uid in gang.members if gang is not None else ():
            queued = self._queue.get(uid)
            if queued is not None and queued.place in (Place.BACKOFF, Place.UNSCHEDULABLE):
                self._queue.activate(queued, "GangRoom")

    def _free(self) -> _Free:
        nodes, n = self._state.nodes, len(self._state.nodes)
        slots = np.subtract(nodes.pod_limit[:n], nodes.pod_count[:n], dtype=np.int64)
        return nodes.allocatable[:, :n] - nodes.requested[:, :n], slots

    def _with_yielded(self, short: _Short, free: _Free) -> _Free:
        """And what others hold and would have to give up."""
        nodes, (room, slots) = self._state.nodes, (free[0].copy(), free[1].copy())
        for node, info in self._hoarding.yielding_to(short.seniority):
            row = nodes.row_of.get(node)
            if row is not None:
                slots[row] += 1
                for resource, amount in info.usage.items():
                    room[nodes.resources[resource], row] += amount
        return room, slots

    def _suffices(self, short: _Short, free: _Free, *, yielded: bool) -> bool:
        """Whether there could be enough for what the gang lacks, if room were all that counts."""
        nodes, n = self._state.nodes, len(self._state.nodes)
        room, slots = self._with_yielded(short, free) if yielded else free
        groups: NDArray[np.int32] = np.zeros(n, np.int32)
        if short.topology_key:
            groups = nodes.label_column(short.topology_key).ids[:n]
        fit = np.zeros(int(groups.max(initial=0)) + 1)
        for requests, count in short.kinds:
            amounts = [(nodes.resources.get(resource, -1), amount) for resource, amount in requests if amount]
            if any(row < 0 for row, _ in amounts):
                continue  # no node has any of it
            copies = slots.copy()
            for i, amount in amounts:
                np.minimum(copies, room[i] // amount, out=copies)
            np.maximum(copies, 0, out=copies)
            fit += np.minimum(np.bincount(groups, weights=copies, minlength=len(fit)), count)
        return bool(fit.max(initial=0) >= short.need)
