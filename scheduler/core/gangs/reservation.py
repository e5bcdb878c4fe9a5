"""Against starvation: nodes that are kept for a gang that has waited too long.

On a busy cluster room for many pods at once may never come up by itself: whatever ends makes place for
some small pod that was waiting. So after a while the most senior of the waiting gangs, whatever its
strategy, gets a *reservation*: enough nodes for it, of which no later pod of its priority or lower takes
any room until the gang has what it needs. There is one at a time, so that it is the rest of the cluster
that goes on. The nodes chosen are those with the most room free now among those that could take the
gang if pods that do not outrank it had left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from scheduler.core.filter_answers import PASSES
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.cost import GangCost
from scheduler.core.gangs.domains import all_but
from scheduler.core.gangs.gang import GangOptions, GangPolicy
from scheduler.core.gangs.hoarding import seniority
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.rooms import Member
from scheduler.core.nodes import MEMORY
from scheduler.core.placement import Within
from scheduler.core.plugin import Mask
from scheduler.core.pod_info import PodInfo
from scheduler.core.state import ClusterState

LOOK_AGAIN_S = 1.0
"""How often it is made sure that a reservation is still wanted."""
RETRY_S = 10.0
"""A gang that would not even fit nodes cleared for it is looked at again after so long, later twice that."""
_LONGEST_RETRY_S = 320.0
_ONE_BY_ONE_S = 0.1
"""Between looks at two gangs: at thousands of nodes each takes some milliseconds."""
_KINDS_AT_MOST = 32
"""If a gang has more, those next to each other in size are taken for the largest of them."""


@dataclass(frozen=True, slots=True)
class Wanting:
    """A gang whose members exist, and wait."""

    gang: Gang
    options: GangOptions
    members: Sequence[Member]
    """That wait."""
    need: int
    """So many of them must find places."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Members that ask for the same, or nearly: a large gang has few kinds."""

    possible: Mask
    """bool[n]: nodes that would take one if they were empty."""
    amounts: Sequence[tuple[int, int]]
    """(row of the resource or -1 when no node has it, what each asks for: above 0)."""
    count: int
    """So many want places."""

    def copies(self, room: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n]: how many each node has room for."""
        copies = np.where(self.possible, np.maximum(slots, 0), 0)
        for i, amount in self.amounts:
            copies = np.minimum(copies, np.maximum(room[i], 0) // amount) if i >= 0 else np.zeros_like(copies)
        return copies

    def take(self, row: int, room: NDArray[np.int64], slots: NDArray[np.int64], most: int) -> int:
        """Places as many as the node has room for, which is less by it afterwards; returns how many."""
        fit = (int(room[i, row]) // amount for i, amount in self.amounts)
        taken = max(0, min(most, int(slots[row]), *fit))
        for i, amount in self.amounts:
            room[i, row] -= amount * taken
        slots[row] -= taken
        return taken


class Reservations:
    """At most one at a time. `wanting` gives what a gang by this name lacks now; None when it lacks
    nothing, or can't be placed whatever happens."""

    def __init__(
        self,
        state: ClusterState,
        cost: GangCost,
        clock: Callable[[], float],
        wanting: Callable[[GangRef], Wanting | None],
    ) -> None:
        self._state, self._cost, self._clock, self._wanting = state, cost, clock, wanting
        self._due: dict[GangRef, float] = {}
        """Waiting gang → when it has waited too long."""
        self._next_look = clock()
        self._in_vain: dict[GangRef, float] = {}
        """Gangs that would not fit → after how long they are looked at again."""
        self._to_look_at: list[GangRef] = []
        """Gangs that have waited too long, the most senior last."""
        self.gang: Gang | None = None
        self.nodes: frozenset[str] = frozenset()
        self._counted_at, self._free_bytes, self._strategy = 0.0, 0, ""
        self._missed = False
        """Something may have happened since."""

    def waits(self, ref: GangRef, policy: GangPolicy) -> None:
        """Members of the gang were tried, and it has not yet what it needs."""
        if ref not in self._due:
            due = self._due[ref] = self._clock() + policy.starvation_after_s
            self._next_look = due if len(self._due) == 1 else min(self._next_look, due)

    def served(self, ref: GangRef) -> frozenset[str]:
        """The gang has what it needs, or is gone; returns nodes that are free for all again."""
        self._due.pop(ref, None)
        self._in_vain.pop(ref, None)
        if self.gang is None or self.gang.ref != ref:
            return frozenset()
        self._count()
        freed, self.gang, self.nodes = self.nodes, None, frozenset()
        return freed

    def look(self) -> frozenset[str]:
        """Makes a reservation if it is time, or ends one that nobody wants any more; returns nodes that
        are free for all again. Cheap when it is not time."""
        now = self._clock()
        if self.gang is not None:
            if now - self._counted_at < LOOK_AGAIN_S:
                self._missed = True
                return frozenset()
            self._count()
            return self.served(self.gang.ref) if self._wanting(self.gang.ref) is None else frozenset()
        if not self._due or now < self._next_look:
            return frozenset()
        if not self._to_look_at:
            due = [ref for ref, at in self._due.items() if at <= now]
            found = [wanting for ref in due if (wanting := self._still_wanting(ref)) is not None]
            found.sort(key=lambda wanting: seniority(wanting.gang), reverse=True)
            self._to_look_at = [wanting.gang.ref for wanting in found]
        while self._to_look_at:
            wanting = self._still_wanting(self._to_look_at.pop())
            if wanting is None:
                continue
            ref, nodes = wanting.gang.ref, self._nodes_for(wanting)
            if nodes:
                self.gang, self.nodes, self._strategy = wanting.gang, nodes, wanting.options.strategy.value
                self._free_bytes = 0  # so far
                self._count()
                self._to_look_at.clear()
            else:
                pause_s = self._in_vain.get(ref, RETRY_S)
                self._in_vain[ref] = min(2 * pause_s, _LONGEST_RETRY_S)
                self._due[ref] = now + pause_s
            break
        self._next_look = now + _ONE_BY_ONE_S
        if not self._to_look_at:
            self._next_look = max(self._next_look, min(self._due.values(), default=now))
        return frozenset()

    def next_due(self) -> float | None:
        """When `look` may have something to do."""
        if self.gang is not None:
            return self._counted_at + LOOK_AGAIN_S if self._missed else None
        return self._next_look if self._due else None

    def kept_from(self, info: PodInfo) -> frozenset[str]:
        """Nodes of which the pod may not take any room."""
        gang = self.gang
        if (
            gang is None
            or info.priority > gang.priority
            or info.uid in gang.members
            or info.owned_by_daemon_set
        ):
            return frozenset()
        return self.nodes

    def allowed(self, info: PodInfo) -> Within | None:
        """Nodes that the pod may take room of; None for all."""
        kept = self.kept_from(info)
        return all_but(kept, self._state.nodes) if kept else None

    # ---- internals

    def _still_wanting(self, ref: GangRef) -> Wanting | None:
        """What the gang lacks, if it waits for anything."""
        wanting = self._wanting(ref) if ref in self._due else None
        if wanting is None:
            self._due.pop(ref, None)
            self._in_vain.pop(ref, None)
        return wanting

    def _nodes_for(self, wanting: Wanting) -> frozenset[str]:
        nodes, key = self._state.nodes, wanting.options.topology_key
        kinds = self._kinds(wanting)
        if not kinds:
            return frozenset()
        room, slots = self._room_without_others(wanting.gang)
        copies = np.array([kind.copies(room, slots) for kind in kinds])
        free = self._free_memory()
        rows = np.argsort(-free, kind="stable")
        rows = rows[copies[:, rows].any(axis=0)]
        if not key:
            return self._cleared(kinds, copies, rows, room, slots)
        ids = nodes.label_column(key).ids[: len(nodes)]
        roomy = np.arange(int(ids.max(initial=0)) + 1) > 0
        for kind, each in zip(kinds, copies, strict=True):
            roomy &= np.bincount(ids, weights=each, minlength=len(roomy)) >= kind.count
        rows = rows[roomy[ids[rows]]]
        by_domain = rows[np.argsort(ids[rows], kind="stable")]
        domains = np.split(by_domain, np.flatnonzero(np.diff(ids[by_domain])) + 1)
        total = np.bincount(ids, weights=free, minlength=1)
        for domain in sorted(filter(len, domains), key=lambda domain: -float(total[ids[domain[0]]])):
            found = self._cleared(kinds, copies, domain, room, slots)
            if found:
                return found
        return frozenset()

    def _cleared(
        self,
        kinds: Sequence[_Kind],
        copies: NDArray[np.int64],
        rows: NDArray[np.intp],
        room: NDArray[np.int64],
        slots: NDArray[np.int64],
    ) -> frozenset[str]:
        """Of these rows, in this order, as many as take the members if everybody who does not outrank them
        has left; empty if there are not enough. `copies`: int64[kinds, n], how many each row takes."""
        if any(int(copies[i, rows].sum()) < kind.count for i, kind in enumerate(kinds)):
            return frozenset()
        nodes, names = self._state.nodes, set[str]()
        left = [kind.count for kind in kinds]
        for row in rows.tolist():
            for i, kind in enumerate(kinds):
                taken = kind.take(row, room, slots, left[i]) if left[i] and copies[i, row] else 0
                if taken:
                    left[i] -= taken
                    names.add(nodes.names[row])
            if not any(left):
                return frozenset(names)
        return frozenset()

    def _kinds(self, wanting: Wanting) -> list[_Kind]:
        """Of the members that need least, the largest first; empty if that can't be told."""
        nodes, n = self._state.nodes, len(self._state.nodes)
        waiting = sorted(wanting.members, key=lambda m: m.info.requests.get("memory", 0), reverse=True)
        alike: dict[object, list[Member]] = {}
        for member in waiting[-wanting.need :]:
            key = (member.key, id(member.cycle), tuple(sorted(member.info.requests.items())))
            alike.setdefault(key, []).append(member)
        groups = list(alike.values())
        size = -(-len(groups) // _KINDS_AT_MOST)
        groups = [list(chain(*groups[i : i + size])) for i in range(0, len(groups), size or 1)]
        kinds = []
        for group in groups:
            names = {name for member in group for name in member.info.requests}
            largest = {name: max(member.info.requests.get(name, 0) for member in group) for name in names}
            amounts = [(nodes.resources.get(name, -1), amount) for name, amount in largest.items() if amount]
            try:
                static, *_ = group[0].cycle.explain(group[0].info)[0]
            except Exception:  # a plugin of others may fail; the pod's next decision will say how
                return []
            kinds.append(_Kind(static.first[:n] == PASSES, amounts, len(group)))
        return kinds

    def _room_without_others(self, gang: Gang) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64[resources, n] and pods, int64[n]: what nodes have beside those that outrank the gang, and its
        own."""
        state, nodes, n = self._state, self._state.nodes, len(self._state.nodes)
        room, slots = nodes.allocatable[:, :n].copy(), nodes.pod_limit[:n].astype(np.int64)
        if state.placed.any_above(gang.priority):
            state.placed.update()
            pods, amounts = state.placed.above(gang.priority, n)
            slots -= pods
            room[: amounts.shape[1]] -= amounts.T
        for uid in gang.members:
            placed = state.pods.get(uid)
            row = nodes.row_of.get(placed.node) if placed is not None else None
            if placed is not None and row is not None and placed.info.priority <= gang.priority:
                slots[row] -= 1
                for resource, amount in placed.info.usage.items():
                    room[nodes.resource_row(resource), row] -= amount
        return room, slots

    def _free_memory(self) -> NDArray[np.int64]:
        nodes, n = self._state.nodes, len(self._state.nodes)
        free: NDArray[np.int64] = nodes.allocatable[MEMORY, :n] - nodes.requested[MEMORY, :n]
        return free

    def _count(self) -> None:
        """What was free at the last count is counted until now."""
        now, table = self._clock(), self._state.nodes
        self._cost.reserved_byte_seconds[self._strategy] += int(self._free_bytes * (now - self._counted_at))
        rows = [table.row_of[name] for name in self.nodes if name in table.row_of]
        self._free_bytes = int(np.maximum(self._free_memory()[rows], 0).sum())
        self._counted_at, self._missed = now, False
