"""What plugins said of a node with exactly these amounts, so that they need not be asked again.

Pods of one kind turn equal nodes into equal nodes: an empty node with one such pod on it is like any
other. Most of what a placement makes us redo, the one row it has changed, has therefore been worked
out before, and one look-up takes the place of some forty calls on arrays of length one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import NodeTable

_KEPT = 1024


class RowAnswer(NamedTuple):
    """One row of a kind's answers."""

    first: np.int8
    bits: np.uint64
    unresolvable: np.bool_
    raw: NDArray[np.int64]
    """int64[plugins]."""
    total: int


class RowMemo:
    """Of one kind of pod, for plugins that read nothing of a node but its amounts."""

    def __init__(self) -> None:
        self._answers: dict[bytes, RowAnswer] = {}
        self._resources: Mapping[str, int] | None = None

    def clear(self) -> None:
        self._answers.clear()

    def get(self, nodes: NodeTable, row: int) -> tuple[bytes, RowAnswer | None]:
        """The key of the row as it is now, and the answer for it if there is one."""
        if nodes.resources is not self._resources:  # columns may stand for other resources now
            self._answers.clear()
            self._resources = nodes.resources
        key = nodes.amounts(row)
        return key, self._answers.get(key)

    def put(self, key: bytes, answer: RowAnswer) -> None:
        if len(self._answers) >= _KEPT:
            self._answers.clear()
        self._answers[key] = answer
