"""The engine: state, queue and cycles behind the few calls that a cluster's events come down to.

It is synchronous and does no I/O. Deltas of the watch go in (`upsert_pod`, `remove_node`, …),
decisions come out (`decide`), and what became of them comes back (`bind_failed`). A decision is made
in one go on the live state, so no event can slip in between looking and assuming.

Waking: a waiting pod is woken only when something happened that one of the plugins that rejected the
pod names in `wakes_on`, and the pod's filters now pass: on the very nodes where it happened, or, for
plugins that look beyond a node (affinity, spreading), on any. This is checked once per kind of pod,
not per pod, and no more often than the checks' own cost allows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from scheduler.api import Namespace, Node, Pod
from scheduler.api_objects import ClusterObject, CoschedulingPodGroup, PodGroup
from scheduler.core.cycle import Cycle, Placement
from scheduler.core.gangs.attempt import GangCommit, MemberOutcome
from scheduler.core.gangs.dispatch import GangDispatch
from scheduler.core.mix import ShapeMix
from scheduler.core.objects import WAKES, K
from scheduler.core.plugin import Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key, Profile
from scheduler.core.queue import Kind, Place, QueuedPod, SchedulingQueue
from scheduler.core.state import ClusterState
from scheduler.quantity import QuantityError

WAKE_SHARE = 4
"""Wake checks may take one part in so many of the loop's time when events and kinds are plenty."""
PLAN_SLICE_S = 0.01
"""Planning a gang goes on for so long at a time."""
WAKE_SLICE_S = 0.01
"""And so long at a time: a change of all nodes, looked at for a thousand kinds, takes seconds."""


class Verdict(Enum):
    PLACED = "placed"
    """Assumed on `node`; the bind is to be sent."""
    UNSCHEDULABLE = "unschedulable"
    WAITING = "waiting"
    """A member of a gang that is incomplete; it was not tried."""
    TENTATIVE = "tentative"
    """A member of a gang has a place, which is kept in mind until the others have theirs."""
    TERMINATING = "terminating"
    """The pod is being deleted; it is left alone."""
    ERROR = "error"
    """A plugin failed; the pod is tried again after a backoff."""


@dataclass(frozen=True, slots=True)
class Decision:
    pod: PodInfo
    verdict: Verdict
    node: str | None
    message: str
    attempts: int
    waited_s: float
    """Since the pod was first seen without gates."""
    rejected_by: frozenset[str] = frozenset()
    commit: GangCommit | None = None
    """Of a placed member that is to be bound together with others, or not at all."""


