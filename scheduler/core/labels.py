"""Interned strings of nodes: label values and taint sets as small integers in a column.

A rule about labels or taints is evaluated once per distinct value and then looked up for all
nodes, so its cost follows the number of values (zones, pools), not of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

V = TypeVar("V", bound=Hashable)
S = TypeVar("S", bound=np.generic)


class InternedColumn(Generic[V]):
    """One value per row, stored as an id; ids index `values`. Id 0 is the given default."""

    def __init__(self, default: V, capacity: int) -> None:
        self.ids: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.values: list[V] = [default]
        self._id_of: dict[V, int] = {default: 0}

    def set(self, row: int, value: V) -> None:
        known = self._id_of.get(value)
        if known is None:
            known = self._id_of[value] = len(self.values)
            self.values.append(value)
        self.ids[row] = known

    def id_of(self, value: V) -> int:
        """-1 for a value that no row has."""
        return self._id_of.get(value, -1)

    def grow(self, capacity: int) -> None:
        self.ids = np.concatenate([self.ids, np.zeros(capacity - len(self.ids), np.int32)])

    def compact(self, rows: int) -> None:
        """Forgets values that no row has any more, once they outnumber the rows."""
        if len(self.values) <= 2 * rows + 1024:
            return
        used = [self.values[i] for i in self.ids[:rows]]
        default = self.values[0]
        self.values, self._id_of = [default], {default: 0}
        for row, value in enumerate(used):
            self.set(row, value)


def lookup(
    column: InternedColumn[Any], ids: NDArray[np.int32], holds: Callable[[Any], bool]
) -> NDArray[np.bool_]:
    """bool[n]: whether `holds` is true of each row's value; it is called once per distinct value."""
    return _lookup(column, ids, holds, np.bool_)


def lookup_counts(
    column: InternedColumn[Any], ids: NDArray[np.int32], count: Callable[[Any], int]
) -> NDArray[np.int64]:
    """int64[n]: the same for a number."""
    return _lookup(column, ids, count, np.int64)


def _lookup(
    column: InternedColumn[Any], ids: NDArray[np.int32], answer: Callable[[Any], Any], dtype: type[S]
) -> NDArray[S]:
    if len(column.values) <= len(ids):
        return np.fromiter(map(answer, column.values), dtype, len(column.values))[ids]
    if len(ids) == 1:
        return np.array([answer(column.values[ids[0]])], dtype)
    distinct, inverse = np.unique(ids, return_inverse=True)
    answers = np.fromiter((answer(column.values[i]) for i in distinct), dtype, len(distinct))
    return answers[inverse]
