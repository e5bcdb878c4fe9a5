"""What a group of filters says of every node, kept and patched row by row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scheduler.core.nodes import NodeView, Rows
from scheduler.core.plugin import FilterPlugin, Mask
from scheduler.core.pod_info import PodInfo

PASSES = 127
"""In `FilterAnswers.first`: no filter of the group rejects the node."""


class FilterAnswers:
    """Of each row: which filter of a group rejects it first, with which reasons."""

    def __init__(self, filters: Iterable[tuple[int, FilterPlugin]]) -> None:
        """With each filter's place in the profile."""
        self.filters = list(filters)
        self.generation = -1
        self.first = np.empty(0, np.int8)
        self.bits = np.empty(0, np.uint64)
        self.unresolvable = np.empty(0, np.bool_)

    def resize(self, n: int) -> None:
        if len(self.first) != n:
            self.first = np.resize(self.first, n)
            self.bits = np.resize(self.bits, n)
            self.unresolvable = np.resize(self.unresolvable, n)

    def curable(self) -> Mask:
        """bool[n]: where what rejects the node first may be cured by pods placed elsewhere."""
        found = np.zeros(len(self.first), np.bool_)
        for index, plugin in self.filters:
            if plugin.cured_by_pods:
                lasting = ~np.uint64(plugin.cured_by_pods)
                found |= (self.first == index) & (self.bits & lasting == 0)
        return found

    def refresh(self, pod: PodInfo, rows: Rows, nodes: NodeView) -> None:
        """Redoes the given rows, of which `nodes` is the view."""
        if not self.filters:
            self.first[rows], self.bits[rows] = PASSES, 0
            return
        index, plugin = self.filters[0]
        bits, unresolvable = plugin.filter(pod, nodes)
        first = np.where(bits != 0, np.int8(index), np.int8(PASSES))
        if len(self.filters) > 1:
            bits, unresolvable = bits.copy(), unresolvable.copy()  # they may be the plugin's own
        for index, plugin in self.filters[1:]:
            result = plugin.filter(pod, nodes)
            new = (result.reason_bits != 0) & (first == PASSES)
            first[new] = index
            bits[new] = result.reason_bits[new]
            unresolvable[new] = result.unresolvable[new]
        self.first[rows], self.bits[rows], self.unresolvable[rows] = first, bits, unresolvable
