"""Whether what has happened has helped a sleeping pod, found out without a decision.

Pods that get the same answer are asked for once: those of one kind that the cluster's rules see alike, and
from whom the same nodes are kept. A pod that is nominated to a node where something has happened stands for
itself, as its own nomination does not keep it out.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

from scheduler.core.cycle import Cycle
from scheduler.core.gangs.reservation import Reservations
from scheduler.core.pod_info import PodInfo
from scheduler.core.post_filters import PostFilters
from scheduler.core.profile import Key
from scheduler.core.queue import QueuedPod
from scheduler.core.state import ClusterState


class SecondLook:
    """For pods of one profile. `rows` are those where it happened, None stands for all."""

    def __init__(
        self,
        cycle: Cycle,
        state: ClusterState,
        post_filters: PostFilters,
        reservations: Reservations,
    ) -> None:
        self._cycle, self._state, self._post_filters = cycle, state, post_filters
        self._reservations = reservations

    def groups(
        self, pods: Collection[QueuedPod], rows: NDArray[np.intp] | None
    ) -> Iterable[Collection[QueuedPod]]:
        """Pods of one kind by what answer they get."""
        nominations = self._state.nominations
        reserved = bool(self._reservations.nodes)
        if not (self._has_contexts(next(iter(pods)).info) or nominations or reserved):
            return [pods]
        names = self._state.nodes.names
        here = None if rows is None else {names[row] for row in rows.tolist()}
        groups: dict[Hashable, list[QueuedPod]] = {}
        for pod in pods:
            group = self.context(pod.info)
            if nominations:
                own = nominations.node_of(pod.info.uid)
                group = group, own if here is None or own in here else None
            if reserved:
                group = group, self._reservations.kept_from(pod.info)
            groups.setdefault(group, []).append(pod)
        return groups.values()

    def context(self, pod: PodInfo) -> Hashable:
        """What of the cluster concerns filters of the pod beyond its kind."""
        try:
            return self._cycle.remote.filter_context(pod)
        except Exception:  # the pod's next decision will say what it was; until then it is like no other
            return object()

    def rejected_by(self, pod: PodInfo, key: Key, rows: NDArray[np.intp] | None) -> frozenset[str] | None:
        """Who rejects the pod there; None when a node fits."""
        within = self._reservations.allowed(pod)
        try:
            if rows is not None:
                return self._cycle.rejected_by(pod, rows if within is None else rows[within.mask[rows]])
            placement = self._cycle.place(pod, key, within=within)
        except Exception:  # as above
            return None
        return placement.rejected_by if placement.node is None else None

    def might_be_helped(self, pod: PodInfo, key: Key, rows: NDArray[np.intp]) -> bool:
        """Whether plugins may find something to do for the pod there, though it does not fit."""
        within = self._reservations.allowed(pod)
        try:
            rows = rows if within is None else rows[within.mask[rows]]
            return self._post_filters.might_help(self._cycle, pod, key, rows)
        except Exception:
            return True

    def _has_contexts(self, pod: PodInfo) -> bool:
        try:
            return self._cycle.remote.has_filter_contexts(pod)
        except Exception:
            return True
