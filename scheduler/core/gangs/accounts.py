"""What each gang goes through until it is bound, added up in `GangCost`.

Three of the costs can't be counted where something is decided, since they grow while nothing happens:
time to gang, memory bound for gangs that are not complete, and memory that lies free though gangs want
it. An account for each gang keeps what they grow by, and is settled whenever that changes.

Free memory is the one that is not cheap to know, so it is looked at now and then: at most once a second,
less often when very many members wait. What was seen counts until the next look.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Mapping
from contextlib import suppress

import numpy as np

from scheduler.core.cycle import Cycle
from scheduler.core.gangs.book import Gang, GangBook
from scheduler.core.gangs.cost import Durations, GangCost
from scheduler.core.gangs.gang import GangError
from scheduler.core.gangs.ref import GangRef
from scheduler.core.nodes import MEMORY
from scheduler.core.pod_info import PodInfo
from scheduler.core.queue import Kind, SchedulingQueue
from scheduler.core.state import ClusterState

LOOK_AGAIN_S = 1.0
"""How often free memory is looked at, if anything happens at all."""
_MEMBERS_A_SECOND = 10_000
"""With more waiting members than this it is looked at less often."""
_KINDS_AT_MOST = 16
"""Of a strategy's waiting members so many kinds are looked at: what nodes only others fit is not counted."""


class _Account:
    """A gang that is not complete, or was."""

    __slots__ = (
        "bound",
        "bound_bytes",
        "committing",
        "counted_at",
        "first_at",
        "min_count",
        "ready_at",
        "strategy",
        "waiting",
    )

    def __init__(self, now: float) -> None:
        self.min_count, self.strategy = 0, ""
        """0 while nobody says what it needs."""
        self.first_at = self.counted_at = now
        self.ready_at: float | None = None
        """Since when all members that it needs exist."""
        self.bound: dict[str, int] = {}
        """uid → memory_bytes."""
        self.bound_bytes = 0
        self.waiting: set[str] = set()
        """Members that could be bound."""
        self.committing = False

    @property
    def complete(self) -> bool:
        return 0 < self.min_count <= len(self.bound)

    @property
    def partly_bound(self) -> bool:
        return 0 < len(self.bound) < self.min_count and bool(self.waiting)


