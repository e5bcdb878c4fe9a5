"""Topology domains: the nodes that agree in a label, and what is counted of them together.

One pass of `bincount` over the interned label column, whatever the number of pods and domains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import Mask

HOSTNAME = "kubernetes.io/hostname"


class Domains:
    """Of one view; nodes without the label are in no domain."""

    def __init__(self, nodes: NodeView) -> None:
        self._nodes = nodes

    def of(self, topology_key: str) -> tuple[NDArray[np.int32], int]:
        """int32[n] of domain numbers, 0 for none, and one more than the highest there can be."""
        column, ids = self._nodes.label(topology_key)
        return ids, len(column.values)

    def of_values(self, topology_key: str) -> tuple[NDArray[np.int32], int]:
        """As `of`, but nodes without the label are in domain 0 together with those where it is empty."""
        column, ids = self._nodes.label(topology_key)
        empty = column.id_of("")
        return ids if empty is None else np.where(ids == empty, np.int32(0), ids), len(column.values)

    def labelled(self, topology_key: str) -> Mask:
        """bool[n]: nodes that are in a domain."""
        return np.asarray(self.of(topology_key)[0] != 0, np.bool_)

    def sums(self, topology_key: str, amounts: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n]: for each node the sum of `amounts` in its domain, 0 if it has none.

        Sums are exact up to 2⁵³.
        """
        ids, size = self.of(topology_key)
        per_domain = np.bincount(ids, weights=amounts, minlength=size).astype(np.int64)
        per_domain[0] = 0
        return per_domain[ids]
