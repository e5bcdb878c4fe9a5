"""Finds places for the members of a gang together.

**First in order**: each member takes the node that suits it best beside those placed before it; one
that found no place is tried again when others have found theirs, since it may be these it waits for.
That is what a scheduler of single pods would do, and it is enough for nearly every gang.

**Then by search**, when too few found a place and another choice could help: depth first over the
members' choices, best first, with backtracking. Pods placed later can cure some rejections (affinity to
a member that has no place yet, a skew that others even out). Such nodes are tried last, and at the end
each member that was put on one must pass all its filters beside all others. So members that need each
other find places that no order of placing them one by one would find. With an unlimited budget a plan is
found if there is one; with a limit the search may give up, and says so.

Members are *assumed* in the state as they are placed, so that the plan is made on what filters really
say, and work may pause between any two steps: whatever happens in the cluster meanwhile happens to the
plan's members, too. What is not to be kept is forgotten again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from scheduler.core.gangs.rooms import Member, Rooms
from scheduler.core.gangs.too_large import is_too_large
from scheduler.core.placement import Placement, Within
from scheduler.core.state import ClusterState
from scheduler.core.topology_rules import NO_RULES

SEARCH_BUDGET = 2_000
"""Choices that a search may try; at 5,000 nodes about half a second of planning."""
_AGAIN = 4
"""Members may be tried again in order as often as this many searches would try: it is that much cheaper."""
_ALIKE_ONE_TRY = 8
"""Looking whether so many members pass on one node each costs as much as one choice."""
_REMEMBERED_MEMBERS = 32
"""Dead ends are remembered for gangs up to this size; for larger ones it costs more than it saves."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What became of planning."""

    nodes: dict[str, str]
    """uid → node of the members that are now assumed there; empty when too few found a place."""
    failures: dict[str, Placement] = field(default_factory=dict)
    """uid → why the members without a place found none, each beside those placed before it."""
    reached: int = 0
    """So many found a place when the members were placed in order."""
    budget_spent: bool = False
    """The search was given up: there may be a plan."""

    @property
    def found(self) -> bool:
        return bool(self.nodes)


class Planner:
    """Plans once. `steps` does a bit of work at a time; the outcome is in `plan` when it ends.

    `need` of the members must find places (at least 1); the others join as far as they fit.
    `within` gives the nodes allowed now, None for all; it is asked again after each step,
    since rows may have moved. Members must not be assumed before.
    """

    plan: Plan

    def __init__(
        self,
        members: Sequence[Member],
        state: ClusterState,
        rooms: Rooms,
        *,
        need: int,
        within: Callable[[], Within | None] = lambda: None,
        budget: int | None = SEARCH_BUDGET,
    ) -> None:
        self._members, self._state, self._rooms, self._need = members, state, rooms, need
        self._within, self._budget = within, budget
        self._given_up = False

    def steps(self) -> Generator[None, None, None]:
        """Each step costs about one decision. Closing the iterator early forgets what was placed."""
        done = False
        try:
            failures = yield from self._place_in_order()
            spent, reached = self._given_up, len(self._members) - len(failures)
            if reached < self._need:
                self._forget_all()
                if not spent and self._may_find_more(failures):
                    search = _Search(
                        self._members, self._state, self._rooms, self._need, self._within, self._budget
                    )
                    found = yield from search.run()
                    spent = search.budget_spent
                    if found:
                        failures = {uid: f for uid, f in failures.items() if uid not in self._state.pods}
            nodes = {
                m.info.uid: self._state.pods[m.info.uid].node
                for m in self._members
                if m.info.uid in self._state.pods
            }
            self.plan = Plan(nodes, failures, reached, spent)
            done = True
        finally:
            if not done:
                self._forget_all()

    # ---- internals

    def _place_in_order(self) -> Generator[None, None, dict[str, Placement]]:
        failures: dict[str, Placement] = {}
        waiting, tried = list(self._members), 0
        while waiting:
            left = []
            tried += len(waiting)
            for member in waiting:
                placement = member.cycle.place(member.info, member.key, within=self._within())
                if placement.node is None:
                    failures[member.info.uid] = placement
                    left.append(member)
                else:
                    failures.pop(member.info.uid, None)
                    self._rooms.take(member, placement.node)
                yield
            if len(left) == len(waiting) or not any(_may_be_cured(member) for member in left):
                break
            if self._budget is not None and tried > len(self._members) + _AGAIN * self._budget:
                self._given_up = True  # members that wait for each other one by one take for ever
                break
            waiting = left
        return failures

    def _may_find_more(self, failures: dict[str, Placement]) -> bool:
        """Whether another choice of nodes could place more members; nothing is assumed.

        Alike pods that no rule about other pods concerns fill each node as far as it goes, whichever
        comes first. Members that fit nowhere even now can't be helped, unless by members."""
        if are_interchangeable(self._members):
            return False
        if len({(member.key, id(member.cycle)) for member in self._members}) == 1:
            return True
        hopeless = 0
        within = self._within()
        if is_too_large(self._members, self._need, self._state.nodes, within and within.mask):
            return False
        for member in self._members:
            if member.info.uid in failures:
                choices = member.cycle.choices(member.info, member.key, within)
                hopeless += not (len(choices.best_first) or len(choices.curable))
        return len(self._members) - hopeless >= self._need

    def _forget_all(self) -> None:
        for member in self._members:
            self._rooms.give_back(member.info.uid)


