"""What comes after an attempt in vain: a gang all of whose members exist may have others evicted.

First it is planned once more as a whole, without what it holds or claims itself. Then, whatever its strategy,
a gang preempts as a whole: it gives up what it holds or claims, and each member that
the plan has a place for is *nominated* to its node. That keeps pods of the gang's priority or lower from the
room while the victims leave. When they are gone the gang is tried like any other. As long as victims leave
nodes that members are nominated to, nobody else is evicted for the gang. If they leave by the doing of a
former leader that died half-way, the gang looks anew for the rest afterwards.

Source: podGroupCycle (pkg/scheduler/schedule_one_podgroup.go), isOngoingPreemption
(pkg/scheduler/framework/preemption/podgrouppreemption.go).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace

from scheduler.core.gangs.attempt import Attempt, MemberOutcome, Workspace
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.commit import GangCommit
from scheduler.core.gangs.gang import GangOptions, Strategy
from scheduler.core.gangs.hoarding import Hoarding
from scheduler.core.gangs.preempting import Found, GangPreemption
from scheduler.core.placement import Placement
from scheduler.core.post_filters import PostFilters
from scheduler.core.queue import Place, QueuedPod, SchedulingQueue

_PREFIX = "pod group preemption: "


class Rescue:
    """`drop(uid)` has all strategies forget what they keep for a pod; `settle` puts members where their
    outcomes say."""

    def __init__(
        self,
        workspace: Workspace,
        queue: SchedulingQueue,
        post_filters: PostFilters,
        hoarding: Hoarding,
        drop: Callable[[str], None],
        settle: Callable[[Sequence[MemberOutcome]], None],
    ) -> None:
        self._workspace, self._queue, self._hoarding = workspace, queue, hoarding
        self._drop, self._settle = drop, settle
        self._nominations = workspace.state.nominations
        self._preemption = GangPreemption(workspace, post_filters, hoarding.held_with)

    def attempt(self, gang: Gang, options: GangOptions, attempt: Attempt) -> Attempt:
        """The strategy's attempt, and if nobody was placed so, one to make room, with nobody beside."""
        outcomes = yield from attempt
        if any(outcome.placement.node is not None and not outcome.tentative for outcome in outcomes):
            return outcomes
        done = False
        try:
            helped = yield from self._make_room(gang, options, outcomes)
            done = True
        finally:
            if not done:  # what the strategy has decided stands: rooms are held by now, or given up
                self._settle(outcomes)
        return helped

    def awaits_victims(self, gang: Gang) -> bool:
        """Whether pods are leaving the nodes that members are nominated to."""
        nodes = [self._nominations.node_of(uid) for uid in gang.members]
        return self._preemption.is_under_way([node for node in nodes if node is not None], gang.priority)

    # ---- internals

    def _make_room(
        self,
        gang: Gang,
        options: GangOptions,
        outcomes: list[MemberOutcome],
    ) -> Generator[None, None, list[MemberOutcome]]:
        own = {o.queued.info.uid: o for o in outcomes if o.queued.info.uid in gang.members}
        refused = [o for o in own.values() if o.placement.node is None and not (o.retry or o.again)]
        if not refused or gang.existing < options.min_count:
            return outcomes
        others = [pod for uid in gang.members if uid not in own and (pod := self._queue.get(uid)) is not None]
        waiting = [outcome.queued for outcome in own.values()]
        waiting += [pod for pod in others if pod.place is Place.TENTATIVE]
        placed = self._workspace.state.pods
        others_wait = any(p.place is Place.IN_FLIGHT and p.info.uid not in placed for p in others)
        if others_wait or self.awaits_victims(gang):
            text = "" if others_wait else "ongoing preemption on nominated nodes"
            return _with_text(outcomes, refused, text, keeps_nomination=True)
        found, helped = Found(""), None
        self._hoarding.lift(gang.ref)
        nominated = self._set_aside(gang)
        try:
            need = max(options.min_count - len(self._workspace.nodes_of(gang)), 1)
            if len(waiting) >= need and options.strategy is not Strategy.ATOMIC:
                helped = yield from self._at_once(gang, options, waiting, need)
            if len(waiting) >= need and helped is None and self._has_plugins(refused):
                found = yield from self._preemption.look(gang, options, waiting, need)
                if found.preemption is not None:
                    helped = _preempting(waiting, own, found, self._workspace.turned_away)
        finally:
            self._restore(nominated)
            if helped is None:
                self._hoarding.put_back(gang.ref)
        if helped is not None:
            for uid in list(gang.members):
                self._drop(uid)
            return [outcome for outcome in outcomes if outcome.queued.info.uid not in own] + helped
        if not (found.message or found.fits):
            return outcomes
        if found.fits:
            return [replace(o, retry=True) if o in refused else o for o in outcomes]
        return _with_text(outcomes, refused, found.message, keeps_nomination=False)

    def _at_once(
        self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod], need: int
    ) -> Generator[None, None, list[MemberOutcome] | None]:
        """A plan for all that the gang needs, which a strategy that takes members as they come may have
        missed: nobody is evicted for a gang that fits."""
        planning = self._workspace.planning(gang, options, waiting, need=need)
        yield from planning.steps()
        plan, commit = planning.plan, None
        if not plan.found:
            return None
        before = len(self._workspace.nodes_of(gang)) - len(plan.nodes)
        if before < options.min_count:
            commit = GangCommit(gang.ref, options.min_count, before, plan.nodes)
            self._workspace.cost.commits[options.strategy.value] += 1
        return [
            MemberOutcome(pod, Placement(plan.nodes[pod.info.uid]), commit=commit)
            if pod.info.uid in plan.nodes
            else self._workspace.refused(pod, planning)
            for pod in waiting
        ]

    def _has_plugins(self, refused: Sequence[MemberOutcome]) -> bool:
        cycles = self._workspace.cycles
        return all(cycles[outcome.queued.kind[0]].profile.post_filters for outcome in refused)

    def _set_aside(self, gang: Gang) -> dict[str, str]:
        """Takes the members' nominations back for a while; uid → node."""
        nodes = {uid: self._nominations.drop(uid) for uid in gang.members}
        return {uid: node for uid, node in nodes.items() if node is not None}

    def _restore(self, nominated: Mapping[str, str]) -> None:
        for uid, node in nominated.items():
            queued = self._queue.get(uid)
            if queued is not None and self._nominations.node_of(uid) is None:
                self._nominations.nominate(queued.info, node)


