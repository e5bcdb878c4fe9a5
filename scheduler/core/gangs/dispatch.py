"""Gangs in the engine: when one is tried, and what becomes of its members.

A member waits as *incomplete* until its gang is described and its strategy wants to try. From then on
whichever of its waiting members the queue hands out, the others are taken with it and tried together.

An attempt is made in slices, since a large gang takes longer than a turn of the loop may. Between two of
them the cluster's events are taken in; whether others' pods are decided as well, or wait, is the strategy's
to say. If one of the members itself changes, the attempt is dropped and made anew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from scheduler.core.cycle import Cycle
from scheduler.core.gangs.accounts import GangAccounts
from scheduler.core.gangs.atomic import Atomic
from scheduler.core.gangs.attempt import GangStrategy, MemberOutcome, Workspace
from scheduler.core.gangs.book import Gang, GangBook
from scheduler.core.gangs.cost import GangCost
from scheduler.core.gangs.gang import GangError, GangOptions, Strategy
from scheduler.core.gangs.hoarding import Hoarding
from scheduler.core.gangs.incomplete import Incomplete
from scheduler.core.gangs.lacking import Lacking
from scheduler.core.gangs.min_resources import shortage
from scheduler.core.gangs.news import GangNews, NotPlaced
from scheduler.core.gangs.optimistic import Optimistic
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.rescue import Rescue
from scheduler.core.gangs.reservation import Reservations
from scheduler.core.gangs.rooms import Rooms
from scheduler.core.gangs.runs import Run, Runs
from scheduler.core.gangs.shortage import Shortage
from scheduler.core.placement import Placement, Within
from scheduler.core.pod_info import PodInfo
from scheduler.core.post_filters import PostFilters
from scheduler.core.queue import Place, QueuedPod, SchedulingQueue
from scheduler.core.state import ClusterState

_TRIED = (Place.ACTIVE, Place.BACKOFF, Place.UNSCHEDULABLE)
"""Where members wait that could be placed."""


class GangDispatch:
    """Works on the engine's own state and queue."""

    def __init__(
        self,
        state: ClusterState,
        queue: SchedulingQueue,
        cycles: Mapping[str, Cycle],
        clock: Callable[[], float],
        post_filters: PostFilters,
        *,
        on_freed: Callable[[str], None],
        on_released: Callable[[str, PodInfo], None],
        on_asleep: Callable[[str, Iterable[str]], None],
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`on_freed`: called with the name of a node that others may use again. `on_released`: the same, if
        it was this pod's hold that kept it, or volumes, from them. `on_asleep`: with the name
        of a profile and of plugins that have rejected, or may be about to reject, one of its pods."""
        self._state, self._queue, self._clock = state, queue, clock
        policies = {name: cycle.profile.gangs for name, cycle in cycles.items()}
        self.book = GangBook(state.nodes.cluster, policies)
        self.cost = GangCost()
        self.accounts = GangAccounts(self.book, state, queue, cycles, self.cost, clock)
        workspace = self.workspace = Workspace(
            state,
            Rooms(state),
            cycles,
            clock,
            self.cost,
            policy=self.book.policy,
            exists=lambda ref: self.book.named(ref) is not None,
            on_released=on_released,
            kept_from=lambda info: self.reservations.kept_from(info),
        )
        self.hoarding = Hoarding(workspace)
        self.optimistic = Optimistic(workspace, self.hoarding)
        self._strategies: Mapping[Strategy, GangStrategy] = {
            Strategy.ATOMIC: Atomic(workspace),
            Strategy.HOARDING: self.hoarding,
            Strategy.OPTIMISTIC: self.optimistic,
        }
        self._lacking = Lacking(self.book, queue, workspace)
        self.reservations = Reservations(state, self.cost, clock, self._lacking.wanting)
        self._shortage = Shortage(state, queue, self.book, clock, self._lacking.wanting, self.hoarding)
        self.incomplete = Incomplete(self.book, queue, clock, self._why_incomplete)
        self.rescue = Rescue(workspace, queue, post_filters, self.hoarding, self._drop, self._settle)
        self._on_freed, self._on_asleep, self._cpu_clock = on_freed, on_asleep, cpu_clock
        self.decided: deque[MemberOutcome] = deque()
        self._runs = Runs()
        self.news = GangNews()
        self._terms: dict[GangRef, GangOptions] = {}
        """What gangs asked for when they were planned last."""
        self._first: deque[GangRef] = deque()
        """Gangs that are tried before all others, once."""

    @property
    def planning(self) -> bool:
        """Whether an attempt is under way."""
        return bool(self._runs)

    @property
    def planning_alone(self) -> bool:
        """Whether an attempt is under way that nobody else may be decided beside."""
        return self._runs.alone is not None

    def is_trying(self, uid: str) -> bool:
        """Whether an attempt is under way for the member."""
        return self._runs.concerning(uid) is not None

    # ---- what the watch says

    def upsert(self, info: PodInfo) -> None:
        """A pod of ours as it is now, after the queue or the state has taken it in."""
        known = self.book.of(info.uid)
        before = known.members.get(info.uid) if known is not None else None
        gang = self.book.upsert(info)
        if known is not None and known is not gang:
            self.accounts.remove(known, info.uid)
            self._review(known)
        if gang is not None:
            self.accounts.upsert(gang, info)
            self.news.compare(gang, info)
            self._review(gang, info.uid)
        changed = before is None or before.pod.spec != info.pod.spec or info.terminating
        if info.node_name:
            self._drop(info.uid)  # whoever bound it
            self.workspace.rooms.hand_over(info.uid)
        if changed:
            self._drop_attempt(info.uid)
        queued = self._queue.get(info.uid)
        if queued is not None and queued.place is Place.TENTATIVE and changed:
            self.workspace.rooms.give_back(info.uid)
            self._drop(info.uid)
            self._queue.activate(queued, "PodUpdate")

    def remove(self, uid: str) -> None:
        """The pod is gone."""
        gang = self.book.remove(uid)
        if gang is None:
            return
        self.accounts.remove(gang, uid)
        self.news.forget(uid)
        self._drop(uid)
        self._drop_attempt(uid)
        self.workspace.rooms.hand_over(uid)
        self._review(gang, uid)

    def node_overlapped(self, node: str) -> None:
        """Others' pods have come to a node, it has shrunk, or it is gone."""
        self._settle(self.hoarding.broken_on(node))

    def room_freed(self, gang: Gang, node: str) -> None:
        """A pod has left a node that members are nominated to. When nobody else is to leave for the gang
        it is tried at once, whatever its backoff: it was woken in vain meanwhile."""
        if any(self._state.is_being_evicted(placed.info) for placed in self._state.pods_on(node)):
            return
        if not self.rescue.awaits_victims(gang):
            members = (pod for pod in map(self._queue.get, gang.members) if pod is not None)
            asleep = (pod for pod in members if pod.place in (Place.UNSCHEDULABLE, Place.BACKOFF))
            first = next(asleep, None)
            if first is not None:
                self._queue.activate(first, "VictimsGone")

    def group_changed(self, ref: GangRef) -> None:
        """What the gang asks for is another thing now, or it is known now."""
        gang = self.book.named(ref)
        if gang is None:
            return
        self.accounts.changed(gang)
        self._review(gang)
        members = [pod for pod in map(self._queue.get, gang.members) if pod is not None]
        self._queue.wake(members, "PodGroupChange")

    def commit_ended(self, ref: GangRef) -> None:
        """Its members are bound or planned again: from now on it is as it is described by now."""
        self.book.thaw(ref)
        self.group_changed(ref)

    def groups_replaced(self) -> None:
        """Any may have changed."""
        for gang in list(self.book):
            self.group_changed(gang.ref)

    # ---- decisions

    def put_first(self, ref: GangRef) -> None:
        """The gang is tried before all others: it is bound in part."""
        self._first.append(ref)

    def next_first(self) -> QueuedPod | None:
        """A waiting member of the next of these gangs, handed out as by the queue."""
        while self._first:
            gang = self.book.named(self._first.popleft())
            for queued in map(self._queue.get, gang.members if gang is not None else ()):
                if queued is not None and queued.place in _TRIED:
                    self._queue.take(queued)
                    return queued
        return None

    def begin(self, queued: QueuedPod) -> bool:
        """Begins an attempt if the pod, which the queue has just handed out, is a member of a gang."""
        gang = self.book.of(queued.info.uid)
        if gang is None:
            return False
        if self._why_incomplete(gang):  # since it was handed out to be bound, say
            self.incomplete.add(gang, queued)
            return True
        under_way = self._runs.of(gang)
        if under_way is not None:
            under_way.late[queued.info.uid] = queued
            return True
        taken, tentative = {queued.info.uid: queued}, set[str]()
        for uid in gang.members:
            other = self._queue.get(uid)
            if other is None or other.info.terminating:
                continue  # it may stay so for long, for its finalizers; it is let go of when its turn comes
            if other.place in _TRIED:
                self._queue.take(other)
                taken[uid] = other
            elif other.place is Place.TENTATIVE:
                tentative.add(uid)
        options = self.book.options_to_plan(gang)
        short = shortage(gang, options, self._state)
        if short:
            outcomes = [self.workspace.turned_away(pod, short) for pod in taken.values()]
            self._settle(outcomes)
            self._lacking.tell(gang, outcomes, self.news)
            return True
        for name in {pod.kind[0] for pod in taken.values()}:
            # What happens while the attempt goes on may help just as well as what happens after it.
            self._on_asleep(name, [plugin.name for plugin in self.workspace.cycles[name].profile.filters])
        self._terms[gang.ref] = self.book.options(gang)
        strategy = self._strategies[options.strategy]
        attempt = self.rescue.attempt(gang, options, strategy.attempt(gang, options, list(taken.values())))
        concerns = taken.keys() | tentative
        self._runs.add(Run(gang, options.strategy, attempt, taken, concerns, strategy.beside))
        return True

    def work(self, until: float) -> bool:
        """Goes on with the attempt until the clock says `until`; returns whether that is its end. The
        outcomes are then in `decided`."""
        run, began = self._runs.current, self._cpu_clock()
        if run is None:
            return True
        try:
            return self._work(run, until)
        finally:
            self.cost.planning_cpu_s[run.strategy.value] += self._cpu_clock() - began

    def _work(self, run: Run, until: float) -> bool:
        while True:
            try:
                beside = next(run.attempt)
            except StopIteration as end:
                self._end(run, end.value)
                return True
            self._runs.turns(run, beside=bool(beside))
            if self._clock() >= until:
                return False

    def fail(self, message: str) -> None:
        """The attempt has ended in an error: all members are tried again after a backoff."""
        run = self._runs.current
        if run is not None:
            failed = Placement(None, message)
            left = [pod for pod in run.taken.values() if pod.place is Place.IN_FLIGHT]
            self._end(run, [MemberOutcome(pod, failed, retry=True) for pod in left])
            self.news.not_placed(NotPlaced(run.gang.ref, "SchedulerError", message))

    def give_way(self, queued: QueuedPod, within: Within | None) -> Placement | None:
        """A node for a pod that found none, if gangs that must give way to it hold what it needs."""
        name, key = queued.kind
        placement, outcomes = self.hoarding.give_way(queued.info, key, name, within)
        self._settle(outcomes)
        return placement

    def give_up(self, uid: str, why: str) -> bool:
        """Ends the hold of this pod, or the plan that has taken it up; returns whether there was one."""
        if uid in self._state.pods and self.is_trying(uid):
            self._drop_attempt(uid)
            return True
        outcomes = self.hoarding.give_up(uid, why)
        self._settle(outcomes)
        return bool(outcomes)

    def expire(self) -> None:
        """Ends holds whose time is up, and looks whether a gang has waited too long."""
        due = self.hoarding.next_due()
        if self.planning_alone:
            return
        if due is not None and due <= self._clock():
            self._settle(self.hoarding.expired())
        for node in self.reservations.look():
            self._on_freed(node)
        self._shortage.look()
        self.accounts.look()

    def next_decided(self) -> MemberOutcome | None:
        """The next outcome that has not been handed out, of a member that still waits."""
        while self.decided:
            outcome = self.decided.popleft()
            if self._queue.get(outcome.queued.info.uid) is outcome.queued:
                return outcome
        return None

    def next_due(self) -> float | None:
        """When `incomplete` or `expire` may have something to do."""
        times = (
            self.incomplete.next_due(),
            self.hoarding.next_due(),
            self.reservations.next_due(),
            self._shortage.next_due(),
            self.accounts.next_due(),
        )
        return min((time for time in times if time is not None), default=None)

    # ---- internals

    def _why_incomplete(self, gang: Gang) -> str:
        """Why nothing can be tried yet; empty when it can."""
        try:
            options = self.book.options_to_plan(gang)
        except GangError as error:
            return str(error)
        if self.book.is_settling(gang.ref):
            return f"gang {gang.ref} has lost members; it may be started anew"
        if self._strategies[options.strategy].wants(gang.existing, options):
            return ""
        lacks = f"gang {gang.ref} has {gang.existing} of the {options.min_count} members that it needs"
        return lacks + gang.hint

    def _review(self, gang: Gang, uid: str | None = None) -> None:
        """Moves members that wait to where they belong: `uid`, or all if that has changed."""
        if not gang.members:
            self.incomplete.forget(gang.ref)
            self._terms.pop(gang.ref, None)
            self._serve(gang.ref)
            return
        self._start_over_if_changed(gang)
        incomplete = bool(self._why_incomplete(gang))
        uids: Iterable[str] = gang.members if incomplete != gang.incomplete or uid is None else (uid,)
        gang.incomplete = incomplete
        for member in list(uids):
            queued = self._queue.get(member)
            if queued is None or queued.place in (Place.IN_FLIGHT, Place.GATED, Place.TENTATIVE):
                continue
            if incomplete and queued.place is not Place.INCOMPLETE:
                self.incomplete.add(gang, queued)
            elif not incomplete and queued.place is Place.INCOMPLETE:
                self._queue.activate(queued, "GangComplete")
        if not incomplete:
            self.incomplete.forget(gang.ref)

    def _settle(self, outcomes: Iterable[MemberOutcome]) -> None:
        """Puts the members where their outcomes say, and those that are worth a word in `decided`."""
        grown: dict[GangRef, bool] = {}
        """Gangs that still lack something → whether some of their members found places now."""
        for outcome in outcomes:
            queued, placement = outcome.queued, outcome.placement
            if self._queue.get(queued.info.uid) is not queued:
                continue  # gone meanwhile
            if outcome.again:
                self._queue.activate(queued, "GangHolds")
                continue
            if outcome.tentative:
                self._queue.set_tentative(queued)
            elif outcome.preemption is not None:
                if queued.place is not Place.IN_FLIGHT:
                    self._queue.take(queued)
            elif placement.node is None and outcome.retry:
                self._queue.set_backoff(queued)
            elif placement.node is None:
                self._queue.set_unschedulable(queued, placement.rejected_by)
                self._on_asleep(queued.kind[0], placement.rejected_by)
            else:
                if queued.place is not Place.IN_FLIGHT:
                    self._queue.take(queued)
                freed = self.workspace.rooms.nominated(queued.info.uid)
                outcome = replace(outcome, volumes=self.workspace.rooms.hand_over(queued.info.uid))
                if freed is not None:
                    self._on_freed(freed)
            self.decided.append(outcome)
            if outcome.commit is not None:
                self.book.freeze(outcome.commit.ref, self._terms.get(outcome.commit.ref))
                self.accounts.commits(outcome.commit.ref)
                self._serve(outcome.commit.ref)
            elif placement.node is None or outcome.tentative:
                gang = self.book.of(queued.info.uid)
                if gang is not None:
                    self.reservations.waits(gang.ref, self.book.policy(gang))
                    self.accounts.refused(gang.ref)
                    grown[gang.ref] = grown.get(gang.ref, False) or outcome.tentative
        for ref, more in grown.items():
            self._shortage.failed(ref, anyway=more)

    def _has_new_terms(self, gang: Gang) -> bool:
        """Whether it asks for anything else than when it was planned last."""
        terms = self._terms.get(gang.ref)
        try:
            return terms is not None and self.book.options(gang) != terms
        except GangError:
            return True

    def _start_over_if_changed(self, gang: Gang) -> None:
        """What is held or claimed for other terms is given up. An attempt under way is made to its end."""
        if self._runs.of(gang) is not None or not self._has_new_terms(gang):
            return
        del self._terms[gang.ref]
        why = "what it asks for has changed"
        self._settle(self.hoarding.give_up_all(gang.ref, why))
        self._settle(self.optimistic.give_up_all(gang.ref, why))

    def _serve(self, ref: GangRef) -> None:
        self._shortage.served(ref)
        self.hoarding.served(ref)
        for node in self.reservations.served(ref):
            self._on_freed(node)

    def _drop(self, uid: str) -> None:
        for strategy in self._strategies.values():
            strategy.drop(uid)

    def _drop_attempt(self, uid: str) -> None:
        """A member has changed: what was found so far is of no use."""
        run = self._runs.concerning(uid)
        if run is None:
            return
        run.attempt.close()
        self._runs.remove(run)
        for queued in (*run.taken.values(), *run.late.values()):
            if self._queue.get(queued.info.uid) is queued and queued.place in (Place.IN_FLIGHT, *_TRIED):
                self._queue.activate(queued, "GangChanged")
        if self.book.named(run.gang.ref) is run.gang:
            self._review(run.gang)

    def _end(self, run: Run, outcomes: Sequence[MemberOutcome]) -> None:
        self._runs.remove(run)
        self._settle(outcomes)
        if self.book.named(run.gang.ref) is run.gang:
            self._lacking.tell(run.gang, outcomes, self.news)
            self._start_over_if_changed(run.gang)
        for queued in run.late.values():
            if self._queue.get(queued.info.uid) is queued and queued.place is Place.IN_FLIGHT:
                self._queue.activate(queued, "GangPlanned")