class GangAccounts:
    """Told of every change of a gang by `GangDispatch`."""

    def __init__(
        self,
        book: GangBook,
        state: ClusterState,
        queue: SchedulingQueue,
        cycles: Mapping[str, Cycle],
        cost: GangCost,
        clock: Callable[[], float],
    ) -> None:
        self._book, self._state, self._queue, self._cycles = book, state, queue, cycles
        self._cost, self._clock = cost, clock
        self._accounts: dict[GangRef, _Account] = {}
        self._refused: dict[GangRef, _Account] = {}
        """Gangs that found too little room when they were tried last."""
        self._free: dict[str, int] = {}
        """strategy → free memory that its gangs could use, at the last look."""
        self._looked_at = clock()
        self._next_look = self._looked_at
        self._missed = False
        """Something may have happened since."""

    # ---- what becomes of gangs

    def upsert(self, gang: Gang, info: PodInfo) -> None:
        """A member as it is now, after the gang has taken it in."""
        account = self._accounts.get(gang.ref)
        if account is None:
            account = self._accounts[gang.ref] = _Account(self._clock())
        self._count(account)
        uid, was_complete = info.uid, account.complete
        if info.node_name:
            account.waiting.discard(uid)
            memory_bytes = info.usage.get("memory", 0)
            account.bound_bytes += memory_bytes - account.bound.get(uid, 0)
            account.bound[uid] = memory_bytes
        elif info.gated or info.terminating:
            account.waiting.discard(uid)
        else:
            account.waiting.add(uid)
        if account.ready_at is None or gang.existing < account.min_count or gang.oldest is info:
            self._read(gang, account)
        if account.complete and not was_complete:
            self._completed(gang.ref, account)

    def remove(self, gang: Gang, uid: str) -> None:
        """No member any more, after the gang has let go of it."""
        account = self._accounts.get(gang.ref)
        if account is None:
            return
        self._count(account)
        was_complete = account.complete
        account.waiting.discard(uid)
        account.bound_bytes -= account.bound.pop(uid, 0)
        if not gang.members:
            self.served(gang.ref)
            del self._accounts[gang.ref]
            return
        if was_complete and not account.complete:
            account.first_at, account.ready_at = self._clock(), None
        self._read(gang, account)

    def changed(self, gang: Gang) -> None:
        """What it asks for is another thing now, or it is known now."""
        account = self._accounts.get(gang.ref)
        if account is not None:
            self._count(account)
            self._read(gang, account)

    def refused(self, ref: GangRef) -> None:
        """It was tried, and has not all that it needs."""
        account = self._accounts.get(ref)
        if account is not None and ref not in self._refused and not account.complete:
            self._refused[ref] = account
            self._missed = True

    def commits(self, ref: GangRef) -> None:
        """It has found all that it needs."""
        account = self._accounts.get(ref)
        if account is not None:
            account.committing = True
        self.served(ref)

    def served(self, ref: GangRef) -> None:
        """It wants nothing more, or is gone."""
        if self._refused.pop(ref, None) is not None:
            self._missed = True
            if not self._refused:
                self._count_free()
                self._free = {}

    # ---- memory that is free

    def look(self) -> None:
        """Call it often: it does something when it is time."""
        if not self._refused:
            return
        now = self._clock()
        if now < self._next_look:
            self._missed = True
            return
        self._count_free()
        seen, self._free = self._look()
        self._missed = False
        self._next_look = now + max(LOOK_AGAIN_S, seen / _MEMBERS_A_SECOND)

    def next_due(self) -> float | None:
        """When `look` has something to do though nothing happens."""
        return self._next_look if self._refused and self._missed else None

    def settle(self) -> None:
        """Counts everything up to now, for who reads the cost."""
        self._count_free()
        for account in self._accounts.values():
            self._count(account)

    # ---- internals

    def _read(self, gang: Gang, account: _Account) -> None:
        """What it needs, and whether so many exist."""
        try:
            options = self._book.options(gang)
        except GangError:
            account.min_count, account.ready_at = 0, None
            return
        account.min_count, account.strategy = options.min_count, options.strategy.value
        if gang.existing < options.min_count:
            account.ready_at = None
        elif account.ready_at is None:
            account.ready_at = self._clock()

    def _completed(self, ref: GangRef, account: _Account) -> None:
        """minCount members are bound. That counts if it was we who had them bound."""
        self.served(ref)
        if not account.committing:
            return
        account.committing = False
        now, name = self._clock(), account.strategy
        self._cost.since_first_member.setdefault(name, Durations()).observe(now - account.first_at)
        if account.ready_at is not None:
            self._cost.since_min_count.setdefault(name, Durations()).observe(now - account.ready_at)

    def _count(self, account: _Account) -> None:
        now = self._clock()
        if account.partly_bound:
            byte_seconds = int(account.bound_bytes * (now - account.counted_at))
            self._cost.incomplete_byte_seconds[account.strategy] += byte_seconds
        account.counted_at = now

    def _count_free(self) -> None:
        now = self._clock()
        for strategy, free_bytes in self._free.items():
            self._cost.free_byte_seconds[strategy] += int(free_bytes * (now - self._looked_at))
        self._looked_at = now

    def _look(self) -> tuple[int, dict[str, int]]:
        """(members looked at, strategy → free memory that its gangs could use)."""
        seen, wanted_bytes = 0, dict[str, int]()
        kinds: dict[str, dict[Kind, PodInfo]] = {}
        for account in self._refused.values():
            if account.ready_at is None:
                continue
            waiting = [uid for uid in account.waiting if uid not in self._state.pods]
            seen += len(account.waiting)
            placed = len(account.bound) + len(account.waiting) - len(waiting)
            if placed >= account.min_count:
                continue
            for queued in filter(None, map(self._queue.get, waiting)):
                name, info = account.strategy, queued.info
                wanted_bytes[name] = wanted_bytes.get(name, 0) + info.requests.get("memory", 0)
                known = kinds.setdefault(name, {})
                if len(known) < _KINDS_AT_MOST:
                    known.setdefault(queued.kind, info)
        return seen, {
            name: min(wanted_bytes[name], self._free_for(some.items())) for name, some in kinds.items()
        }

    def _free_for(self, kinds: ItemsView[Kind, PodInfo]) -> int:
        """Free memory of nodes that would take a pod of any of these kinds."""
        nodes, n = self._state.nodes, len(self._state.nodes)
        useful = np.zeros(n, np.bool_)
        for (profile, _), info in kinds:
            # A plugin of others may fail; the pod's next decision will say how.
            with suppress(Exception):
                useful |= self._cycles[profile].rejections(info).passing
        free = (nodes.allocatable - nodes.requested)[MEMORY, :n]
        return int(np.maximum(free[useful], 0).sum())
