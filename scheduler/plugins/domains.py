"""Topology domains: the nodes that agree in a label, and what is counted of them together.

Sums are made by one pass over the interned label column, whatever the number of pods and domains, and
follow the tally they are made from, pod by pod.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import Mask
from scheduler.core.tally import Tally

HOSTNAME = "kubernetes.io/hostname"
_NOTHING: Mapping[int, int] = {}


class Domains:
    """All domains of one topology, while no node object changes.

    Nodes without the label are in none; or, `with_unlabelled`, in one with those whose label is empty.
    """

    def __init__(self, nodes: NodeView, topology_key: str, *, with_unlabelled: bool = False) -> None:
        column, ids = nodes.label(topology_key)
        self.labelled: Mask = np.asarray(ids != 0, np.bool_)
        """bool[n]: nodes that have the label."""
        empty = column.id_of("") if with_unlabelled else None
        self.ids: NDArray[np.int32] = ids if empty is None else np.where(ids == empty, np.int32(0), ids)
        """int32[n] of domain numbers, 0 for nodes without the label."""
        self.size = len(column.values)
        """One more than the highest number there can be."""
        self.first = 0 if with_unlabelled else 1
        """The lowest number that stands for a domain."""

    def rows(self, number: int) -> NDArray[np.intp]:
        """Nodes of one domain."""
        return np.flatnonzero(self.ids == number)


class DomainSums:
    """How much of a tally there is in each domain; if `counted` (bool[n]) is given, on these nodes alone."""

    def __init__(self, domains: Domains, tally: Tally, counted: Mask | None = None) -> None:
        self.domains, self._tally, self._counted = domains, tally, counted
        self._seen = tally.version
        amounts = tally.amounts[: len(domains.ids)]
        if counted is not None:
            amounts = np.where(counted, amounts, 0)
        # Exact up to 2⁵³, though bincount adds floating point numbers.
        self.per_domain: NDArray[np.int64] = np.bincount(
            domains.ids, weights=amounts, minlength=domains.size
        ).astype(np.int64)
        """int64[size]; 0 where there is no domain."""
        self.per_domain[: domains.first] = 0

    @property
    def per_node(self) -> NDArray[np.int64]:
        """int64[n]: the sum of the node's domain."""
        return self.per_domain[self.domains.ids]

    def catch_up(self) -> Mapping[int, int] | None:
        """Takes in what has happened to the tally; returns the domains that it happened in and their sums
        before, or None when that is not known any more."""
        tally = self._tally
        if tally.version == self._seen and tally.alive:
            return _NOTHING
        changes = tally.since(self._seen)
        if changes is None:
            return None
        self._seen = tally.version
        before: dict[int, int] = {}
        ids, first = self.domains.ids, self.domains.first
        counted, per_domain = self._counted, self.per_domain
        for row, amount in changes:
            number = int(ids[row])
            if number >= first and (counted is None or counted[row]):
                before.setdefault(number, int(per_domain[number]))
                per_domain[number] += amount
        return before
