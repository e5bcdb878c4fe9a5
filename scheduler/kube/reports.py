"""Tells a pod's owner where it went, or why it waits or had to go: events and the pod's status.

They carry kube-scheduler's texts. What the pod's status says already is not written again, so a
pod that is tried in vain every few seconds costs the API server nothing; its event is renewed every
few minutes, since events expire.
Source: handleSchedulingFailure and updatePod (pkg/scheduler/schedule_one.go), NewExecutor
(pkg/scheduler/framework/preemption/executor.go).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from scheduler.api import Pod, PodCondition
from scheduler.core.engine import Decision, Verdict
from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption
from scheduler.kube.payloads import Condition, DeleteRequest, PodEvent, PodReference, StatusPatch
from scheduler.kube.writer import Writer

RENEW_EVENT_S = 300.0

Reason = Literal["Unschedulable", "SchedulerError", "WaitingForGang"]
EventType = Literal["Normal", "Warning"]
_REASONS: Mapping[Verdict, Reason] = {
    Verdict.UNSCHEDULABLE: "Unschedulable",
    Verdict.ERROR: "SchedulerError",
    # Never "Unschedulable": autoscalers would add nodes, which is not what is missing.
    Verdict.WAITING: "WaitingForGang",
    Verdict.TENTATIVE: "WaitingForGang",
}


class PodReports:
    """Writes through `writer`; `clock` gives seconds."""

    def __init__(self, writer: Writer, *, clock: Callable[[], float]) -> None:
        self._writer, self._clock = writer, clock
        self._event_at: dict[str, float] = {}
        self._nominated: dict[str, str] = {}
        """Pod → nominated node as last written: the watch may not have shown it yet."""

    def scheduled(self, decision: Decision, node: str) -> None:
        """The pod is bound (the API server has set the condition, and cleared the nomination)."""
        self._nominated.pop(decision.pod.uid, None)
        note = f"Successfully assigned {decision.pod.name} to {node}"
        self._post_event(decision.pod.pod, "Normal", "Scheduled", "Binding", note)

    def undecided(self, decision: Decision, then: Callable[[], None] | None = None) -> None:
        """The pod was tried and has no node. `then` is called when its status was written or given up."""
        if decision.verdict is Verdict.TERMINATING:
            self._post_event(decision.pod.pod, "Warning", "FailedScheduling", "Scheduling", decision.message)
            return
        self._report(decision, _REASONS[decision.verdict], decision.message, decision.nominated_node, then)

    def bind_refused(self, decision: Decision, message: str) -> None:
        """The API server would not bind the pod to the node that was chosen."""
        self._report(decision, "SchedulerError", f"binding rejected: {message}", "")

    def preempted(
        self, victim: PodInfo, preemptor: PodInfo, preemption: Preemption, *, unbound: bool = False
    ) -> None:
        """The victim is being deleted, or (`unbound`) its bind was taken back before it was sent."""
        gang = preemption.gang
        name = gang.name if gang is not None else f"pod {preemptor.uid}"
        note = f"Preempted by {name} on node {preemption.node}"
        if unbound:
            note += " (in kube-scheduler memory)."
        self._post_event(victim.pod, "Normal", "Preempted", "Preempting", note, because_of=preemptor.pod)

    def differs(self, info: PodInfo, message: str) -> None:
        """The pod says of its gang something else than what counts."""
        self._post_event(info.pod, "Warning", "GangOptionsDiffer", "Scheduling", message)

    def displaced(self, info: PodInfo) -> None:
        """The pod is nominated to its node no more: one of higher priority is."""
        self._patch(info.pod, None, "")

    def expected(self, decision: Decision, node: str) -> None:
        """The pod is to be bound to the node once its volumes are. Autoscalers read that, and so does
        whoever decides after us (NominatedNodeNameForExpectation, on by default since 1.35)."""
        self._patch(decision.pod.pod, None, node)

    def volumes_not_bound(self, decision: Decision, message: str) -> None:
        """The pod's volumes could not be made ready on the node that was chosen."""
        self._report(decision, "SchedulerError", message, "")

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._event_at.pop(uid, None)
        self._nominated.pop(uid, None)

    def forget_all_but(self, knows: Callable[[str], bool]) -> None:
        """After a gap in the watch: the pods whose uids are not known any more are gone."""
        self._event_at = {uid: at for uid, at in self._event_at.items() if knows(uid)}
        self._nominated = {uid: node for uid, node in self._nominated.items() if knows(uid)}

    def _report(
        self,
        decision: Decision,
        reason: Reason,
        message: str,
        nominated_node: str | None,
        then: Callable[[], None] | None = None,
    ) -> None:
        pod = decision.pod.pod
        current = _condition(pod, "PodScheduled")
        was_false = current is not None and current.status == "False"
        said = was_false and current is not None and (current.reason, current.message) == (reason, message)
        now = self._clock()
        tell = not said or now - self._event_at.get(decision.pod.uid, -RENEW_EVENT_S) >= RENEW_EVENT_S
        condition = None
        if not said:
            generation, transitioned = pod.metadata.generation, not was_false
            condition = Condition("PodScheduled", "False", reason, message, generation, transitioned)
        self._patch(pod, condition, nominated_node, then)
        if tell:
            self._event_at[decision.pod.uid] = now
            if reason == "WaitingForGang":
                self._post_event(pod, "Normal", reason, "Scheduling", message)
            else:
                self._post_event(pod, "Warning", "FailedScheduling", "Scheduling", message)

    def _patch(
        self,
        pod: Pod,
        condition: Condition | None,
        nominated_node: str | None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """What of this the status does not say yet; None: nothing to say."""
        metadata = pod.metadata
        shown = pod.status.nominated_node_name or ""
        if nominated_node == shown == self._nominated.get(metadata.uid, shown):
            nominated_node = None
        if nominated_node is not None:
            self._nominated[metadata.uid] = nominated_node
        if condition is not None or nominated_node is not None:
            patch = StatusPatch(
                metadata.namespace,
                metadata.name,
                metadata.uid,
                condition,
                nominated_node,
                metadata.resource_version if nominated_node else "",
            )
            self._writer.patch_status(patch, then)
        elif then is not None:
            then()

    def _post_event(
        self,
        pod: Pod,
        kind: EventType,
        reason: str,
        action: str,
        note: str,
        *,
        because_of: Pod | None = None,
    ) -> None:
        metadata = pod.metadata
        self._writer.post_event(
            PodEvent(
                namespace=metadata.namespace,
                name=metadata.name,
                uid=metadata.uid,
                type=kind,
                reason=reason,
                action=action,
                note=note,
                scheduler_name=(because_of or pod).spec.scheduler_name or "",
                resource_version=metadata.resource_version,
                related=None if because_of is None else _reference(because_of),
            )
        )


def deletion_of(victim: PodInfo, preemptor: PodInfo, preemption: Preemption) -> DeleteRequest:
    """The victim's deletion, and the condition that says why."""
    metadata = victim.pod.metadata
    reason = "PreemptionByScheduler"
    kind = preemption.gang.kind if preemption.gang is not None else "pod"
    message = f"{preemptor.pod.spec.scheduler_name}: preempting to accommodate a higher priority {kind}"
    current = _condition(victim.pod, "DisruptionTarget")
    was_true = current is not None and current.status == "True"
    why = None
    if not (was_true and current is not None and (current.reason, current.message) == (reason, message)):
        condition = Condition(
            "DisruptionTarget", "True", reason, message, metadata.generation, transitioned=not was_true
        )
        why = StatusPatch(metadata.namespace, metadata.name, metadata.uid, condition)
    return DeleteRequest(metadata.namespace, metadata.name, metadata.uid, why)


def _condition(pod: Pod, kind: str) -> PodCondition | None:
    return next((c for c in pod.status.conditions or () if c.type == kind), None)


def _reference(pod: Pod) -> PodReference:
    metadata = pod.metadata
    return PodReference(metadata.namespace, metadata.name, metadata.uid, metadata.resource_version)
