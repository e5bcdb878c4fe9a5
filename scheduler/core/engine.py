"""The engine: state, queue and cycles behind the few calls that a cluster's events come down to.

It is synchronous and does no I/O. Deltas of the watch go in (`upsert_pod`, `remove_node`, …),
decisions come out (`decide`), and what became of them comes back (`bind_failed`). A decision is made
in one go on the live state, so no event can slip in between looking and assuming.

Waking: a waiting pod is woken only when a node changed in a way that one of the plugins that
rejected the pod names in `wakes_on`, and the pod's filters now pass on that very node. This is
checked once per kind of pod, not per pod, and no more often than the checks' own cost allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from scheduler.api import Node, Pod
from scheduler.core.cycle import Cycle, Placement
from scheduler.core.mix import ShapeMix
from scheduler.core.plugin import Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile
from scheduler.core.queue import Kind, Place, QueuedPod, SchedulingQueue
from scheduler.core.state import ClusterState
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
        self._wakes_on: dict[str, dict[str, Wake]] = {
            p.scheduler_name: {f.name: f.wakes_on for f in p.filters} for p in profiles
        }
        self._helpful: dict[str, Wake] = {}
        """Node name → what has happened to it since the last wake check began."""
        self._changed: dict[str, Wake] = {}
        """The same for the wake check under way, and the kinds it has yet to look at."""
        self._to_check: list[Kind] = []
        self._next_wake_check = clock()

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
                self.queue.remove(uid)
                raise
            self._upsert_waiting(info)

    def remove_pod(self, uid: str) -> None:
        """Deleted or finished."""
        self.queue.remove(uid)
        placed = self.state.remove_pod(uid)
        if placed is not None:
            self._note(placed.node, Wake.ASSIGNED_POD_REMOVED)

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
        self.state.remove_node(name)

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
        try:
            placement = self.cycles[queued.kind[0]].place(info, queued.kind[1])
        except Exception as error:  # any plugin may come from elsewhere: one pod's trouble, not all pods'
            self.queue.set_backoff(queued)
            message = f"deciding failed with {type(error).__name__}: {error}"
            return self._decision(queued, Verdict.ERROR, Placement(None, message))
        if placement.node is None:
            self.queue.set_unschedulable(queued, placement.rejected_by)
            return self._decision(queued, Verdict.UNSCHEDULABLE, placement)
        self.state.assume(info, placement.node)
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
        """Wakes pods that what happened to nodes has helped; returns how many.

        Goes through the sleeping kinds for at most `WAKE_SLICE_S` and takes up the rest next time.
        """
        start = self._clock()
        if start < self._next_wake_check or not (self._to_check or self._helpful):
            return 0
        if not self._to_check:
            self._changed, self._helpful = self._helpful, {}
            self._to_check = self.queue.unschedulable_kinds()
        rows_of: dict[Wake, NDArray[np.intp]] = {}
        woken, end = 0, start
        while self._to_check and end - start <= WAKE_SLICE_S:
            woken += self._wake_if_helped(self._to_check.pop(), rows_of)
            end = self._clock()
        self._next_wake_check = end + (end - start) * (WAKE_SHARE - 1)
        return woken

    def next_due(self) -> float | None:
        """The clock's time at which `decide` may have something to do without any event."""
        if self.queue.has_active():
            return self._clock()
        due = self.queue.next_due()
        if self._to_check or self._helpful:
            return self._next_wake_check if due is None else min(due, self._next_wake_check)
        return due

    # ---- internals

    def _wake_if_helped(self, kind: Kind, rows_of: dict[Wake, NDArray[np.intp]]) -> int:
        """`rows_of`: rows that any of some events happened to, kept from kind to kind."""
        asleep = self.queue.asleep(kind)
        if asleep is None:
            return 0  # woken otherwise in the meantime
        info, rejected_by = asleep
        wanted = Wake.NODE_ADD  # nobody has rejected a new node yet
        for name in rejected_by:
            wanted |= self._wakes_on[kind[0]][name]
        rows = rows_of.get(wanted)
        if rows is None:
            row_of = self.state.nodes.row_of
            helped = [row_of[n] for n, event in self._changed.items() if event & wanted and n in row_of]
            rows = rows_of[wanted] = np.array(helped, np.intp)
        if not len(rows):
            return 0
        try:
            still = self.cycles[kind[0]].rejected_by(info, rows)
        except Exception:  # the pod's next decision will say what it was
            still = None
        if still is None:
            return self.queue.wake(kind, "NodeChange")
        # One reason has gone and another has shown: from now on it is that which must go.
        self.queue.note_rejections(kind, still)
        return 0

    def _upsert_assigned(self, info: PodInfo) -> None:
        self.queue.remove(info.uid)
        before = self.state.pods.get(info.uid)
        if before is None:
            self._observe(info)
            self.state.confirm(info)
            return
        node = before.node
        if self.state.confirm(info):
            self._note(node, Wake.ASSIGNED_POD_REMOVED)

    def _upsert_waiting(self, info: PodInfo) -> None:
        kind = self._kind(info)
        if info.uid in self.queue:
            self.queue.update(info, kind)
        elif info.uid not in self.state.pods and not info.terminating:
            # (A pod that is known as placed here had its bind confirmed: the watch is behind.)
            self._observe(info)
            self.queue.add(info, kind)

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

    def _note(self, node: str, event: Wake) -> None:
        if event and node in self.state.nodes.row_of:
            self._helpful[node] = self._helpful.get(node, Wake.NOTHING) | event

    def _decision(self, queued: QueuedPod, verdict: Verdict, placement: Placement) -> Decision:
        return Decision(
            pod=queued.info,
            verdict=verdict,
            node=placement.node,
            message=placement.message,
            attempts=queued.attempts,
            waited_s=self._clock() - queued.first_seen,
            rejected_by=placement.rejected_by,
        )
