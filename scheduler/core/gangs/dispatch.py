"""Gangs in the engine: when one is planned, and what becomes of its members.

A member waits as *incomplete* until its gang is described and so many members exist as it needs. From
then on all members are tried as one: whichever of them the queue hands out, the others that wait are
taken with it, planned together, and decided together. Members that come once the gang has what it needs
are planned like a gang of one, in the gang's domain.

Planning a large gang takes longer than a turn of the loop may, so it is done in slices. Between two of
them the cluster's events are taken in, but nobody else's pods are decided; if one of the members itself
changes, the plan is dropped and made anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass

from scheduler.core.cycle import Cycle, Placement
from scheduler.core.gangs.book import Gang, GangBook
from scheduler.core.gangs.gang import GangRef
from scheduler.core.gangs.planner import Member
from scheduler.core.gangs.planning import GangPlanning
from scheduler.core.pod_info import PodInfo
from scheduler.core.queue import Place, QueuedPod, SchedulingQueue
from scheduler.core.state import ClusterState

TELL_AFTER_S = 5.0
"""Members mostly come within moments of each other; what is still incomplete then is worth a word."""


@dataclass(frozen=True, slots=True)
class GangCommit:
    """Members that are to be bound together, or none of them."""

    ref: GangRef
    min_count: int
    """So many members must have a node in the end."""
    placed_before: int
    """So many had one already."""
    nodes: Mapping[str, str]
    """uid → node of those placed now."""


@dataclass(frozen=True, slots=True)
class MemberOutcome:
    """What was decided for one member; a placed one is assumed."""

    queued: QueuedPod
    placement: Placement
    commit: GangCommit | None
    """Of a placed member whose gang did not have all it needs before."""


class GangDispatch:
    """Works on the engine's own state and queue."""

    def __init__(
        self,
        state: ClusterState,
        queue: SchedulingQueue,
        cycles: Mapping[str, Cycle],
        clock: Callable[[], float],
    ) -> None:
        self._state, self._queue, self._cycles, self._clock = state, queue, cycles, clock
        self.book = GangBook(state.nodes.cluster)
        self.decided: deque[MemberOutcome] = deque()
        self._planning: GangPlanning | None = None
        self._steps: Generator[None, None, None] | None = None
        self._taken: dict[str, QueuedPod] = {}
        self._incomplete: dict[GangRef, float] = {}
        """Gangs whose members have not been told what is missing → since when it is."""

    @property
    def planning(self) -> bool:
        """Whether a plan is being made; nobody else is decided meanwhile."""
        return self._steps is not None

    # ---- what the watch says

    def upsert(self, info: PodInfo) -> None:
        """A pod of ours as it is now, after the queue or the state has taken it in."""
        before = self.book.of(info.uid)
        gang = self.book.upsert(info)
        if before is not None and before is not gang:
            self._review(before)
        if gang is not None:
            self._review(gang, info.uid)
        if info.uid in self._taken:
            self._drop_plan()

    def remove(self, uid: str) -> None:
        """The pod is gone."""
        gang = self.book.remove(uid)
        if gang is not None:
            self._review(gang)
        if uid in self._taken:
            self._drop_plan()

    def review_all(self) -> None:
        """A group has changed."""
        for gang in self.book:
            self._review(gang)

    # ---- decisions

    def begin(self, queued: QueuedPod) -> bool:
        """Begins a plan if the pod, which the queue has just handed out, is a member of a gang."""
        gang = self.book.of(queued.info.uid)
        if gang is None:
            return False
        self._taken = {queued.info.uid: queued}
        for uid in gang.members:
            other = self._queue.get(uid)
            if other is not None and other.place in (Place.ACTIVE, Place.BACKOFF, Place.UNSCHEDULABLE):
                self._queue.take(other)
                self._taken[uid] = other
        placed = [self._state.pods[uid].node for uid in gang.members if uid in self._state.pods]
        members = [Member(pod.info, pod.kind[1], self._cycles[pod.kind[0]]) for pod in self._taken.values()]
        self._planning = GangPlanning(gang.ref, self.book.options(gang), members, self._state, placed=placed)
        self._steps = self._planning.steps()
        return True

    def work(self, until: float) -> bool:
        """Goes on with the plan until the clock says `until`; returns whether that is its end. The
        outcomes are then in `decided`."""
        if self._steps is None or self._planning is None:
            return True
        for _ in self._steps:
            if self._clock() >= until:
                return False
        self._conclude(self._planning)
        return True

    def fail(self, message: str) -> None:
        """Planning has failed by an error: all members are tried again after a backoff."""
        taken = self._taken
        self._steps, self._planning, self._taken = None, None, {}
        for queued in taken.values():
            self._queue.set_backoff(queued)
            self.decided.append(MemberOutcome(queued, Placement(None, message), None))

    def untold(self) -> Iterable[tuple[QueuedPod, str]]:
        """Members whose gang has been incomplete for a while, each once, and why it is."""
        now = self._clock()
        while self._incomplete:
            ref, since = next(iter(self._incomplete.items()))
            if since + TELL_AFTER_S > now:
                return
            del self._incomplete[ref]
            gang = self.book.named(ref)
            why = self.book.why_incomplete(gang) if gang is not None else ""
            for uid in list(gang.members) if gang is not None and why else ():
                queued = self._queue.get(uid)
                if queued is not None and queued.place is Place.INCOMPLETE:
                    yield queued, why

    def next_due(self) -> float | None:
        """When `untold` may have something to say."""
        since = next(iter(self._incomplete.values()), None)
        return None if since is None else since + TELL_AFTER_S

    # ---- internals

    def _review(self, gang: Gang, uid: str | None = None) -> None:
        """Moves members that wait to where they belong: `uid`, or all if that has changed."""
        incomplete = bool(self.book.why_incomplete(gang))
        uids: Iterable[str] = gang.members if incomplete != gang.incomplete or uid is None else (uid,)
        gang.incomplete = incomplete
        for member in list(uids):
            queued = self._queue.get(member)
            if queued is None or queued.place in (Place.IN_FLIGHT, Place.GATED):
                continue
            if incomplete and queued.place is not Place.INCOMPLETE:
                self._queue.set_incomplete(queued)
                self._incomplete.setdefault(gang.ref, self._clock())
            elif not incomplete and queued.place is Place.INCOMPLETE:
                self._queue.activate(queued, "GangComplete")
        if not incomplete:
            self._incomplete.pop(gang.ref, None)

    def _conclude(self, planning: GangPlanning) -> None:
        plan, taken = planning.plan, self._taken
        self._steps, self._planning, self._taken = None, None, {}
        rejected_by = frozenset[str]().union(*(f.rejected_by for f in plan.failures.values()))
        placed = planning.placed_count
        commit = None
        if plan.found and placed < planning.options.min_count:
            commit = GangCommit(planning.ref, planning.options.min_count, placed, plan.nodes)
        for uid, queued in taken.items():
            node = plan.nodes.get(uid)
            if node is not None:
                self.decided.append(MemberOutcome(queued, Placement(node), commit))
                continue
            own = plan.failures.get(uid)
            message = own.message if plan.found and own is not None else planning.message(uid)
            profile = self._cycles[queued.kind[0]].profile
            blamed = rejected_by or frozenset(f.name for f in profile.filters)
            self._queue.set_unschedulable(queued, blamed)
            self.decided.append(MemberOutcome(queued, Placement(None, message, blamed), None))

    def _drop_plan(self) -> None:
        """A member has changed: what was planned so far is of no use."""
        if self._steps is not None:
            self._steps.close()
        taken = self._taken
        self._steps, self._planning, self._taken = None, None, {}
        for uid, queued in taken.items():
            if self._queue.get(uid) is queued and queued.place is Place.IN_FLIGHT:
                self._queue.activate(queued, "GangChanged")
        for uid in taken:
            gang = self.book.of(uid)
            if gang is not None:
                self._review(gang)
                break
