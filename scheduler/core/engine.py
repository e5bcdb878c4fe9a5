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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from scheduler.api import Namespace, Node, Pod
from scheduler.api_objects import ClusterObject
from scheduler.core.cycle import Cycle, Placement
from scheduler.core.mix import ShapeMix
from scheduler.core.objects import WAKES, K, ObjectChanges
from scheduler.core.plugin import ObjectChange, PostFilterResult, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.post_filters import PostFilters
from scheduler.core.preemption import Preemption
from scheduler.core.profile import Profile
from scheduler.core.promises import Promises
from scheduler.core.queue import Kind, Place, QueuedPod, SchedulingQueue
from scheduler.core.second_look import SecondLook
from scheduler.core.state import ClusterState
from scheduler.core.volumes.assume import assume_plan
from scheduler.core.volumes.plan import VolumePlan
from scheduler.quantity import QuantityError

WAKE_SHARE = 4
"""Wake checks may take one part in so many of the loop's time when events and kinds are plenty."""
WAKE_SLICE_S = 0.01
"""And so long at a time: a change of all nodes, looked at for a thousand kinds, takes seconds."""


class Verdict(Enum):
    PLACED = "placed"
    """Assumed on `node`; the bind is to be sent."""
    UNSCHEDULABLE = "unschedulable"
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
    preemption: Preemption | None = None
    """Only of an unschedulable pod. It is in flight until `Engine.preemption_done` or
    `preemption_failed` says what came of it."""
    nominated_node: str | None = None
    """What `status.nominatedNodeName` is to become; None: as it is, empty: cleared."""
    volumes: VolumePlan | None = None
    """What has to be written, and come true, before the bind may be sent."""


