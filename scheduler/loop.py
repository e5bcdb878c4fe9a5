"""The scheduling loop: hands the engine's decisions to the writer, and the watch's deltas to the engine.

A turn decides for a few milliseconds and then lets reads and writes go on. Decisions stop while too
many binds are under way, since the more are, the older the picture was that they were made on. Pods
whose volumes have to be made ready first don't count among these: that can take minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Generic

import structlog

from scheduler.api import Namespace, Node, Pod, pod_name
from scheduler.api_objects import ClusterObject
from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.gangs.commit import SINGLY, TXN_ANNOTATION
from scheduler.core.gangs.news import Differs, NotPlaced
from scheduler.core.gangs.ref import GROUPS
from scheduler.core.objects import K
from scheduler.gangs import Gangs, Placed
from scheduler.kube.binding import BindOutcome, Bound, BoundElsewhere, Gone, Refused
from scheduler.kube.deletion import DeletionOutcome
from scheduler.kube.gangs.groups import GroupConditions
from scheduler.kube.payloads import BindRequest
from scheduler.kube.reports import PodReports
from scheduler.kube.volume_binder import VolumeBinder
from scheduler.kube.volume_writes import VolumeRequest
from scheduler.kube.writer import Writer
from scheduler.observe.metrics import Metrics
from scheduler.preempting import Preempting
from scheduler.racing import Racing

log = structlog.get_logger(__name__)

SLICE_S = 0.01
"""A turn of deciding; far below the 50 ms after which others would notice."""
MAX_BINDS_UNDER_WAY = 512
"""Enough to keep the writer busy."""
_LONGEST_SLEEP_S = 1.0


class SchedulingLoop:
    """`may_decide` says whether a decision now would be ours to make and built on a true picture.

    Give `on_bound` and `on_deleted` to the writer, `on_volumes_bound` and `on_volumes_failed` to the volume
    binder; they are told once what became of each pod that was handed over.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        may_decide: Callable[[], bool],
        on_first_turn: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._metrics = engine, metrics
        self._may_decide, self._clock = may_decide, clock
        self._on_first_turn = on_first_turn
        self._work = asyncio.Event()
        self.sync_changed = asyncio.Event()
        """For whoever waits for the watches."""
        self._binds: dict[str, Placed] = {}
        self._preparing: dict[str, Placed] = {}
        """Pods whose volumes are not ready for the bind."""
        self.gangs = Gangs(engine, metrics, on_outcome=self._bind_ended, bind_single=self._send)
        self._preempting = Preempting(
            engine, metrics, is_binding=self._is_binding, recall_bind=self._recall_bind
        )
        self.racing = Racing(engine, metrics, take_back=self._take_back, may_decide=may_decide)
        self.last_turn_at = clock()

    def connect(
        self, writer: Writer, reports: PodReports, volumes: VolumeBinder, groups: GroupConditions
    ) -> None:
        """Where decisions go; before `run`."""
        self._writer, self._reports, self._volumes = writer, reports, volumes
        self._preempting.connect(writer, reports)
        self.gangs.connect(volumes, groups)

    @property
    def binds_under_way(self) -> int:
        return len(self._binds)

    @property
    def _may_bind_more(self) -> bool:
        """Members whose gang's intent is not durable yet don't count: while the journal can't be written
        single pods go on."""
        return len(self._binds) + self.gangs.binds_under_way < MAX_BINDS_UNDER_WAY

    @property
    def waiting_for_volumes(self) -> int:
        """Pods that are decided for; their room is theirs."""
        return len(self._preparing)

    def wake(self) -> None:
        """Something has changed that a decision may depend on."""
        self._work.set()

    def note_sync(self) -> None:
        """A picture of the cluster has become true, or has stopped being it."""
        self.sync_changed.set()
        self.wake()

    async def run(self) -> None:
        """Until cancelled. `on_first_turn` is called once, before the first decision."""
        started = False
        while True:
            self._work.clear()
            self.last_turn_at = self._clock()
            may_decide = self._may_decide()
            if may_decide and not started:
                started = True
                self._on_first_turn()
            more = may_decide and self._decide_slice()
            if may_decide:
                self._tell_of_gangs()
            if more:
                await asyncio.sleep(0)
            else:
                await self._wait()

    def _decide_slice(self) -> bool:
        """Decides for a short while; returns whether there is more to do at once."""
        begin = now = self._clock()
        while self._may_bind_more:
            decision = self._engine.decide()
            if decision is None:
                self.gangs.all_taken()
                return self._engine.gangs.planning
            started, now = now, self._clock()
            self._metrics.decided(decision, now - started)
            self._carry_out(decision, started)
            if now - begin > SLICE_S:
                return True
        return False

    def _tell_of_gangs(self) -> None:
        for news in self._engine.gangs.news:
            match news:
                case NotPlaced():
                    self.gangs.not_placed(news)
                case Differs(pod, message):
                    self._reports.differs(pod, message)

    async def _wait(self) -> None:
        timeout_s = _LONGEST_SLEEP_S
        if self._may_decide() and self._may_bind_more:
            due = self._engine.next_due()
            if due is not None:
                timeout_s = min(max(due - self._clock(), 0.001), timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await self._work.wait()
        except TimeoutError:
            pass

    def _carry_out(self, decision: Decision, started: float) -> None:
        info = decision.pod
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            log.debug(
                "decided",
                pod=info.name,
                verdict=decision.verdict.value,
                node=decision.node,
                nominated=decision.nominated_node,
            )
        if decision.node is None:
            if decision.verdict is Verdict.ERROR:
                log.error("deciding failed", pod=info.name, message=decision.message)
            if decision.preemption is not None:
                self._preempting.start(decision, decision.preemption)
            else:
                self._reports.undecided(decision)
            return
        bind = Placed(decision, decision.node, started)
        if self.gangs.take(bind):
            return
        self.gangs.all_taken()
        if decision.volumes is None:
            self._send(bind)
        else:
            self._preparing[info.uid] = bind
            self._reports.expected(decision, bind.node)
            metadata = info.pod.metadata
            self._volumes.bind(VolumeRequest(metadata.namespace, metadata.name, info.uid, decision.volumes))

    def _send(self, bind: Placed) -> None:
        info = bind.decision.pod
        metadata = info.pod.metadata
        self._binds[info.uid] = bind
        # A member that joins a complete gang bears the mark as well: it may outlive those it joined.
        marks = {TXN_ANNOTATION: SINGLY} if self._engine.gangs.book.of(info.uid) is not None else None
        self._writer.bind(BindRequest(metadata.namespace, metadata.name, info.uid, bind.node, marks))

    def on_volumes_bound(self, uid: str) -> None:
        """For `VolumeBinder`: the pod can be bound."""
        if self.gangs.on_volumes_bound(uid):
            return
        self._send(self._preparing.pop(uid))

    def on_volumes_failed(self, uid: str, message: str) -> None:
        """For `VolumeBinder`: the pod has to be decided for again."""
        if self.gangs.on_volumes_failed(uid, message):
            return
        bind = self._preparing.pop(uid)
        decision = bind.decision
        log.warning("volumes not bound", pod=decision.pod.name, node=decision.node, message=message)
        self._engine.bind_failed(uid)
        self._metrics.volume_errors.labels("bind").inc()
        self._metrics.bind_refused(decision, self._clock() - bind.started)
        self._reports.volumes_not_bound(decision, message)
        self.wake()

    def stop_waiting_for_volumes(self) -> None:
        """Nothing of it is lost: whoever decides next goes on from what is written."""
        self._volumes.cancel_all()
        self._preparing.clear()
        self.gangs.stop()

    def on_bound(self, uid: str, outcome: BindOutcome) -> None:
        """For `Writer`: the definite end of a bind."""
        if not self.gangs.on_bound(uid, outcome):
            self._bind_ended(self._binds.pop(uid), outcome)

    def _bind_ended(self, bind: Placed, outcome: BindOutcome) -> None:
        decision, uid = bind.decision, bind.uid
        seconds = self._clock() - bind.started
        self._metrics.binds.labels(type(outcome).__name__).inc()
        match outcome:
            case Bound(node):
                self._engine.bind_confirmed(uid)
                self._metrics.bound(decision, seconds, decision.waited_s + seconds)
                self._reports.scheduled(decision, node)
            case BoundElsewhere(node):
                log.warning("pod was bound by somebody else", pod=decision.pod.name, node=node)
                self._engine.bind_void(uid)
            case Gone():
                self._engine.bind_void(uid)
            case Refused(message):
                log.warning("bind refused", pod=decision.pod.name, node=decision.node, message=message)
                self._engine.bind_failed(uid)
                self._metrics.bind_refused(decision, seconds)
                self._reports.bind_refused(decision, message)
        self._preempting.bind_ended(uid, outcome)
        self.wake()

    def on_deleted(self, uid: str, outcome: DeletionOutcome) -> None:
        """For `Writer`: the definite end of a victim's deletion."""
        self._preempting.on_deleted(uid, outcome)
        self.wake()

    # ---- what the watches say

    def replace_pods(self, pods: Sequence[Pod]) -> None:
        for pod, error in self._engine.replace_pods(pods):
            self.unreadable("pods", pod_name(pod), error)
        for uid in [uid for uid in (*self._binds, *self._preparing) if not self._engine.knows(uid)]:
            self._drop_bind(uid)
        for pod in pods if self._preparing else ():
            self._leave_if_bound(pod)
        self._preempting.forget_all_but(self._engine.knows)
        self.gangs.replaced(pods)
        for pod in pods if self._preempting.under_way else ():
            self._forget_preemption_if_bound(pod)
        self._reports.forget_all_but(self._engine.knows)
        self.wake()

    def upsert_pod(self, pod: Pod) -> None:
        try:
            self._engine.upsert_pod(pod)
        except ValueError as error:
            self.unreadable("pods", pod_name(pod), error)
        self._leave_if_bound(pod)
        self._forget_preemption_if_bound(pod)
        self.racing.recall()
        if pod.spec.node_name and pod.metadata.deletion_timestamp is not None:
            self.gangs.pod_leaves(pod)
        self.wake()

    def delete_pod(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            log.debug("pod is gone", pod=pod_name(pod))
        self._engine.remove_pod(uid)
        self._preempting.pod_gone(uid)
        self.gangs.pod_gone(pod)
        self._reports.forget(uid)
        self._drop_bind(uid)
        self.wake()

    def replace_nodes(self, nodes: Sequence[Node]) -> None:
        for node, error in self._engine.replace_nodes(nodes):
            self.unreadable("nodes", node.metadata.name, error)
        self._volumes.everything_changed()
        self.wake()

    def upsert_node(self, node: Node) -> None:
        try:
            self._engine.upsert_node(node)
        except ValueError as error:
            self.unreadable("nodes", node.metadata.name, error)
        self._volumes.node_changed(node.metadata.name)
        self.wake()

    def delete_node(self, node: Node) -> None:
        self._engine.remove_node(node.metadata.name)
        self._volumes.node_changed(node.metadata.name)
        self.wake()

    def replace_namespaces(self, namespaces: Sequence[Namespace]) -> None:
        self._engine.replace_namespaces(namespaces)
        self.wake()

    def upsert_namespace(self, namespace: Namespace) -> None:
        self._engine.upsert_namespace(namespace)
        self.wake()

    def delete_namespace(self, namespace: Namespace) -> None:
        self._engine.remove_namespace(namespace.metadata.name)
        self.wake()

    def replace_objects(self, kind: type[K], items: Sequence[K]) -> None:
        self._engine.replace_objects(kind, items)
        self._volumes.everything_changed()
        if kind in GROUPS:
            self.gangs.losses.look_at_all()
        self.wake()

    def upsert_object(self, item: ClusterObject) -> None:
        self._engine.upsert_object(item)
        self._volumes.object_changed(item)
        self.gangs.group_changed(item)
        self.wake()

    def delete_object(self, item: ClusterObject) -> None:
        self._engine.remove_object(item)
        self._volumes.object_changed(item)
        self.wake()

    def unreadable(self, resource: str, name: str, error: Exception) -> None:
        """An object that could not be read is skipped: it must not stop all the others."""
        self._metrics.unreadable.labels(resource).inc()
        log.error("skipped an object that can't be read", resource=resource, name=name, error=str(error))

    def _is_binding(self, uid: str) -> bool:
        return uid in self._binds or uid in self.gangs

    def _recall_bind(self, uid: str) -> bool:
        """Takes a bind back of which nothing was sent; the pod is tried again after a backoff."""
        if self._engine.gangs.give_up(uid, "a pod of higher priority needs its place"):
            return True
        bind = self._preparing.get(uid) or self._binds.get(uid)
        if bind is None or not self._take_back(uid):
            return False
        self._reports.displaced(bind.decision.pod)
        return True

    def _take_back(self, uid: str) -> bool:
        """The same of single pods, without a word."""
        if uid in self._preparing:
            self._drop_bind(uid)
        elif uid in self._binds and self._writer.cancel_unsent(uid):
            del self._binds[uid]
        else:
            return False
        self._engine.bind_failed(uid)
        return True

    def _drop_bind(self, uid: str) -> None:
        if self._binds.pop(uid, None) is not None:
            self._writer.cancel(uid)
        if self._preparing.pop(uid, None) is not None:
            self._volumes.cancel(uid)

    def _leave_if_bound(self, pod: Pod) -> None:
        """Somebody else was faster: no volumes of ours are needed. (A bind under way finds out itself.)"""
        uid = pod.metadata.uid
        if pod.spec.node_name and uid in self._preparing:
            self._drop_bind(uid)
            self._engine.bind_void(uid)
        elif pod.spec.node_name:
            self.gangs.bound_elsewhere(uid)

    def _forget_preemption_if_bound(self, pod: Pod) -> None:
        """Somebody else gave the pod a node: nobody has to leave for it any more."""
        if pod.spec.node_name:
            self._preempting.preemptor_gone(pod.metadata.uid)


class PodHandler:
    """Pods' deltas, as `Reflector` delivers them."""

    def __init__(self, loop: SchedulingLoop) -> None:
        self.replace, self.upsert, self.delete = loop.replace_pods, loop.upsert_pod, loop.delete_pod
        self._loop = loop

    def on_sync_changed(self, synced: bool, /) -> None:
        self._loop.note_sync()


class NodeHandler:
    """Nodes' deltas, as `Reflector` delivers them."""

    def __init__(self, loop: SchedulingLoop) -> None:
        self.replace, self.upsert, self.delete = loop.replace_nodes, loop.upsert_node, loop.delete_node
        self._loop = loop

    def on_sync_changed(self, synced: bool, /) -> None:
        self._loop.note_sync()


class NamespaceHandler:
    """Namespaces' deltas, as `Reflector` delivers them."""

    def __init__(self, loop: SchedulingLoop) -> None:
        self.replace, self.upsert = loop.replace_namespaces, loop.upsert_namespace
        self.delete = loop.delete_namespace
        self._loop = loop

    def on_sync_changed(self, synced: bool, /) -> None:
        self._loop.note_sync()


class ObjectHandler(Generic[K]):
    """Deltas of another kind of object, as `Reflector` delivers them."""

    def __init__(self, loop: SchedulingLoop, kind: type[K]) -> None:
        self._loop, self._kind = loop, kind

    def replace(self, items: list[K], /) -> None:
        self._loop.replace_objects(self._kind, items)

    def upsert(self, item: K, /) -> None:
        self._loop.upsert_object(item)

    def delete(self, item: K, /) -> None:
        self._loop.delete_object(item)

    def on_sync_changed(self, synced: bool, /) -> None:
        self._loop.note_sync()