class Engine:
    """Decides for the pods of the given profiles. Single-threaded by contract."""

    def __init__(
        self, profiles: Sequence[Profile], *, clock: Callable[[], float], queue: SchedulingQueue
    ) -> None:
        self._clock = clock
        self.queue = queue
        self.mix = ShapeMix()
        self.state = ClusterState(self.mix.frozen)
        self.cycles: dict[str, Cycle] = {p.scheduler_name: Cycle(p, self.state.nodes) for p in profiles}
        self.gangs = GangDispatch(
            self.state,
            queue,
            self.cycles,
            clock,
            on_freed=lambda node: self._note(node, Wake.ASSIGNED_POD_REMOVED),
        )
        self._wakes_on: dict[str, dict[str, Wake]] = {
            p.scheduler_name: {f.name: f.wakes_on for f in p.filters} for p in profiles
        }
        self._wakes_anywhere: dict[str, frozenset[str]] = {
            p.scheduler_name: frozenset(f.name for f in p.filters if not f.row_local) for p in profiles
        }
        """Plugins of a profile that events on one node may turn around on others."""
        self._helpful: dict[str, Wake] = {}
        """Node name → what has happened to it since the last wake check began."""
        self._happened = Wake.NOTHING
        """All of that together, and what happened to nodes that are gone."""
        self._changed: dict[str, Wake] = {}
        self._changes = Wake.NOTHING
        """The same for the wake check under way, and the kinds it has yet to look at."""
        self._to_check: list[Kind] = []
        self._awaited = Wake.NOTHING
        """What the plugins that rejected sleeping pods wait for; maybe more, never less."""
        self._awaited_by_unchecked = Wake.NOTHING
        """The same of the kinds that the wake check under way has not come to."""
        self._next_wake_check = clock()

    # ---- what the watch says

    def upsert_pod(self, pod: Pod) -> None:
        """Added or modified. Raises QuantityError for a pod whose requests can't be read; such a
        pod is not scheduled, and takes no room."""
        uid = pod.metadata.uid
        if pod.status.phase in ("Succeeded", "Failed"):
            self.remove_pod(uid)
        elif pod.spec.node_name:
            info = PodInfo(pod)
            self._upsert_assigned(info)
            if pod.spec.scheduler_name in self.cycles:
                self.gangs.upsert(info)
        elif pod.spec.scheduler_name in self.cycles:
            try:
                info = PodInfo(pod)
            except QuantityError:
                self.queue.remove(uid)
                self.gangs.remove(uid)
                raise
            self._upsert_waiting(info)
            self.gangs.upsert(info)

    def remove_pod(self, uid: str) -> None:
        """Deleted or finished."""
        self.queue.remove(uid)
        placed = self.state.remove_pod(uid)
        if placed is not None:
            self._note(placed.node, Wake.ASSIGNED_POD_REMOVED)
        self.gangs.remove(uid)

    def upsert_namespace(self, namespace: Namespace) -> None:
        """Added or modified."""
        self._set_namespace(namespace.metadata.name, namespace.metadata.labels or {})

    def remove_namespace(self, name: str) -> None:
        self._set_namespace(name, None)

    def replace_namespaces(self, namespaces: Iterable[Namespace]) -> None:
        """A complete list, as for pods."""
        labels = {n.metadata.name: n.metadata.labels or {} for n in namespaces}
        for name in {*self.state.nodes.pods.namespaces, *labels}:
            self._set_namespace(name, labels.get(name))

    def upsert_object(self, item: ClusterObject) -> None:
        """Added or modified."""
        if self.state.nodes.cluster.upsert(item):
            self._note_object(type(item))

    def remove_object(self, item: ClusterObject) -> None:
        if self.state.nodes.cluster.remove(type(item), item.metadata):
            self._note_object(type(item))

    def replace_objects(self, kind: type[K], items: Iterable[K]) -> None:
        """A complete list of a kind, as for pods."""
        if self.state.nodes.cluster.replace(kind, items):
            self._note_object(kind)

    def knows(self, uid: str) -> bool:
        """Whether the pod waits or has a node here."""
        return uid in self.queue or uid in self.state.pods

    def replace_pods(self, pods: Iterable[Pod]) -> list[tuple[Pod, QuantityError]]:
        """A complete list: what is not in it is gone. Returns the pods that could not be read."""
        listed = sorted(pods, key=lambda p: p.metadata.creation_timestamp or "")
        uids = {pod.metadata.uid for pod in listed}
        for uid in [*self.state.pods, *(p.info.uid for p in self.queue)]:
            if uid not in uids:
                self.remove_pod(uid)
        unreadable = []
        for pod in listed:
            try:
                self.upsert_pod(pod)
            except QuantityError as error:
                unreadable.append((pod, error))
        return unreadable

    def upsert_node(self, node: Node) -> None:
        """Added or modified. Raises QuantityError when its allocatable can't be read."""
        change = self.state.upsert_node(node)
        self._note(node.metadata.name, change)
        if change & Wake.NODE_ALLOCATABLE:
            self.gangs.node_overlapped(node.metadata.name)

    def remove_node(self, name: str) -> None:
        self._helpful.pop(name, None)
        self.state.remove_node(name)
        self.gangs.node_overlapped(name)
        self._happened |= self._if_awaited(Wake.NODE_REMOVED)

    def replace_nodes(self, nodes: Iterable[Node]) -> list[tuple[Node, QuantityError]]:
        """A complete list, as for pods."""
        listed = list(nodes)
        names = {node.metadata.name for node in listed}
        for name in [name for name in self.state.nodes.names if name not in names]:
            self.remove_node(name)
        unreadable = []
        for node in listed:
            try:
                self.upsert_node(node)
            except QuantityError as error:
                unreadable.append((node, error))
        return unreadable

    # ---- decisions

    def decide(self) -> Decision | None:
        """Tries the next pod; a placed one is assumed. None when no pod is due now, or when planning a
        gang has taken its time and is to be gone on with.

        A gang's members are decided together, and handed out one by one.
        """
        self.gangs.expire()
        if self.gangs.decided:
            return self._member_decision(self.gangs.decided.popleft())
        if self.gangs.planning:
            return self._plan_on()
        for waiting, why in self.gangs.untold():
            return self._decision(waiting, Verdict.WAITING, Placement(None, why))
        self.wake_helped()
        queued = self.queue.pop()
        if queued is None:
            return None
        info = queued.info
        if info.terminating:
            self.queue.remove(info.uid)
            message = f"skip schedule deleting pod: {info.name}"
            return self._decision(queued, Verdict.TERMINATING, Placement(None, message))
        if self.gangs.begin(queued):
            return self._plan_on()
        try:
            allowed = self.gangs.reservations.allowed(info)
            placement = self.cycles[queued.kind[0]].place(info, queued.kind[1], within=allowed)
            if allowed is not None and placement.node is None:
                # Nobody but the reservation may have kept the pod off a node: whatever frees one helps.
                everybody = frozenset(self._wakes_on[queued.kind[0]])
                placement = replace(placement, rejected_by=everybody)
        except Exception as error:  # any plugin may come from elsewhere: one pod's trouble, not all pods'
            self.queue.set_backoff(queued)
            message = f"deciding failed with {type(error).__name__}: {error}"
            return self._decision(queued, Verdict.ERROR, Placement(None, message))
        if placement.node is None:
            placement = self.gangs.give_way(queued) or placement
        if placement.node is None:
            self.queue.set_unschedulable(queued, placement.rejected_by)
            self._awaited |= self._wanted(queued.kind[0], placement.rejected_by)
            return self._decision(queued, Verdict.UNSCHEDULABLE, placement)
        self.state.assume(info, placement.node)
        self._note(placement.node, Wake.ASSIGNED_POD_ADDED)
        return self._decision(queued, Verdict.PLACED, placement)

    def bind_failed(self, uid: str) -> None:
        """The bind was definitely refused: the room is free again, the pod is tried after a backoff."""
        self._forget(uid)
        queued = self.queue.get(uid)
        if queued is not None and queued.place is Place.IN_FLIGHT:
            self.queue.set_backoff(queued)

    def bind_void(self, uid: str) -> None:
        """The pod is gone, or sits on a node of somebody else's choice: no room of ours, no retry."""
        self._forget(uid)
        self.queue.remove(uid)

    def bind_confirmed(self, uid: str) -> None:
        """The API server has the bind. The pod stays assumed until the watch shows it."""
        self.queue.remove(uid)

    def wake_helped(self) -> int:
        """Wakes pods that what happened has helped; returns how many.

        Goes through the sleeping kinds for at most `WAKE_SLICE_S` and takes up the rest next time.
        """
        start = self._clock()
        if start < self._next_wake_check or not (self._to_check or self._happened):
            return 0
        if not self._to_check:
            self._changed, self._helpful = self._helpful, {}
            self._changes, self._happened = self._happened, Wake.NOTHING
            self._awaited_by_unchecked, self._awaited = self._awaited, Wake.NOTHING
            self._to_check = self.queue.unschedulable_kinds()
        rows_of: dict[Wake, NDArray[np.intp]] = {}
        woken, end = 0, start
        while self._to_check and end - start <= WAKE_SLICE_S:
            woken += self._wake_if_helped(self._to_check.pop(), rows_of)
            end = self._clock()
        if not self._to_check:
            self._awaited_by_unchecked = Wake.NOTHING
        self._next_wake_check = end + (end - start) * (WAKE_SHARE - 1)
        return woken

    def next_due(self) -> float | None:
        """The clock's time at which `decide` may have something to do without any event."""
        if self.gangs.decided or self.gangs.planning or self.queue.has_active():
            return self._clock()
        times = [due for due in (self.queue.next_due(), self.gangs.next_due()) if due is not None]
        due = min(times, default=None)
        if self._to_check or self._happened:
            return self._next_wake_check if due is None else min(due, self._next_wake_check)
        return due

    # ---- internals

    def _wake_if_helped(self, kind: Kind, rows_of: dict[Wake, NDArray[np.intp]]) -> int:
        """`rows_of`: rows that any of some events happened to, kept from kind to kind."""
        asleep = self.queue.asleep(kind)
        if asleep is None:
            return 0  # woken otherwise in the meantime
        pods, rejected_by = asleep
        name, key = kind
        wanted = self._wanted(name, rejected_by)
        rows = None
        if not self._changes & self._wanted(name, rejected_by & self._wakes_anywhere[name], new=Wake.NOTHING):
            rows = rows_of.get(wanted)
            if rows is None:
                row_of = self.state.nodes.row_of
                helped = [row_of[n] for n, event in self._changed.items() if event & wanted and n in row_of]
                rows = rows_of[wanted] = np.array(helped, np.intp)
            if not len(rows):
                self._awaited |= wanted
                return 0
        woken = 0
        for alike in self._alike(name, pods):
            still = self._still_rejected_by(name, key, next(iter(alike)).info, rows)
            if still is None:
                woken += self.queue.wake(alike, "NodeChange")
            else:
                # One reason has gone and another has shown: from now on it is that which must go.
                self.queue.note_rejections(kind, still)
                self._awaited |= wanted | self._wanted(name, still)
        return woken

    def _upsert_assigned(self, info: PodInfo) -> None:
        self.queue.remove(info.uid)
        before = self.state.pods.get(info.uid)
        if before is None:
            self._observe(info)
        node = before.node if before is not None else info.node_name
        change = self.state.confirm(info)
        self._note(node, change)
        if before is None:
            self.gangs.node_overlapped(node)
        if node != info.node_name:
            self._note(info.node_name, change)

    def _upsert_waiting(self, info: PodInfo) -> None:
        kind = self._kind(info)
        queued = self.queue.get(info.uid)
        if queued is not None:
            self.queue.update(info, kind, concerned=self._concerned(kind[0], queued.info, info))
        elif info.uid not in self.state.pods and not info.terminating:
            # (A pod that is known as placed here had its bind confirmed: the watch is behind.)
            self._observe(info)
            self.queue.add(info, kind)

    def _concerned(self, name: str, old: PodInfo, new: PodInfo) -> bool:
        """Whether other pods' rules see the pod otherwise than before: its key does not show that."""
        cycle = self.cycles[name]
        return old.labels != new.labels and cycle.remote.context(old) != cycle.remote.context(new)

    def _alike(self, name: str, pods: Collection[QueuedPod]) -> Iterable[Collection[QueuedPod]]:
        """Pods of one kind by what of the cluster concerns them: each group gets one answer."""
        cycle = self.cycles[name]
        if not cycle.remote.has_contexts:
            return [pods]
        groups: dict[Hashable, list[QueuedPod]] = {}
        for pod in pods:
            groups.setdefault(cycle.remote.context(pod.info), []).append(pod)
        return groups.values()

    def _still_rejected_by(
        self, name: str, key: Key, info: PodInfo, rows: NDArray[np.intp] | None
    ) -> frozenset[str] | None:
        """Who rejects the pod on these rows (None: on all nodes); None when one of them fits."""
        cycle, allowed = self.cycles[name], self.gangs.reservations.allowed(info)
        try:
            if rows is not None:
                return cycle.rejected_by(info, rows if allowed is None else rows[allowed[rows]])
            placement = cycle.place(info, key, within=allowed)
        except Exception:  # the pod's next decision will say what it was
            return None
        return placement.rejected_by if placement.node is None else None

    def _wanted(self, name: str, plugins: Iterable[str], *, new: Wake = Wake.NODE_ADD) -> Wake:
        """What may turn these plugins' rejections around; nobody has rejected a `new` node yet."""
        wakes_on, wanted = self._wakes_on[name], new
        for plugin in plugins:
            wanted |= wakes_on[plugin]
        return wanted

    def _set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        if self.state.nodes.pods.set_namespace(name, labels):
            self._happened |= self._if_awaited(Wake.NAMESPACE_LABELS)

    def _observe(self, info: PodInfo) -> None:
        """Counts a pod into the mix of shapes, which freezes a new epoch now and then."""
        self.mix.observe(info.uid, info.requests, daemon=info.owned_by_daemon_set)
        self.state.nodes.mix = self.mix.frozen

    def _kind(self, info: PodInfo) -> Kind:
        name = info.pod.spec.scheduler_name or ""
        return name, self.cycles[name].read_key(info)

    def _forget(self, uid: str) -> None:
        node = self.state.forget(uid)
        if node is not None:
            self._note(node, Wake.ASSIGNED_POD_REMOVED)

    def _if_awaited(self, event: Wake) -> Wake:
        return event & (self._awaited | self._awaited_by_unchecked)

    def _note_object(self, kind: type[ClusterObject]) -> None:
        if kind in (PodGroup, CoschedulingPodGroup):
            self.gangs.review_all()
        self._happened |= self._if_awaited(WAKES.get(kind, Wake.NOTHING))

    def _note(self, node: str, event: Wake) -> None:
        event = self._if_awaited(event)
        if event and node in self.state.nodes.row_of:
            self._helpful[node] = self._helpful.get(node, Wake.NOTHING) | event
            self._happened |= event

    def _plan_on(self) -> Decision | None:
        """Goes on with planning a gang for a while."""
        try:
            done = self.gangs.work(self._clock() + PLAN_SLICE_S)
        except Exception as error:  # as for single pods
            message = f"planning the gang failed with {type(error).__name__}: {error}"
            self.gangs.fail(message)
            done = True
        return self._member_decision(self.gangs.decided.popleft()) if done and self.gangs.decided else None

    def _member_decision(self, outcome: MemberOutcome) -> Decision:
        placement, queued = outcome.placement, outcome.queued
        if placement.node is None:
            verdict = Verdict.WAITING if outcome.retry else Verdict.UNSCHEDULABLE
            self._awaited |= self._wanted(queued.kind[0], placement.rejected_by)
        elif outcome.tentative:
            placement = Placement(
                None, f"has a place on node {placement.node} until the rest of its gang has"
            )
            verdict = Verdict.TENTATIVE
        else:
            verdict = Verdict.PLACED
            self._note(placement.node or "", Wake.ASSIGNED_POD_ADDED)
        return self._decision(queued, verdict, placement, outcome.commit)

    def _decision(
        self,
        queued: QueuedPod,
        verdict: Verdict,
        placement: Placement,
        commit: GangCommit | None = None,
    ) -> Decision:
        return Decision(
            pod=queued.info,
            verdict=verdict,
            node=placement.node,
            message=placement.message,
            attempts=queued.attempts,
            waited_s=self._clock() - queued.first_seen,
            rejected_by=placement.rejected_by,
            commit=commit,
        )