class _Search:
    """Depth first over one choice per member: a node, or none while enough others are left."""

    def __init__(
        self,
        members: Sequence[Member],
        state: ClusterState,
        rooms: Rooms,
        need: int,
        within: Callable[[], Within | None],
        budget: int | None,
    ) -> None:
        self._members, self._state, self._rooms = members, state, rooms
        self._within = within
        self._may_skip = len(members) - need
        self._tries = 0
        self._budget = budget
        self.budget_spent = False
        kinds: dict[object, int] = {}
        self._kinds = [kinds.setdefault(_sameness(member), len(kinds)) for member in members]
        self._dead_ends: set[object] = set()
        self._unsure: set[int] = set()
        """Members on nodes where something was still missing."""
        self._skipped: set[int] = set()

    def run(self) -> Generator[None, None, bool]:
        """Returns whether there is a plan; its members are then assumed, else none is."""
        frames = [self._frame(0)]
        while frames:
            frame = frames[-1]
            self._undo(frame.index)
            if self._spend():
                for other in frames:
                    self._undo(other.index)
                return False
            if not self._choose(frame):
                self._dead_ends.add(frame.situation)
                frames.pop()
                continue
            yield
            if frame.index + 1 < len(self._members):
                following = self._frame(frame.index + 1)
                if following.situation is None or following.situation not in self._dead_ends:
                    frames.append(following)
            elif (yield from self._can_follow_each_other()):
                return True
        return False

    # ---- internals

    def _frame(self, index: int) -> _Frame:
        member = self._members[index]
        choices = member.cycle.choices(member.info, member.key, self._within())
        names = self._state.nodes.names
        nodes = [names[row] for row in (*choices.best_first.tolist(), *choices.curable.tolist())]
        return _Frame(index, nodes, len(choices.best_first), self._situation(index))

    def _choose(self, frame: _Frame) -> bool:
        """Takes the frame's next choice; False when there is none."""
        member = self._members[frame.index]
        while frame.tried < len(frame.nodes):
            node, frame.tried = frame.nodes[frame.tried], frame.tried + 1
            if node not in self._state.nodes.row_of:
                continue  # gone since
            self._rooms.take(member, node)
            if frame.tried > frame.sure:
                self._unsure.add(frame.index)
            return True
        if not frame.skipped and len(self._skipped) < self._may_skip:
            frame.skipped = True
            self._skipped.add(frame.index)
            return True
        return False

    def _undo(self, index: int) -> None:
        self._rooms.give_back(self._members[index].info.uid)
        self._unsure.discard(index)
        self._skipped.discard(index)

    def _fits_beside_others(self, member: Member) -> bool:
        node = self._rooms.give_back(member.info.uid)
        if node is None:
            return False
        passes = self._passes(member, node)
        self._rooms.take(member, node)
        return passes

    def _passes(self, member: Member, node: str) -> bool:
        row = self._state.nodes.row_of.get(node)
        return row is not None and member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None

    def _can_follow_each_other(self) -> Generator[None, None, bool]:
        """Whether the members that are assumed can be placed in some order such that each passes in its turn,
        or at the end beside all others. They are assumed afterwards as before.

        Which of them have been placed is all that matters to those that follow, so each such set is gone on
        from once; orders need not be told apart."""
        chosen = dict(self._chosen())
        if self._spend(len(chosen) // _ALIKE_ONE_TRY):
            return False
        if not self._unsure:
            return True  # each passed when it was chosen, and whoever it passed beside did so before
        failing: list[int] = []
        for i in sorted(chosen, key=lambda i: i not in self._unsure):
            if not self._fits_beside_others(self._members[i]):
                failing.append(i)
            yield
        if not failing:
            return True
        in_turn = frozenset(failing)
        """Members that do not pass at the end."""
        last = sorted(chosen, key=lambda i: (i in in_turn, i))
        reached, open_sets = {frozenset[int]()}, [frozenset[int]()]
        found = False
        while open_sets and not found:
            placed = open_sets.pop()
            left = [i for i in last if i not in placed]
            if self._spend(1 + len(left) // _ALIKE_ONE_TRY):
                break
            for i in left:
                self._rooms.give_back(self._members[i].info.uid)
            passing: list[int] = []
            for i in left:
                if self._passes(self._members[i], chosen[i]):
                    passing.append(i)
                yield
            for i in left:
                self._rooms.take(self._members[i], chosen[i])
            if not placed and any(_only_as_first(self._members[i]) for i in in_turn.difference(passing)):
                break
            for i in passing:
                following = placed | {i}
                if following not in reached:
                    reached.add(following)
                    open_sets.append(following)
                    found = found or in_turn <= following
        return found

    def _chosen(self) -> Iterator[tuple[int, str]]:
        for index, member in enumerate(self._members):
            if member.info.uid in self._state.pods:
                yield index, self._state.pods[member.info.uid].node

    def _spend(self, tries: int = 1) -> bool:
        """Counts so many more; True when that is too many."""
        self._tries += tries
        self.budget_spent = self.budget_spent or (self._budget is not None and self._tries > self._budget)
        return self.budget_spent

    def _situation(self, index: int) -> object:
        """Equal for equal outcomes: which kinds of members are where, and who is next."""
        if len(self._members) > _REMEMBERED_MEMBERS:
            return None
        pods = self._state.pods
        placed = sorted(
            (self._kinds[i], pods[m.info.uid].node if m.info.uid in pods else "", i in self._unsure)
            for i, m in enumerate(self._members[:index])
        )
        return index, tuple(placed)


class _Frame:
    """A member's choices in a situation, and how far they have been tried."""

    __slots__ = ("index", "nodes", "situation", "skipped", "sure", "tried")

    def __init__(self, index: int, nodes: list[str], sure: int, situation: object) -> None:
        self.index, self.nodes, self.situation = index, nodes, situation
        self.sure = sure
        """So many of the nodes pass all filters as things stand."""
        self.tried = 0
        self.skipped = False


def are_interchangeable(members: Sequence[Member]) -> bool:
    """Whether they are alike, and no rule about other pods concerns them."""
    member = members[0]
    return (
        len({(other.key, id(other.cycle)) for other in members}) == 1
        and member.info.rules == NO_RULES
        and not any(member.cycle.remote.context(member.info))
    )


def _sameness(member: Member) -> object:
    return id(member.cycle), member.key, member.info.signature, member.info.rules


def _only_as_first(member: Member) -> bool:
    """Whether, if it does not pass beside all others, it passes beside none of them or never: what its
    affinity asks for does not come, so it must be the first of a series."""
    return bool(member.info.rules.affinity) and not member.info.rules.hard_spread


def _may_be_cured(member: Member) -> bool:
    rules = member.info.rules
    return bool(rules.affinity or rules.hard_spread)
