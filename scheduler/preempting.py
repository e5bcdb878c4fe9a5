"""Carries out preemptions: between the engine, which chooses victims, and the writer, which deletes pods.

The preemptor's nomination is written before its first victim is touched. Whoever takes over in between
then finds a pod that has its node, and victims of that node that are going: it waits for them instead
of choosing others.

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


@dataclass(slots=True)
class _UnderWay:
    preemptor: PodInfo
    preemption: Preemption
    unsettled: set[str]
    """Victims that still have to go."""
    failed: bool = False


@dataclass(slots=True)
class _Victim:
    info: PodInfo
    first: _UnderWay
    """The preemption that its owner is told of."""
    preemptors: list[str]
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
        self._victims: dict[str, _Victim] = {}

    def connect(self, writer: Writer, reports: PodReports) -> None:
        """Where it goes; before `start`."""
        self._writer, self._reports = writer, reports

    @property
    def under_way(self) -> int:
        return len(self._preemptions)

    def start(self, decision: Decision, preemption: Preemption) -> None:
        """Carries out the preemption of a decision. The engine hears of its end."""
        preemptor = decision.pod
        names = [victim.name for victim in preemption.victims]
        log.info("preempting", pod=preemptor.name, node=preemption.node, victims=names)
        victims = {victim.uid for victim in preemption.victims}
        self._preemptions[preemptor.uid] = _UnderWay(preemptor, preemption, victims)
        for displaced in preemption.displaced:
            self._reports.displaced(displaced)
        self._reports.undecided(decision, then=partial(self._begin, preemptor.uid))

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
                self._reports.preempted(victim.info, first.preemptor, first.preemption.node)
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
        under_way = self._preemptions.pop(uid, None)
        if under_way is not None:
            self._spare_victims(under_way)
            self._engine.preemption_failed(uid)

    def forget_all_but(self, knows: Callable[[str], bool]) -> None:
        """After a gap in the watch: pods whose uids are not known any more are gone."""
        for uid in [*self._preemptions, *self._victims]:
            if not knows(uid):
                self.pod_gone(uid)

    def _begin(self, uid: str) -> None:
        under_way = self._preemptions.get(uid)
        if under_way is None:
            return  # the preemptor is gone
        for victim in under_way.preemption.victims:
            self._remove(victim.uid, under_way)
        self._end_if_settled(uid)

    def _remove(self, uid: str, under_way: _UnderWay) -> None:
        placed, preemptor = self._engine.state.pods.get(uid), under_way.preemptor
        if uid in self._victims:
            self._victims[uid].preemptors.append(preemptor.uid)
        elif placed is None or placed.info.terminating:
            under_way.unsettled.discard(uid)
        elif placed.assumed and self._recall_bind(uid):
            self._metrics.victims.labels("Unbound").inc()
            self._reports.preempted(placed.info, preemptor, under_way.preemption.node, unbound=True)
            under_way.unsettled.discard(uid)
        else:
            awaits_bind = self._is_binding(uid)
            victim = self._victims[uid] = _Victim(placed.info, under_way, [preemptor.uid], awaits_bind)
            if not awaits_bind:
                self._delete(victim)

    def _delete(self, victim: _Victim) -> None:
        self._writer.delete(deletion_of(victim.info, victim.first.preemptor))

    def _settle(self, uid: str, outcome: str, *, failed: bool = False) -> None:
        victim = self._victims.pop(uid)
        self._metrics.victims.labels(outcome).inc()
        for preemptor in victim.preemptors:
            under_way = self._preemptions.get(preemptor)
            if under_way is None:
                continue  # gone, and this victim could not be spared any more
            under_way.unsettled.discard(uid)
            if failed:
                under_way.failed = True
                self._spare_victims(under_way)
            self._end_if_settled(preemptor)

    def _spare_victims(self, under_way: _UnderWay) -> None:
        """Those of which nothing was sent, and that no other preemptor wants."""
        for uid in [uid for uid in under_way.unsettled if uid in self._victims]:
            victim = self._victims[uid]
            if len(victim.preemptors) > 1:
                victim.preemptors.remove(under_way.preemptor.uid)
            elif victim.awaits_bind or self._writer.cancel_unsent(uid):
                del self._victims[uid]
            else:
                continue
            under_way.unsettled.discard(uid)

    def _end_if_settled(self, uid: str) -> None:
        under_way = self._preemptions[uid]
        if under_way.unsettled:
            return
        del self._preemptions[uid]
        if under_way.failed:
            self._engine.preemption_failed(uid)
        else:
            self._engine.preemption_done(uid)
