"""What a group of filters says of every node, kept and patched row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import NodeView, Rows
from scheduler.core.plugin import Bits, FilterPlugin, Mask
from scheduler.core.pod_info import PodInfo

T = TypeVar("T", bound=np.generic)
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
            self.first = resized(self.first, n)
            self.bits = resized(self.bits, n)
            self.unresolvable = resized(self.unresolvable, n)

    def refresh(self, pod: PodInfo, rows: Rows, nodes: NodeView) -> None:
        """Redoes the given rows, of which `nodes` is the view."""
        if not self.filters:
            self.first[rows], self.bits[rows] = PASSES, 0
            return
        self.put(rows, [plugin.filter(pod, nodes) for _, plugin in self.filters])

    def put(self, rows: Rows, results: Sequence[tuple[Bits, Mask]]) -> None:
        """What each filter says of these rows, in order: (reason bits, unresolvable)."""
        bits, unresolvable = results[0]
        first = np.where(bits != 0, np.int8(self.filters[0][0]), np.int8(PASSES))
        if len(results) > 1:
            bits, unresolvable = bits.copy(), unresolvable.copy()  # they may be the plugin's own
        for (index, _), (its_bits, its_unresolvable) in zip(self.filters[1:], results[1:], strict=True):
            new = (its_bits != 0) & (first == PASSES)
            first[new] = index
            bits[new] = its_bits[new]
            unresolvable[new] = its_unresolvable[new]
        self.first[rows], self.bits[rows], self.unresolvable[rows] = first, bits, unresolvable


def resized(column: NDArray[T], n: int) -> NDArray[T]:
    """With another last axis; what new rows hold is for the caller to fill in."""
    new = np.empty((*column.shape[:-1], n), column.dtype)
    kept = min(n, column.shape[-1])
    new[..., :kept] = column[..., :kept]
    return new
