"""The mix of pods seen: what the cluster should expect next.

`MemoryFit` prices a node's free room by what it could still hold, so it has to know what is likely
to come. The best guess is what has come: every pod counts once, when it is first seen, and older
pods count less and less. Pods that ask for almost the same are one *shape*, or a thousand alike
pods with jittered requests would push everything else out.

The half-life is long on purpose. A gang of two thousand equal pods is one event, not a change of
climate; with a half-life of a thousand arrivals the mix is mostly the last gang seen, and placing
by it strands what the next gang would need (docs/packing.md shows the difference).

Between epochs the mix is frozen, so that the scores of nodes that did not change stay valid and a
decision can be replayed from its inputs. Everything here is a function of the order of arrivals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EPOCH_ARRIVALS = 256
"""Arrivals after which the mix is frozen anew. Before the first 256 it is empty."""
HALF_LIFE_EPOCHS = 32
"""A pod counts half after 32 epochs (8,192 arrivals)."""
MAX_SHAPES = 256
"""Shapes remembered and frozen: those with the largest shares of the demand."""

_REMEMBERED_UIDS = 2 * HALF_LIFE_EPOCHS * EPOCH_ARRIVALS
"""A pod seen again later than this counts again, which by then hardly matters."""

Request = tuple[tuple[str, int], ...]
"""(resource, amount) pairs in order of the resources' names."""
Shape = Request
"""A request with quantised amounts."""


@dataclass(frozen=True, eq=False)
class FrozenMix:
    """The mix as it was at the start of an epoch. Arrays are read-only.

    epoch: 0 for the empty mix of a fresh scheduler, then counting up.
    resources: names of the columns of `shapes`, sorted.
    shapes: int64[S, R], requests (cpu in millicores, others in bytes or units), 0 = not asked for.
    weights: float64[S], shares of the arrivals; positive, summing up to 1 unless S is 0.
    """

    epoch: int
    resources: tuple[str, ...]
    shapes: NDArray[np.int64]
    weights: NDArray[np.float64]


def quantise(amount: int) -> int:
    """Rounds a positive amount up to an eighth of a power of two: 1.0, 1.125, … 1.875, 2.0.

    So amounts in one step differ by less than an eighth, and powers of two, which people like to
    ask for, end a step. Amounts up to 16 stay as they are.
    """
    step = 1 << max((amount - 1).bit_length() - 4, 0)
    return -(-amount // step) * step


class ShapeMix:
    """Counts arrivals into shapes and freezes the result once per epoch.

    Memory is bounded: a few hundred shapes, and the uids of the last 16,384 to 32,768 pods.
    """

    def __init__(self, *, half_life_epochs: int = HALF_LIFE_EPOCHS) -> None:
        self._decay = 0.5 ** (1 / half_life_epochs)
        self._count: dict[Shape, float] = {}
        self._latest: dict[Shape, Request] = {}
        self._arrived: dict[Request, int] = {}
        self._arrivals = 0
        self._recent: set[str] = set()
        self._older: set[str] = set()
        self.frozen = _freeze(0, ())

    def observe(self, uid: str, requests: Mapping[str, int], *, daemon: bool) -> None:
        """Counts a pod, unless it has been counted before or says nothing about coming demand.

        requests: effective request of the whole pod, zero entries left out. DaemonSet pods
        (`daemon`) come with nodes, not with demand, and pods that ask for nothing fit anywhere.
        """
        if daemon or not requests or uid in self._recent or uid in self._older:
            return
        if len(self._recent) == _REMEMBERED_UIDS:
            self._recent, self._older = set(), self._recent
        self._recent.add(uid)
        request = tuple(sorted(requests.items()))
        # Taken out and put back, so that the order is that of the latest arrivals.
        self._arrived[request] = self._arrived.pop(request, 0) + 1
        self._arrivals += 1
        if self._arrivals == EPOCH_ARRIVALS:
            self._end_epoch()

    def _end_epoch(self) -> None:
        for shape in self._count:
            self._count[shape] *= self._decay
        for request, count in self._arrived.items():
            shape = tuple((name, quantise(amount)) for name, amount in request)
            self._count[shape] = self._count.get(shape, 0.0) + count
            # Of a shape's pods the latest stands for all, so that a common exact size stays exact:
            # a whole node, rounded up, would fit no node at all.
            self._latest[shape] = request
        ranked = _by_demand(self._count)[:MAX_SHAPES]
        self._count = {shape: self._count[shape] for shape in ranked}
        self._latest = {shape: self._latest[shape] for shape in ranked}
        self.frozen = _freeze(
            self.frozen.epoch + 1, [(dict(self._latest[shape]), self._count[shape]) for shape in ranked]
        )
        self._arrived, self._arrivals = {}, 0


def _by_demand(count: Mapping[Shape, float]) -> list[Shape]:
    """Shapes by their share of the demand, largest first.

    A shape's share is its share of the resource it takes most of, relative to all demand for that
    resource: no unit, and no need to know the cluster.
    """
    total: dict[str, float] = {}
    for shape, n in count.items():
        for name, amount in shape:
            total[name] = total.get(name, 0.0) + n * amount
    share = {shape: n * max(amount / total[name] for name, amount in shape) for shape, n in count.items()}
    return sorted(count, key=lambda shape: (-share[shape], shape))


def _freeze(epoch: int, counted: Sequence[tuple[Mapping[str, int], float]]) -> FrozenMix:
    resources = tuple(sorted({name for requests, _ in counted for name in requests}))
    shapes = np.array([requests.get(name, 0) for requests, _ in counted for name in resources], np.int64)
    shapes = shapes.reshape(len(counted), len(resources))
    weights = np.array([count for _, count in counted], np.float64)
    if counted:
        weights /= weights.sum()
    shapes.flags.writeable = weights.flags.writeable = False
    return FrozenMix(epoch, resources, shapes, weights)
