"""Pods that have others evicted, from the decision until the deletions are accepted.

They are in flight meanwhile: what happens passes them by. A gang's members are in it together: they begin at
once, and if one of them is gone before the end, the others are tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption
from scheduler.core.promises import Promises
from scheduler.core.queue import Place, QueuedPod, SchedulingQueue
from scheduler.core.state import ClusterState


class Preemptors:
    """By uid. `put_to_sleep(pod, rejected_by)` has a pod wait for events."""

    def __init__(
        self,
        state: ClusterState,
        queue: SchedulingQueue,
        promises: Promises,
        put_to_sleep: Callable[[QueuedPod, frozenset[str]], None],
    ) -> None:
        self._state, self._queue, self._promises = state, queue, promises
        self._put_to_sleep = put_to_sleep
        self._preemptions: dict[str, tuple[Preemption, frozenset[str]]] = {}
        """What is under way for each, and who rejected it."""

    def of(self, uid: str) -> Preemption | None:
        """What is under way for the pod."""
        return self._preemptions.get(uid, (None, None))[0]

    def begin(self, info: PodInfo, preemption: Preemption, rejected_by: frozenset[str]) -> Preemption:
        """For one pod; returns the preemption, and whom it displaces."""
        return self._begin({info.uid: (info, preemption.node)}, preemption, rejected_by)

    def begin_for_gang(
        self, preemption: Preemption, nodes: Mapping[str, str], rejected_by: frozenset[str]
    ) -> bool:
        """For all members that have a node in the plan; False if one of them is gone by now."""
        members = [self._queue.get(uid) for uid in nodes]
        there = [m.info for m in members if m is not None and m.place is Place.IN_FLIGHT]
        if len(there) < len(nodes):
            return False
        self._begin({info.uid: (info, nodes[info.uid]) for info in there}, preemption, rejected_by)
        return True

    def wait(self, uid: str) -> QueuedPod | None:
        """The deletions are accepted: the pod sleeps until there is room; None if it does not wait."""
        _, rejected_by = self._preemptions.pop(uid)
        queued = self._queue.get(uid)
        if queued is None or queued.place is not Place.IN_FLIGHT:
            return None
        self._put_to_sleep(queued, rejected_by)
        return queued

    def give_up(self, uid: str) -> None:
        """Victims that are not leaving yet stay; who waited for them is tried again, if it is there."""
        preemption, _ = self._preemptions.get(uid, (None, None))
        if preemption is None:
            return
        self._state.spare(preemption)
        for member in preemption.gang.nodes if preemption.gang is not None else (uid,):
            queued = self._queue.get(member)
            del self._preemptions[member]
            if queued is not None and queued.place is Place.IN_FLIGHT:
                self._promises.withdraw(member)
                self._queue.set_backoff(queued)

    # ---- internals

    def _begin(
        self,
        preemptors: Mapping[str, tuple[PodInfo, str]],
        preemption: Preemption,
        rejected_by: frozenset[str],
    ) -> Preemption:
        displaced: dict[str, PodInfo] = {}
        for info, node in preemptors.values():
            displaced |= {pod.uid: pod for pod in self._displace(info, node)}
        preemption = replace(preemption, displaced=tuple(displaced.values()))
        for uid, (info, node) in preemptors.items():
            self._promises.make(info, node)
            self._preemptions[uid] = preemption, rejected_by
        self._state.condemn(preemption)
        return preemption

    def _displace(self, info: PodInfo, node: str) -> tuple[PodInfo, ...]:
        """Waiting pods of lower priority that are nominated to the node have to look for another one."""
        nominated = self._state.nominations.on(node)
        displaced = tuple(pod for pod in nominated if pod.priority < info.priority)
        for pod in displaced:
            self._promises.take_back(pod)
            queued = self._queue.get(pod.uid)
            if queued is not None:
                self._queue.wake([queued], "NominationCleared")
        return displaced
