"""Tells a pod's owner where it went, or why it waits: events and the PodScheduled condition.

They carry kube-scheduler's texts. What the pod's condition says already is not written again, so a
pod that is tried in vain every few seconds costs the API server nothing; its event is renewed every
few minutes, since events expire.
Source: handleSchedulingFailure and updatePod (pkg/scheduler/schedule_one.go).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from scheduler.core.engine import Decision, Verdict
from scheduler.kube.payloads import ConditionPatch, PodEvent
from scheduler.kube.writer import Writer

RENEW_EVENT_S = 300.0

Reason = Literal["Unschedulable", "SchedulerError"]
EventType = Literal["Normal", "Warning"]


class PodReports:
    """Writes through `writer`; `clock` gives seconds."""

    def __init__(self, writer: Writer, *, clock: Callable[[], float]) -> None:
        self._writer, self._clock = writer, clock
        self._event_at: dict[str, float] = {}

    def scheduled(self, decision: Decision, node: str) -> None:
        """The pod is bound (the API server has set the condition itself)."""
        self._post_event(
            decision, "Normal", "Scheduled", f"Successfully assigned {decision.pod.name} to {node}"
        )

    def undecided(self, decision: Decision) -> None:
        """The pod was tried and has no node."""
        if decision.verdict is Verdict.TERMINATING:
            self._post_event(decision, "Warning", "FailedScheduling", decision.message)
        else:
            reason: Reason = (
                "Unschedulable" if decision.verdict is Verdict.UNSCHEDULABLE else "SchedulerError"
            )
            self._report(decision, reason, decision.message)

    def bind_refused(self, decision: Decision, message: str) -> None:
        """The API server would not bind the pod to the node that was chosen."""
        self._report(decision, "SchedulerError", f"binding rejected: {message}")

    def volumes_not_bound(self, decision: Decision, message: str) -> None:
        """The pod's volumes could not be made ready on the node that was chosen."""
        self._report(decision, "SchedulerError", message)

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._event_at.pop(uid, None)

    def forget_all_but(self, knows: Callable[[str], bool]) -> None:
        """After a gap in the watch: the pods whose uids are not known any more are gone."""
        self._event_at = {uid: at for uid, at in self._event_at.items() if knows(uid)}

    def _report(self, decision: Decision, reason: Reason, message: str) -> None:
        pod = decision.pod.pod
        current = next((c for c in pod.status.conditions or () if c.type == "PodScheduled"), None)
        was_false = current is not None and current.status == "False"
        said = was_false and current is not None and (current.reason, current.message) == (reason, message)
        now = self._clock()
        if said and now - self._event_at.get(decision.pod.uid, -RENEW_EVENT_S) < RENEW_EVENT_S:
            return
        self._event_at[decision.pod.uid] = now
        if not said:
            self._writer.patch_condition(
                ConditionPatch(
                    namespace=pod.metadata.namespace,
                    name=pod.metadata.name,
                    uid=pod.metadata.uid,
                    reason=reason,
                    message=message,
                    generation=pod.metadata.generation,
                    transitioned=not was_false,
                )
            )
        self._post_event(decision, "Warning", "FailedScheduling", message)

    def _post_event(self, decision: Decision, kind: EventType, reason: str, note: str) -> None:
        pod = decision.pod.pod
        self._writer.post_event(
            PodEvent(
                namespace=pod.metadata.namespace,
                name=pod.metadata.name,
                uid=pod.metadata.uid,
                type=kind,
                reason=reason,
                action="Binding" if reason == "Scheduled" else "Scheduling",
                note=note,
                scheduler_name=pod.spec.scheduler_name or "",
                resource_version=pod.metadata.resource_version,
            )
        )