def _preempting(
    waiting: Sequence[QueuedPod],
    own: Mapping[str, MemberOutcome],
    found: Found,
    turned_away: Callable[[QueuedPod, str], MemberOutcome],
) -> list[MemberOutcome]:
    """Those that wait for room first; of the others those that were refused are so still."""
    preemption = found.preemption
    nodes = preemption.gang.nodes if preemption is not None and preemption.gang is not None else {}
    waits, left = [], []
    for pod in waiting:
        before = own.get(pod.info.uid)
        refused = before if before is not None and not before.tentative else turned_away(pod, "")
        if pod.info.uid in nodes:
            waits.append(replace(_with(refused, found.message), preemption=preemption))
        elif before is not None and not before.tentative:
            left.append(before)
        else:
            why = "its gang gave up what it held, to have others evicted"
            left.append(replace(turned_away(pod, why), retry=True))
    return waits + left


def _with_text(
    outcomes: list[MemberOutcome], refused: Sequence[MemberOutcome], text: str, *, keeps_nomination: bool
) -> list[MemberOutcome]:
    uids = {outcome.queued.info.uid for outcome in refused}
    return [
        replace(_with(outcome, text), keeps_nomination=keeps_nomination)
        if outcome.queued.info.uid in uids
        else outcome
        for outcome in outcomes
    ]


def _with(outcome: MemberOutcome, text: str) -> MemberOutcome:
    """The text is told, too."""
    placement, refusal = outcome.placement, outcome.refusal
    placement = replace(placement, message=_text(placement.message, text))
    refusal = replace(refusal, why=_text(refusal.why, text)) if refusal is not None else None
    return replace(outcome, placement=placement, refusal=refusal)


def _text(message: str, more: str) -> str:
    return f"{message} {_PREFIX}{more}".strip() if more else message
