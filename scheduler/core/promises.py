"""Nominations as they are made, seen and taken back.

They are made by our own decisions, which count at once, and by whoever writes `status.nominatedNodeName`,
which the watch shows. What we had written comes back through the watch as well, and late: until then the
watch is behind and what it says is not news.
Source: UpdateNominatedPod (pkg/scheduler/backend/queue/nominator.go).
"""

from __future__ import annotations

from collections.abc import Callable

from scheduler.core.nominations import Nominations
from scheduler.core.pod_info import PodInfo


class Promises:
    """`on_freed(node)` is called when a node need not count a nominated pod any more."""

    def __init__(self, nominations: Nominations, on_freed: Callable[[str], None]) -> None:
        self._nominations, self._on_freed = nominations, on_freed
        self._written: dict[str, str] = {}
        """Pod → what its status is to say by our decision, as long as the watch has not shown it."""

    def follow(self, old: PodInfo | None, new: PodInfo) -> None:
        """The watch shows a waiting pod; `old` is what it showed before."""
        uid, shown = new.uid, new.nominated_node
        if self._written.get(uid) == shown:
            del self._written[uid]
        elif uid not in self._written and shown != (old.nominated_node if old is not None else ""):
            if shown:
                self._nominate(new, shown)
            else:
                self.withdraw(uid)
        node = self._nominations.node_of(uid)
        if node is not None:
            self._nominate(new, node)  # it may look different now

    def make(self, pod: PodInfo, node: str) -> None:
        """We have decided so."""
        self._note_written(pod, node)
        self._nominate(pod, node)

    def take_back(self, pod: PodInfo) -> str | None:
        """We have decided that the pod is nominated nowhere. Returns what its status is to become: empty,
        or None when it never said anything else."""
        self.withdraw(pod.uid)
        if not (pod.nominated_node or self._written.get(pod.uid)):
            return None
        self._note_written(pod, "")
        return ""

    def withdraw(self, uid: str) -> None:
        """The pod's nomination, if it has one, is no more: others may have its room."""
        node = self._nominations.drop(uid)
        if node is not None:
            self._on_freed(node)

    def forget(self, uid: str) -> None:
        """The pod does not wait any more."""
        self._written.pop(uid, None)
        self.withdraw(uid)

    def _nominate(self, pod: PodInfo, node: str) -> None:
        lost = self._nominations.nominate(pod, node)
        if lost is not None:
            self._on_freed(lost)

    def _note_written(self, pod: PodInfo, node: str) -> None:
        if pod.uid in self._written or pod.nominated_node != node:
            self._written[pod.uid] = node
