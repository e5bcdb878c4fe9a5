"""The engine: state, queue and cycles behind the few calls that a cluster's events come down to.

It is synchronous and does no I/O. Deltas of the watch go in (`upsert_pod`, `remove_node`, …),
decisions come out (`decide`), and what became of them comes back (`bind_failed`). A decision is made
in one go on the live state, so no event can slip in between looking and assuming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from scheduler.api import Namespace, Node, Pod
from scheduler.api_objects import ClusterObject, PersistentVolume, PersistentVolumeClaim
from scheduler.core.cycle import Cycle
from scheduler.core.decision import Decision, Verdict
from scheduler.core.gangs.attempt import MemberOutcome
from scheduler.core.gangs.dispatch import GangDispatch
from scheduler.core.gangs.ref import GROUPS, group_ref, same_options
from scheduler.core.mix import ShapeMix
from scheduler.core.objects import K
from scheduler.core.placement import Placement
from scheduler.core.plugin import ObjectChange, PostFilterResult, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.post_filters import PostFilters
from scheduler.core.preemption import GangRoom, Preemption
from scheduler.core.preemptors import Preemptors
from scheduler.core.profile import Profile
from scheduler.core.promises import Promises
from scheduler.core.queue import Kind, Place, QueuedPod, SchedulingQueue
from scheduler.core.races import Races
from scheduler.core.second_look import SecondLook
from scheduler.core.state import ClusterState
from scheduler.core.volumes.assume import assume_plan
from scheduler.core.volumes.plan import VolumePlan
from scheduler.core.waking import Waking
from scheduler.quantity import QuantityError

__all__ = ["Decision", "Engine", "Verdict"]

PLAN_SLICE_S = 0.01
"""Planning a gang goes on for so long at a time."""
PLAN_SLICE_BESIDE_S = 0.002
"""And for so long when others' pods are decided beside it, who get as much time between two slices."""


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
        self.races = Races(self.state, clock)
        self._plan_after = clock()
        """When planning beside others' decisions may go on though these wait, """
        self._others_turn = False
        """and whether they have to be asked first in any case."""
        self._post_filters = PostFilters(self.state)
        self.gangs = GangDispatch(
            self.state,
            queue,
            self.cycles,
            clock,
            self._post_filters,
            on_freed=lambda node: self._waking.note(node, Wake.ASSIGNED_POD_REMOVED),
            on_released=self._released,
            on_asleep=lambda name, plugins: self._waking.wait_for_help(name, plugins),
        )
        self._second_looks = {
            name: SecondLook(cycle, self.state, self._post_filters, self.gangs.reservations)
            for name, cycle in self.cycles.items()
        }
        self._waking = Waking(
            profiles, queue, self._second_looks, row_of=self.state.nodes.row_of, clock=clock
        )
        self._promises = Promises(
            self.state.nominations, lambda node: self._waking.note(node, Wake.ASSIGNED_POD_REMOVED)
        )
        self._preemptors = Preemptors(self.state, queue, self._promises, self._put_to_sleep)

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
                self._stop_waiting(uid)
                self.gangs.remove(uid)
                raise
            self._upsert_waiting(info)
            self.gangs.upsert(info)

    def remove_pod(self, uid: str) -> None:
        """Deleted or finished."""
        self._stop_waiting(uid)
        self._restore_objects(uid)
        placed = self.state.remove_pod(uid)
        self.state.condemned.gone(uid, self._clock())
        if placed is not None:
            self._waking.note(placed.node, Wake.ASSIGNED_POD_REMOVED)
            self._wake_nominated(placed.node)
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
        metadata, cluster = item.metadata, self.state.nodes.cluster
        before = cluster.get(type(item), metadata.name, metadata.namespace)
        if cluster.upsert(item):
            self._waking.note_object(type(item), ObjectChange(before, item))
            ref = group_ref(item)
            if ref is not None and (before is None or not same_options(before, item)):
                self.gangs.group_changed(ref)

    def remove_object(self, item: ClusterObject) -> None:
        if self.state.nodes.cluster.remove(type(item), item.metadata):
            self._waking.note_object(type(item), ObjectChange(item, None))
            ref = group_ref(item)
            if ref is not None:
                self.gangs.group_changed(ref)

    def replace_objects(self, kind: type[K], items: Iterable[K]) -> None:
        """A complete list of a kind, as for pods."""
        if self.state.nodes.cluster.replace(kind, items):
            self._waking.note_object(kind)
            if kind in GROUPS:
                self.gangs.groups_replaced()

    def knows(self, uid: str) -> bool:
        """Whether the pod waits or has a node here."""
        return uid in self.queue or uid in self.state.pods

    def known_pods(self) -> list[Pod]:
        """All that wait or have a node here, as the watch shows them."""
        pods = {placed.info.uid: placed.info.pod for placed in self.state.pods.values()}
        return [*(pods | {queued.info.uid: queued.info.pod for queued in self.queue}).values()]

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
        self._waking.note(node.metadata.name, change)
        if change & Wake.NODE_ALLOCATABLE:
            self.gangs.node_overlapped(node.metadata.name)

    def remove_node(self, name: str) -> None:
        self._waking.forget_node(name)
        self.state.nominations.drop_all(name)
        self.state.remove_node(name)
        self.gangs.node_overlapped(name)
        self._waking.note_anywhere(Wake.NODE_REMOVED)

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
        outcome = self.gangs.next_decided()
        if outcome is not None:
            return self._member_decision(outcome)
        if self.gangs.planning_alone or (
            self.gangs.planning and not self._others_turn and self._clock() >= self._plan_after
        ):
            return self._plan_on()
        self._others_turn = False
        untold = self.gangs.incomplete.next_untold()
        if untold is not None:
            return self._decision(untold[0], Verdict.WAITING, Placement(None, untold[1]))
        self.wake_helped()
        queued = self.gangs.next_first() or self.queue.pop()
        if queued is None:
            return self._plan_on() if self.gangs.planning else None
        info = queued.info
        if info.terminating:
            self.queue.remove(info.uid)
            message = f"skip schedule deleting pod: {info.name}"
            return self._decision(queued, Verdict.TERMINATING, Placement(None, message))
        if self.gangs.begin(queued):
            self._waking.remember()
            return self._plan_on()
        cycle, plan = self.cycles[queued.kind[0]], None
        within = self.gangs.reservations.allowed(info)
        try:
            placement, result = cycle.place(info, queued.kind[1], within=within), None
            if placement.node is None:
                placement = self.gangs.give_way(queued, within) or placement
            if placement.node is not None:
                plan = cycle.plan(info, placement.node)
            else:
                self.state.condemned.settle(self._clock())
                result = self._post_filters.ask(cycle, info, queued.kind[1], within)
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
        self._waking.note(placement.node, Wake.ASSIGNED_POD_ADDED)
        return self._decision(queued, Verdict.PLACED, placement, plan)

    def assume(self, info: PodInfo, node: str) -> None:
        """Of a pod without a node, as somebody else has decided. How its bind ends is told as of our own."""
        self._promises.withdraw(info.uid)
        self.state.assume(info, node)
        self._waking.note(node, Wake.ASSIGNED_POD_ADDED)

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
        self.races.bound(uid)

    def preemption_done(self, uid: str) -> None:
        """All the victims' deletions were accepted (or needless): the pod, or gang, waits for their room."""
        preemption = self._preemptors.of(uid)
        if preemption is None:
            return
        # Events have passed it by in the meantime. If it was the end of all victims, none is to come.
        if preemption.gang is None:
            waits, queued = (
                any(v.uid in self.state.pods for v in preemption.victims),
                self._preemptors.wait(uid),
            )
            if queued is not None and (not waits or self._fits_somewhere(queued)):
                self.queue.wake([queued], "PreemptionDone")
            return
        gang = self.gangs.book.of(uid)
        waits = gang is not None and self.gangs.rescue.awaits_victims(gang)
        for queued in [self._preemptors.wait(member) for member in preemption.gang.nodes]:
            if queued is not None and not waits:
                self.queue.activate(queued, "PreemptionDone")

    def preemption_failed(self, uid: str) -> None:
        """A victim's deletion was definitely refused: the pod, or gang, is tried again after a backoff."""
        self._preemptors.give_up(uid)

    def wake_helped(self) -> int:
        """Wakes pods that what happened has helped, as far as a slice of time allows; returns how many."""
        return self._waking.wake_helped()

    def next_due(self) -> float | None:
        """The clock's time at which `decide` may have something to do without any event."""
        if self.gangs.decided or self.gangs.planning or self.queue.has_active():
            return self._clock()
        dues = (self.queue.next_due(), self._waking.due, self.gangs.next_due())
        return min((due for due in dues if due is not None), default=None)

    # ---- internals

    def _plan_on(self) -> Decision | None:
        """Goes on with planning a gang for a while."""
        slice_s = PLAN_SLICE_S if self.gangs.planning_alone else PLAN_SLICE_BESIDE_S
        try:
            ended = self.gangs.work(self._clock() + slice_s)
        except Exception as error:  # as for single pods
            self.gangs.fail(f"planning the gang failed with {type(error).__name__}: {error}")
            ended = True
        if ended:
            self._waking.recall(go_on=self.gangs.planning)
        self._plan_after, self._others_turn = self._clock() + slice_s, True
        outcome = self.gangs.next_decided()
        return self._member_decision(outcome) if outcome is not None else None

    def _member_decision(self, outcome: MemberOutcome) -> Decision:
        placement, queued = outcome.placement, outcome.queued
        nominated: str | None = None
        if outcome.tentative:
            verdict = Verdict.TENTATIVE
            why = f"has a place on node {placement.node} until the rest of its gang has"
            placement = Placement(None, why)
        elif placement.node is not None:
            verdict = Verdict.PLACED
            self._promises.withdraw(queued.info.uid)
            self._waking.note(placement.node, Wake.ASSIGNED_POD_ADDED)
        elif outcome.preemption is not None and outcome.preemption.gang is not None:
            return self._preempting_decision(outcome, outcome.preemption.gang, outcome.preemption)
        else:
            verdict = Verdict.WAITING if outcome.retry else Verdict.UNSCHEDULABLE
            nominated = None if outcome.keeps_nomination else self._promises.take_back(queued.info)
        decision = self._decision(queued, verdict, placement, outcome.volumes)
        return replace(decision, commit=outcome.commit, nominated_node=nominated)

    def _preempting_decision(
        self, outcome: MemberOutcome, gang: GangRoom, preemption: Preemption
    ) -> Decision:
        """The first of a gang's members begins for all of them."""
        queued, placement = outcome.queued, outcome.placement
        uid = queued.info.uid
        begun = self._preemptors.of(uid) is not None
        if not begun and not self._preemptors.begin_for_gang(preemption, gang.nodes, placement.rejected_by):
            self.queue.set_backoff(queued)  # the plan was for all
            return self._decision(queued, Verdict.WAITING, placement)
        decision = self._decision(queued, Verdict.UNSCHEDULABLE, placement)
        return replace(decision, preemption=self._preemptors.of(uid), nominated_node=gang.nodes[uid])

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
            preemption = self._preemptors.begin(info, result.preemption, placement.rejected_by)
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
        self._waking.wait_for_help(queued.kind[0], rejected_by)

    def _fits_somewhere(self, queued: QueuedPod) -> bool:
        name, key = queued.kind
        return self._second_looks[name].rejected_by(queued.info, key, None) is None

    def _wake_nominated(self, node: str) -> None:
        """Pods nominated to a node sleep until their victims are gone. They need not fit then (whoever chose
        the victims may have died before all were deleted), but may preempt again."""
        for pod in self.state.nominations.on(node):
            queued = self.queue.get(pod.uid)
            gang = self.gangs.book.of(pod.uid)
            if gang is not None:
                self.gangs.room_freed(gang, node)
            elif queued is not None and queued.place is Place.UNSCHEDULABLE:
                leaving = (p.info for p in self.state.pods_on(node) if p.info.preempted)
                if all(victim.priority >= pod.priority for victim in leaving):
                    self.queue.wake([queued], "VictimsGone")

    def _upsert_assigned(self, info: PodInfo) -> None:
        self._stop_waiting(info.uid)
        before = self.state.pods.get(info.uid)
        if before is None:
            self._observe(info)
        node = before.node if before is not None else info.node_name
        change = self.state.confirm(info)
        self._waking.note(node, change)
        if before is None or node != info.node_name:
            self.gangs.node_overlapped(info.node_name)
            self.races.arrived(info)
        if info.terminating:
            self.state.condemned.goes(info.uid, self._clock())
        if node != info.node_name:
            self._restore_objects(info.uid)
            self._waking.note(info.node_name, change)

    def _stop_waiting(self, uid: str) -> None:
        self.queue.remove(uid)
        self._promises.forget(uid)
        self._preemptors.give_up(uid)

    def _upsert_waiting(self, info: PodInfo) -> None:
        kind = self._kind(info)
        queued = self.queue.get(info.uid)
        if queued is not None:
            if info.uid not in self.state.pods:  # else it has its room, whatever is written before the bind
                self._promises.follow(queued.info, info)
            self.queue.update(info, kind, concerned=self._concerned(kind[0], queued.info, info))
        elif info.uid not in self.state.pods and not info.terminating:
            # (A pod that is known as placed here had its bind confirmed: the watch is behind.)
            self._observe(info)
            self._promises.follow(None, info)
            self.queue.add(info, kind)

    def _concerned(self, name: str, old: PodInfo, new: PodInfo) -> bool:
        """Whether other pods' rules see the pod otherwise than before: its key does not show that."""
        look = self._second_looks[name]
        return old.labels != new.labels and look.context(old) != look.context(new)

    def _set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        if self.state.nodes.pods.set_namespace(name, labels):
            self._waking.note_anywhere(Wake.NAMESPACE_LABELS)

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
            self._waking.note_object(kind)

    def _released(self, node: str, info: PodInfo) -> None:
        """A hold has ended."""
        self._waking.note(node, Wake.ASSIGNED_POD_REMOVED)
        if info.pod.spec.volumes:
            for kind in (PersistentVolume, PersistentVolumeClaim):
                self._waking.note_object(kind)

    def _forget(self, uid: str) -> None:
        self._restore_objects(uid)
        node = self.state.forget(uid)
        if node is not None:
            self.state.condemned.spare(uid)
            self._waking.note(node, Wake.ASSIGNED_POD_REMOVED)

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
