"""A number per node that changes with pods, and what has changed of it lately.

Whoever has derived something from a tally (sums of domains, say) need not derive it anew after each
placement: the few changes since are enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KEPT = 256
"""Changes that are remembered, at least half as many; to follow more than that is no cheaper than anew."""


class Tally:
    """Kept by `PodIndex`; read-only for everybody else."""

    __slots__ = ("_base", "_changes", "alive", "amounts")

    def __init__(self, capacity: int) -> None:
        self.amounts: NDArray[np.int64] = np.zeros(capacity, np.int64)
        """int64[rows and more]."""
        self._changes: list[tuple[int, int]] = []
        self._base = 0
        self.alive = True
        """Whether it is still kept up to date."""

    def add(self, row: int, amount: int) -> None:
        self.amounts[row] += amount
        self._changes.append((row, amount))
        if len(self._changes) > KEPT:
            del self._changes[: KEPT // 2]
            self._base += KEPT // 2

    @property
    def version(self) -> int:
        """Grows by one with each change."""
        return self._base + len(self._changes)

    def since(self, version: int) -> list[tuple[int, int]] | None:
        """(row, change) one by one since then; None if that is no longer known. Rows are those of now, as
        long as no node object has changed."""
        first = version - self._base
        return self._changes[first:] if first >= 0 and self.alive else None
