"""Pods on nodes, most important first, in columns: who might be evicted, and what that would free.

One row per pod, those of one node side by side. What a node's pods are is read again when the node's row
in the table has changed, so a preemption looks at few pods however many there are. Rows that are not
current any more stay where they are until they are too many.
Source of the order: MoreImportantPod (pkg/scheduler/util/utils.go), pods that have not started last.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import NodeTable
from scheduler.core.pod_info import PodInfo

NOT_STARTED = np.iinfo(np.int64).max
"""Start time of a pod that has none yet: later than any other."""
_MIN_CAPACITY = 1024
A = TypeVar("A", bound=np.generic)

AMOUNTS_BEFORE_RESOURCES = 3
"""Columns of amounts: pods, non-zero cpu, non-zero memory, then one per resource."""


class PlacedPods:
    """`pods_on(node)`: the pods on a node; `renewed`: names of nodes where a pod was replaced by another
    version of it that takes the same room, kept by others and emptied here; `priorities`: how many pods
    on nodes have which priority; `condemned`: uids of pods that are leaving, a change of which renews the
    node."""

    def __init__(
        self,
        nodes: NodeTable,
        pods_on: Callable[[str], Iterable[PodInfo]],
        renewed: set[str],
        priorities: Mapping[int, int],
        condemned: Container[str],
    ) -> None:
        self._priorities, self._condemned = priorities, condemned
        self._nodes, self._pods_on, self._renewed = nodes, pods_on, renewed
        self._generation = -1
        self._resources = nodes.resources
        self.infos: list[PodInfo] = []
        self.priority = np.empty(0, np.int64)
        self.start = np.empty(0, np.int64)
        """Seconds since 1970."""
        self.leaving = np.empty(0, np.bool_)
        """Whether the pod will be gone in any case."""
        self.amounts = np.empty((0, AMOUNTS_BEFORE_RESOURCES), np.int64)
        """int64[pods, 3 + R]."""
        self.offset = np.empty(0, np.intp)
        """Of each node: its first row here."""
        self.count = np.empty(0, np.intp)
        self.read_at = np.empty(0, np.int64)
        """Of each node: the version at which its pods were read last."""
        self.version = 0
        self.epoch = 0
        """Bumped when all rows have moved."""
        self._used = self._wasted = 0

    def update(self) -> None:
        """Brings everything up to date with the table."""
        nodes, n = self._nodes, len(self._nodes)
        if nodes.resources is not self._resources or self._wasted > self._used // 2 + _MIN_CAPACITY:
            self._resources = nodes.resources
            self._generation, self._used, self._wasted = -1, 0, 0
            self.epoch += 1
            self.infos.clear()
            self.count[:] = 0
            self.amounts = self.amounts[:, :AMOUNTS_BEFORE_RESOURCES]  # of resources there may be fewer now
        if len(self.count) < n:
            self.offset = widened(self.offset, 2 * n)
            self.count = widened(self.count, 2 * n)
            self.read_at = widened(self.read_at, 2 * n)
        missing = AMOUNTS_BEFORE_RESOURCES + len(nodes.resources) - self.amounts.shape[1]
        if missing:
            more = np.zeros((len(self.amounts), missing), np.int64)
            self.amounts = np.concatenate([self.amounts, more], axis=1)
        changed = nodes.changed_since(self._generation).tolist()
        if self._renewed:
            changed += [nodes.row_of[name] for name in self._renewed if name in nodes.row_of]
            self._renewed.clear()
        if changed:
            self.version += 1
            self._read(changed)
        self._generation = nodes.generation

    def any_below(self, priority: int) -> bool:
        """Whether any pod on a node has a lower priority; in many clusters all have the same."""
        return any(each < priority for each in self._priorities)

    def any_above(self, priority: int) -> bool:
        """The same the other way round."""
        return any(each > priority for each in self._priorities)

    def above(self, priority: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64[n], int64[n, R]: of each of n nodes how many pods have a higher priority, and their usage."""
        counts = np.zeros((self._used + 1, self.amounts.shape[1]), np.int64)
        higher = self.priority[: self._used] > priority
        np.cumsum(np.where(higher[:, None], self.amounts[: self._used], 0), axis=0, out=counts[1:])
        begin, end = self.offset[:n], self.offset[:n] + self.count[:n]
        taken = counts[end] - counts[begin]
        return taken[:, 0], taken[:, AMOUNTS_BEFORE_RESOURCES:]

    def of(self, row: int) -> range:
        """Rows here of the pods on a node."""
        return range(int(self.offset[row]), int(self.offset[row] + self.count[row]))

    def below(self, priority: int, n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Of each of n nodes: how many pods have a lower priority, and where these begin."""
        lower = np.zeros(self._used + 1, np.intp)
        np.cumsum(self.priority[: self._used] < priority, out=lower[1:])
        begin, end = self.offset[:n], self.offset[:n] + self.count[:n]
        eligible = lower[end] - lower[begin]
        return eligible, end - eligible

    def _read(self, rows: Iterable[int]) -> None:
        """The pods of these nodes, anew."""
        resources, width = self._nodes.resources, self.amounts.shape[1]
        begin = end = self._used
        amounts: list[list[int]] = []
        for row in rows:
            pods = sorted(self._pods_on(self._nodes.names[row]), key=_by_importance)
            self._wasted += int(self.count[row])
            self.offset[row], self.count[row], self.read_at[row] = end, len(pods), self.version
            self.infos += pods
            end += len(pods)
            for pod in pods:
                taken = [1, *pod.nonzero_requests, *[0] * (width - AMOUNTS_BEFORE_RESOURCES)]
                for name, amount in pod.usage.items():
                    taken[AMOUNTS_BEFORE_RESOURCES + resources[name]] = amount
                amounts.append(taken)
        if end > len(self.priority):
            capacity = max(_MIN_CAPACITY, 2 * end)
            self.priority, self.start = widened(self.priority, capacity), widened(self.start, capacity)
            self.amounts, self.leaving = widened(self.amounts, capacity), widened(self.leaving, capacity)
        if end > begin:
            new = self.infos[begin:]
            self.priority[begin:end] = [pod.priority for pod in new]
            self.start[begin:end] = [start_time_s(pod) for pod in new]
            self.amounts[begin:end] = amounts
            self.leaving[begin:end] = [pod.uid in self._condemned for pod in new]
        self._used = end


def start_time_s(pod: PodInfo) -> int:
    """`status.startTime` in seconds since 1970; `NOT_STARTED` without one, or one that nobody can read."""
    try:
        return int(datetime.fromisoformat(pod.started).timestamp()) if pod.started else NOT_STARTED
    except ValueError:
        return NOT_STARTED


def _by_importance(pod: PodInfo) -> tuple[int, bool, str, str, str]:
    """RFC 3339 in UTC, as the API server writes it, sorts as text."""
    created = pod.pod.metadata.creation_timestamp or ""
    return -pod.priority, not pod.started, pod.started, created, pod.uid


def widened(column: NDArray[A], capacity: int) -> NDArray[A]:
    """The column with this many rows: zeros at the end, or cut off."""
    wider = np.zeros((capacity, *column.shape[1:]), column.dtype)
    kept = min(len(column), capacity)
    wider[:kept] = column[:kept]
    return wider
