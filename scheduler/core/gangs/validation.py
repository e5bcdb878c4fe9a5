"""Whether a gang's members can go where they were planned, as things stand now.

The members are taken up one after another, each beside those before it. One that only misses members that
come later is tried again after these; and what is left then must pass all its filters beside all others, as
in the search that made such a plan (`scheduler.core.gangs.planner`).

Filters of a node whose row has not changed since the plan was made would say what they said then, and
are not asked: what is left to do is little for each member. That does not hold for what looks beyond a node,
nor while rooms are promised to pods that wait. What may fail comes first, so that a conflict shows early.

It may pause after each step, whoever is decided meanwhile: what has been taken up is assumed, and what has
not is looked at as things are then. So others find room taken for good, or see it come free again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np

from scheduler.core.gangs.domains import values_of
from scheduler.core.gangs.rooms import Member, Rooms
from scheduler.core.nodes import NodeTable
from scheduler.core.pod_info import PodInfo
from scheduler.core.state import ClusterState

_SORTED_A_STEP, _TAKEN_A_STEP = 16, 32
Planned = tuple[Member, str]
"""And its node."""


class Validation:
    """Takes up members in a state. `since`: the generation of `live`, the table of the live state, at which
    the plan was made. `strict`: nothing may have changed on their nodes."""

    def __init__(
        self, state: ClusterState, rooms: Rooms, live: NodeTable, since: int, *, strict: bool = False
    ) -> None:
        self._state, self._rooms, self._live = state, rooms, live
        self._since, self._strict = since, strict
        self._disturbed: set[str] = set()
        """Nodes that others have changed."""
        self._own: dict[str, int] = {}
        """Node → its generation when the last member was taken up there."""
        self.taken: dict[str, str] = {}
        """uid → node of the members that are assumed now."""

    def steps(self, planned: Sequence[Planned], *, all_or_none: bool) -> Generator[None, None, None]:
        """One member a step. Those that can't be taken up are left out; `all_or_none`: the first ends it."""
        stamp = self._beyond_nodes
        left: list[Planned] = []
        easy: list[Planned] = []
        for i, (member, node) in enumerate(planned):
            (easy if self._is_easy(member, node) else left).append((member, node))
            if i % _SORTED_A_STEP == 0:
                yield
        if self._strict and self._disturbed:
            return
        rest: list[Planned] = []
        while left:
            rest = []
            for member, node in left:
                if self._passes(member, node):
                    self._take(member, node)
                elif all_or_none and not _may_need_others(member):
                    return
                else:
                    rest.append((member, node))
                yield
            if len(rest) == len(left):
                break
            left = rest
        together = [(member, node) for member, node in rest if _may_need_others(member)]
        if not self._take_together(together) and all_or_none:
            return
        for i, (member, node) in enumerate(easy):
            if self._is_still_easy(member, node, stamp):
                self._rooms.take(member, node, silent=True)
                self._note(member, node)
            elif not self._strict and self._passes(member, node):
                self._take(member, node)
            elif all_or_none:
                return
            if i % _TAKEN_A_STEP == 0:
                yield

    def still_holds(self) -> bool:
        """Whether the members that were taken up first are where they could stay: on nodes that are there,
        and that nobody has filled up regardless."""
        nodes = self._state.nodes
        for node in filter(self._has_changed, set(self.taken.values())):
            row = nodes.row_of.get(node)
            if (
                self._strict
                or row is None
                or (nodes.requested[:, row] > nodes.allocatable[:, row]).any()
                or nodes.pod_count[row] > nodes.pod_limit[row]
            ):
                return False
        return True

    def give_back(self, on_released: Callable[[str, PodInfo], None]) -> None:
        """Nothing is assumed any more, and others may have seen that it was."""
        for uid, node in self.taken.items():
            placed = self._state.pods.get(uid)
            if placed is not None and self._rooms.give_back(uid) is not None:
                on_released(node, placed.info)
        self.taken = {}

    # ---- internals

    def _is_easy(self, member: Member, node: str) -> bool:
        """Whether filters would say what they said when the plan was made."""
        if node in self._disturbed or self._has_changed(node):
            self._disturbed.add(node)
            return False
        return not self._state.nominations and member.cycle.remote.is_silent(member.info)

    def _is_still_easy(self, member: Member, node: str, stamp: tuple[int, ...]) -> bool:
        """The same of one that was, when what lies beyond nodes was as the stamp says."""
        if stamp != self._beyond_nodes:
            return self._is_easy(member, node)
        return node not in self._disturbed and not self._has_changed(node)

    @property
    def _beyond_nodes(self) -> tuple[int, ...]:
        """Differs as soon as anything has changed that `is_silent` may depend on."""
        nodes = self._state.nodes
        versions = nodes.pods.version, nodes.cluster.changes, self._state.nominations.version
        return *versions, nodes.last_object_change

    def _has_changed(self, node: str) -> bool:
        """By others, since the plan was made or a member was taken up there."""
        return has_changed(self._live, node, max(self._since, self._own.get(node, 0)))

    def _take(self, member: Member, node: str) -> None:
        self._rooms.take(member, node)
        self._note(member, node)

    def _note(self, member: Member, node: str) -> None:
        self.taken[member.info.uid] = node
        row = self._live.row_of.get(node)
        if row is not None:
            self._own[node] = int(self._live.row_generation[row])

    def _passes(self, member: Member, node: str) -> bool:
        row = self._state.nodes.row_of.get(node)
        return row is not None and member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None

    def _take_together(self, left: Sequence[Planned]) -> bool:
        """Takes up members each of which passes beside all others, or none of them."""
        for member, node in left:
            self._rooms.take(member, node)
        for member, node in left:
            self._rooms.give_back(member.info.uid)
            passes = self._passes(member, node)
            self._rooms.take(member, node)
            if not passes:
                break
        else:
            for member, node in left:
                self._note(member, node)
            return True
        for member, _ in left:
            self._rooms.give_back(member.info.uid)
        return False


def _may_need_others(member: Member) -> bool:
    return bool(member.info.rules.affinity or member.info.rules.hard_spread)


def has_changed(nodes: NodeTable, node: str, since: int) -> bool:
    """Whether anything that decisions read of the node and the pods on it has changed since a generation."""
    row = nodes.row_of.get(node)
    return row is None or int(nodes.row_generation[row]) > since


def in_one_domain(state: ClusterState, key: str, names: Sequence[str]) -> bool:
    """Whether all these nodes have one value of the label; without a key any will do."""
    if not key:
        return True
    values = list(values_of(state.nodes, key, names))
    return len(values) == len(names) and len(set(values)) <= 1
