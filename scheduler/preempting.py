"""Carries out preemptions: between the engine, which chooses victims, and the writer, which deletes pods.

The preemptor's nomination is written before its first victim is touched. Whoever takes over in between
then finds a pod that has its node, and victims of that node that are going: it waits for them instead
of choosing others.

A gang's members wait for room together: the nominations of all of them are written before the first
victim is touched, and when one of them is gone before, nobody has to leave.

A victim may be wanted by several preemptors and is deleted once. One whose bind has not been sent
yet loses it and lives; a bind under way ends first, or the pod could be deleted on no node and bound
after that.

Source: prepareCandidateAsync (pkg/scheduler/framework/preemption/executor.go).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from scheduler.core.engine import Decision, Engine
from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption
from scheduler.kube.binding import BindOutcome, Bound, Refused
from scheduler.kube.deletion import Deleted, DeletionOutcome
from scheduler.kube.reports import PodReports, deletion_of
from scheduler.kube.writer import Writer
from scheduler.observe.metrics import Metrics

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _UnderWay:
    preemptor: PodInfo
    """The pod, or the first of the gang's members."""
    preemption: Preemption
    unwritten: set[str]
    """Preemptors whose nominations are not written yet."""
    unsettled: set[str]
    """Victims that still have to go."""
    failed: bool = False


@dataclass(slots=True)
class _Victim:
    info: PodInfo
    first: _UnderWay
    """The preemption that its owner is told of."""
    preemptions: list[_UnderWay]
    awaits_bind: bool


