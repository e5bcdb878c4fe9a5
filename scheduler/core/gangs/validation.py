"""Whether a gang's members can go where they were planned, as things stand now.

The members are taken up in order, each beside those before it. One that only misses members that come later
is tried again after these; and what is left then must pass all its filters beside all others, as in the
search that made such a plan (`scheduler.core.gangs.planner`).

Filters of a node whose row has not changed since the plan was made would say what they said then, and
are not asked: what is left to do is little for each member, so that a large gang is validated in one go.
That does not hold for what looks beyond a node, nor while rooms are promised to pods that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np

from scheduler.core.gangs.domains import values_of
from scheduler.core.gangs.rooms import Member, Rooms
from scheduler.core.state import ClusterState


class Validation:
    """Takes up members in a state; `has_changed(node)`: whether the row is another than when the plan was
    made, beside members that were in the plan already. `taken` are the members that are assumed now."""

    def __init__(self, state: ClusterState, rooms: Rooms, has_changed: Callable[[str], bool]) -> None:
        self._state, self._rooms, self._has_changed = state, rooms, has_changed
        self.taken: dict[str, str] = {}
        """uid → node."""

    def steps(self, planned: Sequence[tuple[Member, str]]) -> Generator[None, None, bool]:
        """One member a step; returns whether all are taken. Those that can't be are left out."""
        changed = {node for _, node in planned if self._has_changed(node)}
        left: list[tuple[Member, str]] = []
        for member, node in planned:
            if node not in self._state.nodes.row_of:
                continue
            if node not in changed and self._is_silent(member):
                self._take(member, node)
            else:
                left.append((member, node))
            yield
        while left:
            rest = []
            for member, node in left:
                if self._passes(member, node):
                    self._take(member, node)
                else:
                    rest.append((member, node))
                yield
            if len(rest) == len(left):
                break
            left = rest
        else:
            return len(self.taken) == len(planned)
        self._take_together([(member, node) for member, node in left if _may_need_others(member)])
        return len(self.taken) == len(planned)

    def give_back(self) -> None:
        """Nothing is assumed any more."""
        for uid in self.taken:
            self._rooms.give_back(uid)
        self.taken = {}

    # ---- internals

    def _take(self, member: Member, node: str) -> None:
        self._rooms.take(member, node)
        self.taken[member.info.uid] = node

    def _passes(self, member: Member, node: str) -> bool:
        row = self._state.nodes.row_of.get(node)
        return row is not None and member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None

    def _take_together(self, left: Sequence[tuple[Member, str]]) -> None:
        """Members each of which passes beside all others, or none of them."""
        for member, node in left:
            self._take(member, node)
        for member, node in left:
            self._rooms.give_back(member.info.uid)
            passes = self._passes(member, node)
            self._rooms.take(member, node)
            if not passes:
                break
        else:
            return
        for member, _ in left:
            self._rooms.give_back(member.info.uid)
            del self.taken[member.info.uid]

    def _is_silent(self, member: Member) -> bool:
        """Whether nothing beyond a node concerns the member."""
        return not self._state.nominations and member.cycle.remote.is_silent(member.info)


def _may_need_others(member: Member) -> bool:
    return bool(member.info.rules.affinity or member.info.rules.hard_spread)


def has_changed(state: ClusterState, node: str, since: int) -> bool:
    """Whether anything that decisions read of the node and the pods on it has changed since a generation."""
    row = state.nodes.row_of.get(node)
    return row is None or int(state.nodes.row_generation[row]) > since


def in_one_domain(state: ClusterState, key: str, names: Sequence[str]) -> bool:
    """Whether all these nodes have one value of the label; without a key any will do."""
    if not key:
        return True
    values = list(values_of(state.nodes, key, names))
    return len(values) == len(names) and len(set(values)) <= 1
