"""Where evictions are rehearsed: nodes from which pods are taken away and put back, and what filters
say of them then.

For most pods only amounts matter, and then all nodes are rehearsed at once on arrays that are made for
the occasion. For the others the node table itself is the stage, in a hidden transaction: with all nodes
at once too for rules about one node (ports), and one node at a time for rules that look at others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import NodeTable, NodeView
from scheduler.core.placed_pods import AMOUNTS_BEFORE_RESOURCES, PlacedPods
from scheduler.core.pod_info import PodInfo
from scheduler.core.questions import Questions, Statuses
from scheduler.core.transaction import Transaction

Places = NDArray[np.intp]
"""Places in an array: of nodes in the stage's, or of pods in `PlacedPods`."""


class Stage(Protocol):
    """Some nodes, each of which comes once at most in a call."""

    def move(self, nodes: Places, pods: Places, sign: int) -> None:
        """Each node gets the pod beside it (`sign` 1) or loses it (-1)."""

    def ask(self, nodes: Places) -> Statuses:
        """What the filters say of these nodes now, also with the pods nominated there."""


class AmountsStage:
    """Copies of the numbers of each node."""

    def __init__(
        self,
        questions: Questions,
        table: NodeTable,
        placed: PlacedPods,
        rows: NDArray[np.intp],
        nominated: Mapping[int, Sequence[PodInfo]],
    ) -> None:
        """`nominated`: place of a node in `rows` → pods that the pod has to make way for there."""
        self._questions, self._table, self._placed, self._rows = questions, table, placed, rows
        view = table.view(rows)
        self._used = np.concatenate(
            [view.pod_count[:, None], view.nonzero_requested.T, view.requested.T], axis=1
        )
        self._crowded = np.zeros(len(rows), np.bool_)
        self._extra = {place: self._amounts(pods) for place, pods in nominated.items()}
        self._crowded[list(nominated)] = True

    def move(self, nodes: Places, pods: Places, sign: int) -> None:
        self._used[nodes] += sign * self._placed.amounts[pods]

    def ask(self, nodes: Places) -> Statuses:
        rows, used = self._rows[nodes], self._used[nodes]
        statuses = self._questions.row_local(rows, _AmountsView(self._table, rows, used))
        crowded = np.flatnonzero(self._crowded[nodes])
        if len(crowded):
            extra = np.array([self._extra[place] for place in nodes[crowded].tolist()])
            rows = rows[crowded]
            view = _AmountsView(self._table, rows, used[crowded] + extra)
            with_nominated = self._questions.row_local(rows, view)
            rejecting = ~with_nominated.passing
            statuses.update(crowded[rejecting], with_nominated.take(rejecting))
        return statuses

    def _amounts(self, pods: Iterable[PodInfo]) -> NDArray[np.int64]:
        total = np.zeros(self._used.shape[1], np.int64)
        for pod in pods:
            total[0] += 1
            total[1:AMOUNTS_BEFORE_RESOURCES] += pod.nonzero_requests
            for name, amount in pod.usage.items():
                resource = self._table.resources.get(name)
                if resource is not None:
                    total[AMOUNTS_BEFORE_RESOURCES + resource] += amount
        return total


class TableStage:
    """Rows of the node table; `what_if` is hidden, and whoever began it ends it."""

    def __init__(
        self,
        questions: Questions,
        what_if: Transaction,
        placed: PlacedPods,
        rows: NDArray[np.intp],
        nominated: Mapping[int, Sequence[PodInfo]],
    ) -> None:
        self._questions, self._what_if, self._placed, self._rows = questions, what_if, placed, rows
        self._nominated = nominated

    def move(self, nodes: Places, pods: Places, sign: int) -> None:
        move = self._what_if.add if sign > 0 else self._what_if.remove
        for row, pod in zip(self._rows[nodes].tolist(), pods.tolist(), strict=True):
            move(row, self._placed.infos[pod])

    def ask(self, nodes: Places) -> Statuses:
        statuses = self._questions.everybody(self._rows[nodes])
        if not self._nominated:
            return statuses
        for i, place in enumerate(nodes.tolist()):
            others = self._nominated.get(place)
            if others:
                row = int(self._rows[place])
                with_nominated = self._questions.with_pods(self._what_if, row, others)
                if not with_nominated.passing[0]:
                    statuses.update(np.array([i]), with_nominated)
        return statuses


class _AmountsView(NodeView):
    """Rows whose amounts in use are others than the table's: int64[n, 3 + R], as in `PlacedPods`."""

    __slots__ = ("_used",)

    def __init__(self, table: NodeTable, rows: NDArray[np.intp], used: NDArray[np.int64]) -> None:
        super().__init__(table, rows)
        self._used = used

    @property
    def requested(self) -> NDArray[np.int64]:
        return self._used[:, AMOUNTS_BEFORE_RESOURCES:].T

    @property
    def nonzero_requested(self) -> NDArray[np.int64]:
        return self._used[:, 1:AMOUNTS_BEFORE_RESOURCES].T

    @property
    def pod_count(self) -> NDArray[np.int64]:
        return self._used[:, 0]