class Preempting:
    """All preemptions under way.

    `is_binding(uid)` says whether the pod's bind has no outcome yet; `recall_bind(uid)` takes it back if
    nothing of it was sent, and returns whether it did.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        is_binding: Callable[[str], bool],
        recall_bind: Callable[[str], bool],
    ) -> None:
        self._engine, self._metrics = engine, metrics
        self._is_binding, self._recall_bind = is_binding, recall_bind
        self._preemptions: dict[str, _UnderWay] = {}
        """By preemptor; all members of a gang have the same."""
        self._victims: dict[str, _Victim] = {}

    def connect(self, writer: Writer, reports: PodReports) -> None:
        """Where it goes; before `start`."""
        self._writer, self._reports = writer, reports

    @property
    def under_way(self) -> int:
        """Pods that wait for victims' deletions to be accepted."""
        return len(self._preemptions)

    def start(self, decision: Decision, preemption: Preemption) -> None:
        """Carries out the preemption of a decision; of a gang's, when all its members' decisions are known.
        The engine hears of its end."""
        uid = decision.pod.uid
        if uid not in self._preemptions:
            self._register(decision.pod, preemption)
        self._reports.undecided(decision, then=partial(self._nominated, uid, self._preemptions[uid]))

    def bind_ended(self, uid: str, outcome: BindOutcome) -> None:
        """A victim may have waited for this."""
        victim = self._victims.get(uid)
        if victim is None:
            return
        victim.awaits_bind = False
        if isinstance(outcome, Bound):
            self._delete(victim)
        else:
            self._settle(uid, "Unbound")

    def on_deleted(self, uid: str, outcome: DeletionOutcome) -> None:
        """For `Writer`: the definite end of a deletion."""
        victim = self._victims[uid]
        match outcome:
            case Deleted():
                first = victim.first
                self._reports.preempted(victim.info, first.preemptor, first.preemption)
            case Refused(message):
                log.warning("victim can't be deleted", pod=victim.info.name, message=message)
        self._settle(uid, type(outcome).__name__, failed=isinstance(outcome, Refused))

    def pod_gone(self, uid: str) -> None:
        """The pod, victim or preemptor, is deleted or has finished."""
        self.preemptor_gone(uid)
        victim = self._victims.get(uid)
        if victim is not None and (victim.awaits_bind or self._writer.cancel_unsent(uid)):
            self._settle(uid, "Gone")  # else it is probably our doing, and the answer is on its way

    def preemptor_gone(self, uid: str) -> None:
        """It is deleted, or somebody else gave it a node: victims that can still be spared are."""
        under_way = self._preemptions.get(uid)
        if under_way is not None:
            self._forget(under_way)
            self._spare_victims(under_way)
            self._engine.preemption_failed(uid)

    def forget_all_but(self, knows: Callable[[str], bool]) -> None:
        """After a gap in the watch: pods whose uids are not known any more are gone."""
        for uid in [*self._preemptions, *self._victims]:
            if not knows(uid):
                self.pod_gone(uid)

    def _register(self, preemptor: PodInfo, preemption: Preemption) -> None:
        names, gang = [victim.name for victim in preemption.victims], preemption.gang
        log.info(
            "preempting",
            pod=preemptor.name,
            gang=gang.name if gang is not None else None,
            node=preemption.node,
            victims=names,
        )
        preemptors = set(gang.nodes) if gang is not None else {preemptor.uid}
        victims = {victim.uid for victim in preemption.victims}
        under_way = _UnderWay(preemptor, preemption, preemptors, victims)
        for uid in preemptors:
            self._preemptions[uid] = under_way
        for displaced in preemption.displaced:
            self._reports.displaced(displaced)

    def _nominated(self, uid: str, under_way: _UnderWay) -> None:
        """The preemptor's status says where it is to go."""
        under_way.unwritten.discard(uid)
        if under_way.unwritten or self._preemptions.get(uid) is not under_way:
            return  # others are to follow, or one of them is gone
        for victim in under_way.preemption.victims:
            self._remove(victim.uid, under_way)
        self._end_if_settled(under_way)

    def _forget(self, under_way: _UnderWay) -> None:
        gang = under_way.preemption.gang
        for uid in gang.nodes if gang is not None else (under_way.preemptor.uid,):
            del self._preemptions[uid]

    def _remove(self, uid: str, under_way: _UnderWay) -> None:
        placed = self._engine.state.pods.get(uid)
        if uid in self._victims:
            self._victims[uid].preemptions.append(under_way)
        elif placed is None or placed.info.terminating:
            under_way.unsettled.discard(uid)
        elif placed.assumed and self._recall_bind(uid):
            self._metrics.victims.labels("Unbound").inc()
            self._reports.preempted(placed.info, under_way.preemptor, under_way.preemption, unbound=True)
            under_way.unsettled.discard(uid)
        else:
            awaits_bind = self._is_binding(uid)
            victim = self._victims[uid] = _Victim(placed.info, under_way, [under_way], awaits_bind)
            if not awaits_bind:
                self._delete(victim)

    def _delete(self, victim: _Victim) -> None:
        first = victim.first
        self._writer.delete(deletion_of(victim.info, first.preemptor, first.preemption))

    def _settle(self, uid: str, outcome: str, *, failed: bool = False) -> None:
        victim = self._victims.pop(uid)
        self._metrics.victims.labels(outcome).inc()
        for under_way in victim.preemptions:
            if self._preemptions.get(under_way.preemptor.uid) is not under_way:
                continue  # the preemptor is gone, and this victim could not be spared any more
            under_way.unsettled.discard(uid)
            if failed:
                under_way.failed = True
                self._spare_victims(under_way)
            self._end_if_settled(under_way)

    def _spare_victims(self, under_way: _UnderWay) -> None:
        """Those of which nothing was sent, and that no other preemptor wants."""
        for uid in [uid for uid in under_way.unsettled if uid in self._victims]:
            victim = self._victims[uid]
            if len(victim.preemptions) > 1:
                victim.preemptions.remove(under_way)
            elif victim.awaits_bind or self._writer.cancel_unsent(uid):
                del self._victims[uid]
            else:
                continue
            under_way.unsettled.discard(uid)

    def _end_if_settled(self, under_way: _UnderWay) -> None:
        uid = under_way.preemptor.uid
        if under_way.unsettled or self._preemptions.get(uid) is not under_way:
            return
        self._forget(under_way)
        if under_way.failed:
            self._engine.preemption_failed(uid)
        else:
            self._engine.preemption_done(uid)
