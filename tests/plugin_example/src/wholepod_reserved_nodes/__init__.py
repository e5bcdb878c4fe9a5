"""ReservedNodes: some nodes are for pods of high priority, and these use them first.

A node's label (`label`, default `example.com/reserved-from`) holds the lowest priority it takes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scheduler import (
    MAX_NODE_SCORE,
    FilterPlugin,
    FilterResult,
    NodeView,
    PodInfo,
    ScorePlugin,
    Wake,
    rejects,
)

ANYBODY = -(2**31)
"""Below every priority."""


class ReservedNodes(FilterPlugin, ScorePlugin):
    name = "ReservedNodes"
    reads = ("priority",)
    wakes_on = Wake.NODE_ADD | Wake.NODE_LABELS

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        args = dict(args or {})
        self._label = args.pop("label", "example.com/reserved-from")
        super().__init__(args)  # what is left is not known here
        if not isinstance(self._label, str):
            raise ValueError(f"label must be a text, got {self._label!r}")

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return ("node(s) were reserved for pods of higher priority",)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        return rejects(self._reserved_from(nodes) > pod.priority, unresolvable=True)

    def score(self, pod: PodInfo, nodes: NodeView) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.where(self._reserved_from(nodes) > ANYBODY, MAX_NODE_SCORE, 0).astype(np.int64)

    def _reserved_from(self, nodes: NodeView) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64[n]. Each distinct value of the label is looked at once, however many nodes there are."""
        column, ids = nodes.label(self._label)
        return np.array([_priority(value) for value in column.values], np.int64)[ids]


def _priority(value: str | None) -> int:
    try:
        return int(value) if value is not None else ANYBODY
    except ValueError:
        return ANYBODY
