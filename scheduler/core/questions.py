"""Filters asked directly, past all caches: what they say of some nodes as the table stands right now.

For what is only thought (pods that are nominated, pods that might be evicted) within a hidden
transaction. Only filters that read usage are asked again; what the others say of a node object cannot
have changed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.filter_answers import PASSES
from scheduler.core.following import FilterFollower
from scheduler.core.nodes import NodeTable, NodeView
from scheduler.core.plugin import Bits, FilterPlugin, FilterResult, Mask
from scheduler.core.pod_info import PodInfo
from scheduler.core.transaction import Transaction

NumberedFilters = Sequence[tuple[int, FilterPlugin]]
"""Filters with their places in the profile."""


class Statuses(NamedTuple):
    """Of some nodes: which filter rejects each first, with which reasons."""

    first: NDArray[np.int8]
    """int8[n]: the filter's place in the profile, `PASSES` where none does."""
    bits: Bits
    """uint64[n]."""
    unresolvable: Mask
    """bool[n]: whether evicting pods could not cure it."""

    @property
    def passing(self) -> Mask:
        return np.asarray(self.first == PASSES, np.bool_)

    def take(self, positions: NDArray[np.intp] | Mask) -> Statuses:
        """Those at these positions."""
        return Statuses(self.first[positions], self.bits[positions], self.unresolvable[positions])

    def copy(self) -> Statuses:
        return Statuses(self.first.copy(), self.bits.copy(), self.unresolvable.copy())

    def followed_by(self, other: Statuses) -> Statuses:
        """These and those of other nodes."""
        return Statuses(
            np.concatenate([self.first, other.first]),
            np.concatenate([self.bits, other.bits]),
            np.concatenate([self.unresolvable, other.unresolvable]),
        )

    def update(self, positions: NDArray[np.intp] | Mask, other: Statuses) -> None:
        """Writes other statuses over those at these positions."""
        self.first[positions], self.bits[positions] = other.first, other.bits
        self.unresolvable[positions] = other.unresolvable

    def merge(self, other: Statuses) -> None:
        """Takes in what other filters say of the same nodes."""
        earlier = other.first < self.first
        if earlier.any():
            self.update(earlier, other.take(earlier))

    def merge_filter(self, index: int, result: FilterResult) -> None:
        """Takes in what the filter at `index` says of the same nodes."""
        rejecting = (result.reason_bits != 0) & (self.first > index)
        if rejecting.any():
            self.first[rejecting] = index
            self.bits[rejecting] = result.reason_bits[rejecting]
            self.unresolvable[rejecting] = result.unresolvable[rejecting]


def no_rejections(n: int) -> Statuses:
    """n nodes of which nothing is known that would speak against them."""
    return Statuses(np.full(n, PASSES, np.int8), np.zeros(n, np.uint64), np.zeros(n, np.bool_))


class Questions:
    """About one pod."""

    def __init__(
        self,
        pod: PodInfo,
        nodes: NodeTable,
        *,
        static: Statuses,
        usage: NumberedFilters,
        remote: NumberedFilters,
    ) -> None:
        """`static`: of all nodes, by filters that read no usage. `usage`: row-local ones that do and
        have something to say of the pod. `remote`: those that look at other nodes and have, as things
        stand; what is only thought does not call in more of them, as in kube-scheduler."""
        self.pod, self._nodes = pod, nodes
        self.static, self.usage, self.remote = static, usage, remote
        self.rows_passed = 0
        """How many rows filters that look at other nodes have gone through."""
        self._followers: dict[int, FilterFollower] = {}
        self._followed: Hashable = None
        """While this stays the same, it is only pods under rules that are known that come and go."""

    @property
    def amounts_only(self) -> bool:
        """Whether nothing of the pods on nodes makes a difference but the amounts that they take there."""
        return not self.remote and all(plugin.reads_amounts_only for _, plugin in self.usage)

    def mind(self, other: PodInfo) -> bool:
        """Whether another pod's being on some node can make a difference on others."""
        nodes = self._nodes.view()
        return any(plugin.minds(self.pod, other, nodes) for _, plugin in self.remote)

    def row_local(self, rows: NDArray[np.intp], nodes: NodeView | None = None) -> Statuses:
        """Of these rows, by row-local filters; `nodes` may show them other than they are."""
        statuses = self.static.take(rows)
        if nodes is None:
            single = slice(int(rows[0]), int(rows[0]) + 1) if len(rows) == 1 else None
            nodes = self._nodes.view(rows if single is None else single)
        for index, plugin in self.usage:
            statuses.merge_filter(index, plugin.filter(self.pod, nodes))
        return statuses

    def everybody(self, rows: NDArray[np.intp]) -> Statuses:
        """Of these rows, by all filters."""
        statuses = self.row_local(rows)
        for index, plugin in self.remote:
            if (statuses.first > index).any():
                follower = self._follow(index, plugin)
                statuses.merge_filter(index, FilterResult(follower.bits[rows], follower.unresolvable[rows]))
        return statuses

    def with_pods(self, what_if: Transaction, row: int, pods: Iterable[PodInfo]) -> Statuses:
        """Of one row, by all filters, if these pods were on it too."""
        checkpoint = what_if.checkpoint()
        for pod in pods:
            what_if.add(row, pod)
        statuses = self.everybody(np.array([row], np.intp))
        what_if.rollback(checkpoint)
        return statuses

    def _follow(self, index: int, plugin: FilterPlugin) -> FilterFollower:
        """What the filter says of all nodes: from one question to the next a few pods come and go."""
        nodes = self._nodes
        now = nodes.layout, nodes.pods.version, nodes.cluster.changes
        if self._followed != now:
            self._followers.clear()
            self._followed = now
        follower = self._followers.get(index)
        rows = follower.catch_up() if follower is not None else None
        if follower is None or rows is None:
            follower = self._followers[index] = plugin.follow_filter(self.pod, nodes.view())
            rows = slice(0, len(nodes))
        self.rows_passed += rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        return follower
