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

import numpy as np
from numpy.typing import NDArray

from scheduler.core.filter_answers import PASSES
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.cost import GangCost
from scheduler.core.gangs.domains import all_but, domain_mask
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
"""How often a gang that would not even fit nodes cleared for it is looked at again."""


@dataclass(frozen=True, slots=True)
class Wanting:
    """A gang whose members exist, and wait."""

    gang: Gang
    options: GangOptions
    members: Sequence[Member]
    """That wait."""
    need: int
    """So many of them must find places."""


@dataclass(slots=True)
class _Kind:
    """Members that ask for the same: a large gang has few kinds."""

    possible: Mask
    """bool[n]: nodes that would take one if they were empty."""
    amounts: Sequence[tuple[int, int]]
    """(row of the resource or -1 when no node has it, what each asks for: above 0)."""
    left: int = 0
    """So many have no place yet."""

    def take(self, row: int, room: NDArray[np.int64], slots: int) -> int:
        """Places as many as the node has room for, which is less by it afterwards; returns how many."""
        if not self.possible[row] or any(i < 0 for i, _ in self.amounts):
            return 0
        taken = max(0, min(self.left, slots, *(int(room[i]) // amount for i, amount in self.amounts)))
        for i, amount in self.amounts:
            room[i] -= amount * taken
        self.left -= taken
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
        due = [ref for ref, at in self._due.items() if at <= now]
        self._next_look = now + RETRY_S if due else min(self._due.values())
        wants = {ref: self._wanting(ref) for ref in due}
        for ref in [ref for ref, wanting in wants.items() if wanting is None]:
            del self._due[ref]
        found = [wanting for wanting in wants.values() if wanting is not None]
        for wanting in sorted(found, key=lambda wanting: seniority(wanting.gang)):
            nodes = self._nodes_for(wanting)
            if nodes:
                self.gang, self.nodes, self._strategy = wanting.gang, nodes, wanting.options.strategy.value
                self._free_bytes = 0  # so far
                self._count()
                break
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

    def _nodes_for(self, wanting: Wanting) -> frozenset[str]:
        key = wanting.options.topology_key
        if not key:
            return self._cleared(wanting, None)
        nodes = self._state.nodes
        column = nodes.label_column(key)
        ids = column.ids[: len(nodes)]
        free = np.bincount(ids, weights=self._free_memory(), minlength=1)
        for i in np.argsort(-free, kind="stable").tolist():
            value = column.values[i]
            if i and value is not None:
                found = self._cleared(wanting, domain_mask(nodes, key, value))
                if found:
                    return found
        return frozenset()

    def _cleared(self, wanting: Wanting, within: Mask | None) -> frozenset[str]:
        """Nodes that take the members if everybody who does not outrank them has left; fewest of those
        with most room first. Empty if there are not enough."""
        nodes = self._state.nodes
        waiting = sorted(wanting.members, key=lambda m: m.info.requests.get("memory", 0), reverse=True)
        kinds = self._kinds(waiting[-wanting.need :])
        names: set[str] = set()
        for row in np.argsort(-self._free_memory(), kind="stable").tolist():
            if not kinds:
                break
            if within is not None and not within[row]:
                continue
            room, slots = self._room_without_others(row, wanting.gang)
            for kind in kinds:
                taken = kind.take(row, room, slots)
                if taken:
                    slots -= taken
                    names.add(nodes.names[row])
            kinds = [kind for kind in kinds if kind.left]
        return frozenset() if kinds else frozenset(names)

    def _kinds(self, members: Sequence[Member]) -> list[_Kind]:
        """In the order of their first."""
        nodes, n = self._state.nodes, len(self._state.nodes)
        kinds: dict[object, _Kind] = {}
        for member in members:
            key = (member.key, id(member.cycle), tuple(sorted(member.info.requests.items())))
            if key not in kinds:
                static, *_ = member.cycle.explain(member.info)[0]
                amounts = [(nodes.resources.get(r, -1), a) for r, a in member.info.requests.items() if a]
                kinds[key] = _Kind(static.first[:n] == PASSES, amounts)
            kinds[key].left += 1
        return list(kinds.values())

    def _room_without_others(self, row: int, gang: Gang) -> tuple[NDArray[np.int64], int]:
        """int64[resources] and pods: what a node has beside those that outrank the gang, and its own."""
        nodes = self._state.nodes
        room, slots = nodes.allocatable[:, row].copy(), int(nodes.pod_limit[row])
        for placed in self._state.pods_on(nodes.names[row]):
            if placed.info.priority > gang.priority or placed.info.uid in gang.members:
                slots -= 1
                for resource, amount in placed.info.usage.items():
                    room[nodes.resource_row(resource)] -= amount
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
