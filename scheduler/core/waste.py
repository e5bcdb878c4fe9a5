"""What a node's free room is worth, given the mix of pods expected.

The best place for a pod is where it spoils least. Room is spoilt when it can no longer be used by
what is likely to come: 8 free cores without memory are worth nothing if every pod wants memory.
So free room has a worth, and a placement costs what the node's room loses of it. Nothing else
about a node is looked at, hence one changed node is one score to redo.

    worth(free) = sum over shapes s of   w_s · |s| · min over r of (free_r / s_r)
                + WHOLENESS · |node| · x^WHOLENESS_POWER / WHOLENESS_POWER

**Expected fill.** If all that came were of shape s, min_r(free_r / s_r) of them would fit, each
worth |s|; w_s is the shape's share of the demand (count times size). The rest of the room is the
shape's waste. Copies are counted in fractions: whole copies make the cost of a small pod jump
where it happens to break a large slot, and the noise scatters small pods over empty nodes.

**Wholeness.** x is the free share of the node's scarcest resource (1 = empty, 0 = full). Expected
fill does not mind starting a new node, as all its room remains usable. But the mix never promises
that no large pod will come, and one that wants a whole node finds none once every node holds a
crumb. So whole room has an extra worth: to start a node costs up to a tenth of the pod's own size,
to use a half-full one next to nothing. This is a smooth function of x rather than a test for
emptiness, because DaemonSets leave no node empty.

**Sizes.** |v| = sum over r of price_r · v_r / cluster_r, so that resources can be added up. Price
is (how contended r is, relative to the most contended resource)²: memory that will be left over in
the end need not be saved now, and to spread pods over more nodes for its sake would be a loss.

The three constants were chosen on the first halves of two real traces and judged on the second ones
(docs/packing.md, which also shows what each of them does). Wholeness is the one that decides: it is
the largest round value that keeps 97 % of the CPU allocated wherever one begins in the first half of
the batch list, even with an empty mix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.core.mix import FrozenMix

WORTH_OF_CLUSTER = 2**50
"""Integer worth of one cluster full of the most contended resource. Summing up integers gives the
same result in any order, so a node's worth does not depend on which nodes were asked together; a
pod of a millionth of the cluster is still 10^9 units, and free room below 2^53 is exact."""

TOP_SHAPES = 64
"""Shapes whose fill is computed: those with most volume (count times size). The rest of the mix
counts for the prices only."""

_CHUNK = 512
"""Nodes at a time: 64 shapes x 512 nodes x 8 bytes stay in a processor's second-level cache."""
_TINY = 1e-300
_NEVER_BINDS = 1e290
_NONZERO = 1e-6
"""Added to free amounts (which are whole numbers), so that free room times `_NEVER_BINDS` is larger
than any worth even when nothing is free."""


@dataclass(frozen=True)
class Tuning:
    """The constants of the module docstring."""

    wholeness: float = 0.1
    wholeness_power: int = 4
    scarcity_power: int = 2


TUNING = Tuning()


class RoomWorth:
    """The worth of free room under one mix, one cluster capacity: constants, then pure arithmetic.

    rows: int[Q], the rows of the node table's arrays that matter, in the order used here.
    """

    def __init__(
        self,
        mix: FrozenMix,
        resources: Mapping[str, int],
        capacity: NDArray[np.int64],
        tuning: Tuning = TUNING,
    ) -> None:
        """resources: name → row of the node table; capacity: int64[R], totals of the cluster.

        Shapes that ask for something no node has, or for more than there is, are left out: they
        will not be placed.
        """
        known = [
            j for j, name in enumerate(mix.resources) if name in resources and capacity[resources[name]] > 0
        ]
        self.rows = np.array([resources[mix.resources[j]] for j in known], np.intp)
        self._cluster = capacity[self.rows].astype(np.float64)
        self._tuning = tuning
        foreign = np.delete(mix.shapes, known, axis=1).any(axis=1)
        shapes = mix.shapes[:, known]
        placeable = shapes.any(axis=1) & (shapes <= self._cluster).all(axis=1) & ~foreign
        shapes, arrivals = shapes[placeable], mix.weights[placeable]
        share = shapes / self._cluster
        demand = (arrivals[:, None] * share).sum(axis=0)
        price = _power(demand / max(demand.max(initial=0.0), _TINY), tuning.scarcity_power)
        volume = arrivals * share.max(axis=1, initial=0.0)
        top = np.argsort(-volume, kind="stable")[:TOP_SHAPES]
        worth_of_copy = volume[top] / max(volume[top].sum(), _TINY) * (share[top] * price).sum(axis=1)
        amounts = shapes[top].T
        self._rate = np.full(amounts.shape, _NEVER_BINDS)
        np.divide(WORTH_OF_CLUSTER * worth_of_copy, amounts, out=self._rate, where=amounts > 0)
        self._price = WORTH_OF_CLUSTER * price / self._cluster

    def __bool__(self) -> bool:
        """False when no shape of the mix can be placed here: there is nothing to expect."""
        return self._rate.size > 0

    def size(self, request: NDArray[np.int64]) -> float:
        """Size of a request (int64[Q], in the order of `rows`): its largest share of the cluster,
        in units of `WORTH_OF_CLUSTER`."""
        return float((request / self._cluster).max(initial=0.0)) * WORTH_OF_CLUSTER

    def worth(self, free: NDArray[np.int64], allocatable: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[n]: worth of free room; both arguments are int64[Q, n] in the order of `rows`.

        Negative free room (a node that has shrunk under its pods) counts as none.
        """
        room = np.maximum(free, 0) + _NONZERO
        result = self._wholeness(room, allocatable)
        for start in range(0, room.shape[1], _CHUNK):
            part = room[:, start : start + _CHUNK]
            fill = self._rate[0][:, None] * part[0]
            for rate, amounts in zip(self._rate[1:], part[1:], strict=True):
                np.minimum(fill, rate[:, None] * amounts, out=fill)
            result[start : start + _CHUNK] += fill.astype(np.int64).sum(axis=0)
        return result

    def _wholeness(self, room: NDArray[np.float64], allocatable: NDArray[np.int64]) -> NDArray[np.int64]:
        share = np.divide(room, allocatable, out=np.ones_like(room), where=allocatable > 0)
        scarcest = np.minimum(share.min(axis=0), 1.0)
        size = (allocatable * self._price[:, None]).astype(np.int64).sum(axis=0)
        power = self._tuning.wholeness_power
        return np.asarray(self._tuning.wholeness / power * size * _power(scarcest, power)).astype(np.int64)


def _power(base: NDArray[np.float64], exponent: int) -> NDArray[np.float64]:
    """base ** exponent (>= 1) by multiplication, as pow() differs between machines in the last bit."""
    result = base
    for _ in range(exponent - 1):
        result = result * base
    return result