class Engine:
    """Decides for the pods of the given profiles. Single-threaded by contract."""

    def __init__(
        self, profiles: Sequence[Profile], *, clock: Callable[[], float], queue: SchedulingQueue
    ) -> None:
        self._clock = clock
        self.queue = queue
        self.mix = ShapeMix()
        self.state = ClusterState(self.mix.frozen)
        self.cycles: dict[str, Cycle] = {
            p.scheduler_name: Cycle(p, self.state.nodes, self.state.nominations) for p in profiles
        }
        self._filters = {p.scheduler_name: {f.name: f for f in p.filters} for p in profiles}
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
        """The same for the wake check under way."""
        self._wake_check: Iterator[int] | None = None
        """Goes on with the check where it was left."""
        self._rows_helped: dict[Wake, NDArray[np.intp]] = {}
        """Rows that any of some events happened to, while they can't move."""
        self._objects_happened, self._objects_changed = ObjectChanges(), ObjectChanges()
        """Of objects beside nodes and pods: what has happened since, and in the check under way."""
        self._awaited = Wake.NOTHING
        """What the plugins that rejected sleeping pods wait for; maybe more, never less."""
        self._awaited_by_unchecked = Wake.NOTHING
        """The same of the kinds that the wake check under way has not come to."""
        self._next_wake_check = clock()
        self._preempting: dict[str, frozenset[str]] = {}
        """Pods whose victims are being deleted, and who rejected them."""
        self._post_filters = PostFilters(self.state)
        self._second_looks = {
            name: SecondLook(cycle, self.state, self._post_filters) for name, cycle in self.cycles.items()
        }
        self._promises = Promises(
            self.state.nominations, lambda node: self._note(node, Wake.ASSIGNED_POD_REMOVED)
        )

    # ---- what the watch says

    def upsert_pod(self, pod: Pod) -> None:
        """Added or modified. Raises QuantityError for a pod whose requests can't be read; such a
        pod is not scheduled, and takes no room."""
        uid = pod.metadata.uid
        if pod.status.phase in ("Succeeded", "Failed"):
            self.remove_pod(uid)
        elif pod.spec.node_name:
            self._upsert_assigned(PodInfo(pod))
        elif pod.spec.scheduler_name in self.cycles:
            try:
                info = PodInfo(pod)
            except QuantityError:
                self._stop_waiting(uid)
                raise
            self._upsert_waiting(info)

    def remove_pod(self, uid: str) -> None:
        """Deleted or finished."""
        self._stop_waiting(uid)
        self._restore_objects(uid)
        placed = self.state.remove_pod(uid)
        if placed is not None:
            self._note(placed.node, Wake.ASSIGNED_POD_REMOVED)
            self._wake_nominated(placed.node)

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
        metadata, cluster = item.metadata, self.state.nodes.cluster
        before = cluster.get(type(item), metadata.name, metadata.namespace)
        if cluster.upsert(item):
            self._note_object(type(item), ObjectChange(before, item))

    def remove_object(self, item: ClusterObject) -> None:
        if self.state.nodes.cluster.remove(type(item), item.metadata):
            self._note_object(type(item), ObjectChange(item, None))

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
        self._note(node.metadata.name, self.state.upsert_node(node))

    def remove_node(self, name: str) -> None:
        self._helpful.pop(name, None)
        self.state.nominations.drop_all(name)
        self.state.remove_node(name)
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
        """Tries the next pod; a placed one is assumed. None when no pod is due now."""
        self.wake_helped()
        queued = self.queue.pop()
        if queued is None:
            return None
        info = queued.info
        if info.terminating:
            self.queue.remove(info.uid)
            message = f"skip schedule deleting pod: {info.name}"
            return self._decision(queued, Verdict.TERMINATING, Placement(None, message))
        cycle, plan = self.cycles[queued.kind[0]], None
        try:
            placement, result = cycle.place(info, queued.kind[1]), None
            if placement.node is None:
                result = self._post_filters.ask(cycle, info, queued.kind[1])
            else:
                plan = cycle.plan(info, placement.node)
        except Exception as error:  # any plugin may come from elsewhere: one pod's trouble, not all pods'
            self.queue.set_backoff(queued)
            message = f"deciding failed with {type(error).__name__}: {error}"
            return self._decision(queued, Verdict.ERROR, Placement(None, message))
        if placement.node is None:
            return self._unschedulable(queued, placement, result)
        self._promises.withdraw(info.uid)
        if plan is not None:
            assume_plan(plan, self.state.nodes.cluster, owner=info.uid)
        self.state.assume(info, placement.node)
        self._note(placement.node, Wake.ASSIGNED_POD_ADDED)
        return self._decision(queued, Verdict.PLACED, placement, plan)

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

    def preemption_done(self, uid: str) -> None:
        """All the victims' deletions were accepted (or needless): the pod waits for their room."""
        rejected_by = self._preempting.pop(uid, None)
        queued = self.queue.get(uid)
        if rejected_by is None or queued is None or queued.place is not Place.IN_FLIGHT:
            return
        self._put_to_sleep(queued, rejected_by)
        # Events have passed it by in the meantime, and some victims may be gone already.
        name, key = queued.kind
        if self._second_looks[name].rejected_by(queued.info, key, None) is None:
            self.queue.wake([queued], "PreemptionDone")

    def preemption_failed(self, uid: str) -> None:
        """A victim's deletion was definitely refused: the pod is tried again after a backoff."""
        rejected_by = self._preempting.pop(uid, None)
        queued = self.queue.get(uid)
        if rejected_by is not None and queued is not None and queued.place is Place.IN_FLIGHT:
            self._promises.withdraw(uid)
            self.queue.set_backoff(queued)

    def wake_helped(self) -> int:
        """Wakes pods that what happened has helped; returns how many.

        Goes through the sleeping kinds for at most `WAKE_SLICE_S` and takes up the rest next time.
        """
        start = self._clock()
        if start < self._next_wake_check or not (self._wake_check or self._happened):
            return 0
        if self._wake_check is None:
            self._changed, self._helpful = self._helpful, {}
            self._changes, self._happened = self._happened, Wake.NOTHING
            self._objects_changed, self._objects_happened = self._objects_happened, ObjectChanges()
            self._awaited_by_unchecked, self._awaited = self._awaited, Wake.NOTHING
            self._wake_check = self._check_kinds(self.queue.unschedulable_kinds())
        self._rows_helped.clear()  # rows may have moved since the last slice
        woken, end = 0, start
        while end - start <= WAKE_SLICE_S:
            step = next(self._wake_check, None)
            if step is None:
                self._wake_check, self._awaited_by_unchecked = None, Wake.NOTHING
                break
            woken += step
            end = self._clock()
        self._next_wake_check = end + (end - start) * (WAKE_SHARE - 1)
        return woken

    def next_due(self) -> float | None:
        """The clock's time at which `decide` may have something to do without any event."""
        if self.queue.has_active():
            return self._clock()
        due = self.queue.next_due()
        if self._wake_check or self._happened:
            return self._next_wake_check if due is None else min(due, self._next_wake_check)
        return due

    # ---- internals

    def _unschedulable(
        self, queued: QueuedPod, placement: Placement, result: PostFilterResult | None
    ) -> Decision:
        """`result`: what plugins have found to help the pod, if they were asked."""
        info, preemption = queued.info, None
        nominated: str | None = None
        if result is not None:
            placement = replace(placement, message=f"{placement.message} {result.message}")
        if result is not None and result.preemption is not None:
            nominated = result.preemption.node
            preemption = replace(result.preemption, displaced=self._displace(info, nominated))
            self._promises.make(info, nominated)
            self._preempting[info.uid] = placement.rejected_by
        else:
            if result is None or not result.keeps_nomination:
                nominated = self._promises.take_back(info)
            if result is not None and result.unfinished:
                self.queue.set_backoff(queued)
            else:
                self._put_to_sleep(queued, placement.rejected_by)
        decision = self._decision(queued, Verdict.UNSCHEDULABLE, placement)
        return replace(decision, preemption=preemption, nominated_node=nominated)

    def _put_to_sleep(self, queued: QueuedPod, rejected_by: frozenset[str]) -> None:
        self.queue.set_unschedulable(queued, rejected_by)
        self._awaited |= self._wanted(queued.kind[0], rejected_by)

    def _displace(self, info: PodInfo, node: str) -> tuple[PodInfo, ...]:
        """Waiting pods of lower priority that are nominated to the node have to look for another one."""
        nominated = self.state.nominations.on(node)
        displaced = tuple(pod for pod in nominated if pod.priority < info.priority)
        for pod in displaced:
            self._promises.take_back(pod)
            queued = self.queue.get(pod.uid)
            if queued is not None:
                self.queue.wake([queued], "NominationCleared")
        return displaced

    def _wake_nominated(self, node: str) -> None:
        """Pods nominated to a node sleep until their victims are gone. They need not fit then (whoever chose
        the victims may have died before all were deleted), but may preempt again."""
        for pod in self.state.nominations.on(node):
            queued = self.queue.get(pod.uid)
            if queued is not None and queued.place is Place.UNSCHEDULABLE:
                leaving = (p.info for p in self.state.pods_on(node) if p.info.preempted)
                if all(victim.priority >= pod.priority for victim in leaving):
                    self.queue.wake([queued], "VictimsGone")

    def _check_kinds(self, kinds: Iterable[Kind]) -> Iterator[int]:
        """Wakes pods of these kinds that are helped, and says how many, a group of alike ones at a time.
        The cluster may change between any two steps."""
        for kind in kinds:
            asleep = self.queue.asleep(kind)
            if asleep is None:
                continue  # woken otherwise in the meantime
            pods, rejected_by = asleep
            wanted = self._wanted(kind[0], rejected_by)
            everywhere = rejected_by & self._wakes_anywhere[kind[0]]
            anywhere = self._changes & self._wanted(kind[0], everywhere, new=Wake.NOTHING)
            if not anywhere and not len(self._rows_that_saw(wanted)):
                self._awaited |= wanted
                yield 0
                continue
            here = None if anywhere else self._rows_that_saw(wanted)
            for group in list(self._second_looks[kind[0]].groups(pods, here)):
                alike = [pod for pod in group if pod.place is Place.UNSCHEDULABLE and pod.kind == kind]
                if alike:
                    self._awaited |= wanted
                    yield self._wake_if_helped(alike, rejected_by, anywhere)

    def _wake_if_helped(self, alike: Sequence[QueuedPod], rejected_by: frozenset[str], anywhere: Wake) -> int:
        """`anywhere`: what has happened that may help on any node."""
        kind, info = alike[0].kind, alike[0].info
        here = self._rows_that_saw(self._wanted(kind[0], rejected_by))
        rows: NDArray[np.intp] | None = None
        if not anywhere & ~Wake.OBJECT_ANY and not (
            anywhere and self._objects_may_help(kind[0], rejected_by, info)
        ):
            rows = here
            if not len(rows):
                return 0
        second_look = self._second_looks[kind[0]]
        still = second_look.rejected_by(info, kind[1], rows)
        if still is None or second_look.might_be_helped(info, kind[1], here):
            return self.queue.wake(alike, "NodeChange")
        # One reason has gone and another has shown: from now on it is that which must go.
        self.queue.note_rejections(kind, still)
        self._awaited |= self._wanted(kind[0], still)
        return 0

    def _rows_that_saw(self, events: Wake) -> NDArray[np.intp]:
        """Rows of the nodes to which any of the events happened."""
        rows = self._rows_helped.get(events)
        if rows is None:
            row_of = self.state.nodes.row_of
            helped = [row_of[n] for n, event in self._changed.items() if event & events and n in row_of]
            rows = self._rows_helped[events] = np.array(helped, np.intp)
        return rows

    def _objects_may_help(self, name: str, rejected_by: Iterable[str], info: PodInfo) -> bool:
        """Whether any of the objects that have changed may turn any of these rejections around."""
        filters = self._filters[name]
        return any(self._objects_changed.may_help(filters[plugin], info) for plugin in rejected_by)

    def _upsert_assigned(self, info: PodInfo) -> None:
        self._stop_waiting(info.uid)
        before = self.state.pods.get(info.uid)
        if before is None:
            self._observe(info)
        node = before.node if before is not None else info.node_name
        change = self.state.confirm(info)
        self._note(node, change)
        if node != info.node_name:
            self._restore_objects(info.uid)
            self._note(info.node_name, change)

    def _stop_waiting(self, uid: str) -> None:
        self.queue.remove(uid)
        self._promises.forget(uid)
        self._preempting.pop(uid, None)

    def _upsert_waiting(self, info: PodInfo) -> None:
        kind = self._kind(info)
        queued = self.queue.get(info.uid)
        if queued is not None:
            if info.uid not in self.state.pods:  # assumed, it has its room already
                self._promises.follow(queued.info, info)
            self.queue.update(info, kind, concerned=self._concerned(kind[0], queued.info, info))
        elif info.uid not in self.state.pods and not info.terminating:
            # (A pod that is known as placed here had its bind confirmed: the watch is behind.)
            self._observe(info)
            self._promises.follow(None, info)
            self.queue.add(info, kind)

    def _concerned(self, name: str, old: PodInfo, new: PodInfo) -> bool:
        """Whether other pods' rules see the pod otherwise than before: its key does not show that."""
        cycle = self.cycles[name]
        return old.labels != new.labels and (
            cycle.remote.filter_context(old) != cycle.remote.filter_context(new)
        )

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

    def _restore_objects(self, uid: str) -> None:
        """The pod's plan is void: its volumes are there for others again."""
        for kind in self.state.nodes.cluster.restore(uid):
            self._note_object(kind)

    def _forget(self, uid: str) -> None:
        self._restore_objects(uid)
        node = self.state.forget(uid)
        if node is not None:
            self._note(node, Wake.ASSIGNED_POD_REMOVED)

    def _if_awaited(self, event: Wake) -> Wake:
        return event & (self._awaited | self._awaited_by_unchecked)

    def _note_object(self, kind: type[ClusterObject], change: ObjectChange | None = None) -> None:
        """`change` is None when many may have changed."""
        event = self._if_awaited(WAKES.get(kind, Wake.NOTHING))
        if event:
            self._happened |= event
            self._objects_happened.note(kind, change)

    def _note(self, node: str, event: Wake) -> None:
        event = self._if_awaited(event)
        if event and node in self.state.nodes.row_of:
            self._helpful[node] = self._helpful.get(node, Wake.NOTHING) | event
            self._happened |= event

    def _decision(
        self, queued: QueuedPod, verdict: Verdict, placement: Placement, plan: VolumePlan | None = None
    ) -> Decision:
        return Decision(
            pod=queued.info,
            verdict=verdict,
            node=placement.node,
            message=placement.message,
            attempts=queued.attempts,
            waited_s=self._clock() - queued.first_seen,
            rejected_by=placement.rejected_by,
            volumes=plan,
        )
