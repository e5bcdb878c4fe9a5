"""MemoryFit: the node where the whole pod fits best.

"Best" depends on what a cluster is for, so a profile picks one of four objectives:

- `tight` keeps nodes free, for large pods or to be shut down: the fullest node, by memory first,
  since memory is what cannot be overcommitted;
- `balanced` gets the most work onto a fixed set of nodes: what stays free of memory and of the other
  resources shall be in proportion, then the emptiest node;
- `spread` keeps the load even: the emptiest node;
- `expected` (default) needs no such knowledge: it looks at the pods that came so far and chooses
  the node that loses least room for their like (`scheduler.core.waste`). On the traces of
  docs/packing.md it packs about as tightly as `tight` where that is what counts, and places as
  much work as `balanced` where that counts. While the mix is empty, it is `tight`.

Scores are integers that depend on the pod, on the node's own row and on constants of the epoch
(the mix, the cluster's capacity). So a placement costs one row to redo, and equal inputs give
equal decisions on every machine.

Ties are left to the cycle, which takes the node with less free memory.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scheduler.core.mix import FrozenMix
from scheduler.core.nodes import CPU, MEMORY, NodeView
from scheduler.core.plugin import MAX_NODE_SCORE, ScorePlugin, Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.waste import TUNING, RoomWorth, Tuning

Objective = Literal["tight", "balanced", "spread", "expected"]

_MILLION = 1_000_000
_FIRST = 1 << 21
"""Weight of a criterion over a second one of 0 … a million."""
_IMBALANCE_STEPS = 10
"""`balanced` calls nodes equal whose imbalance differs by less than a tenth of a node; finer steps
chase exact proportions into corners and place less."""


class MemoryFit(ScorePlugin):
    """Scores nodes under one objective; `pluginConfig` argument `objective`, default `expected`."""

    name = "MemoryFit"
    reads = ("requests",)
    reads_usage = True
    reads_amounts_only = True
    normalized = False
    full_resolution = True
    tuning: ClassVar[Tuning] = TUNING

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for an unknown argument or objective."""
        args = dict(args or {})
        self.objective: Objective = args.pop("objective", "expected")
        super().__init__(args)
        if self.objective not in get_args(Objective):
            choices = ", ".join(get_args(Objective))
            raise ValueError(f"objective must be one of {choices}, got {self.objective!r}")
        self._room: tuple[FrozenMix, tuple[object, ...], RoomWorth] | None = None

    def version(self, nodes: NodeView) -> int:
        """Scores of `expected` change as a whole with the epoch and with the cluster's capacity."""
        if self.objective != "expected":
            return 0
        return hash((nodes.mix.epoch, *nodes.capacity.tolist()))

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        """int64[n]. `tight` and `spread`: millionths of a node (with a second criterion below);
        `balanced`: tenths, then millionths; `expected`: the room's worth that the pod spoils,
        negative, in millionths of the pod's own size."""
        if self.objective == "expected":
            room = self._room_worth(nodes)
            return _expected(pod, nodes, room) if room else _tight(pod, nodes)
        if self.objective == "tight":
            return _tight(pod, nodes)
        return _balanced(pod, nodes) if self.objective == "balanced" else _spread(pod, nodes)

    def normalize(self, raw: Scores) -> Scores:
        """Stretches the feasible nodes' scores over 0 … 100; all 100 when they are equal."""
        low, high = int(raw.min()), int(raw.max())
        if low == high:
            return np.full_like(raw, MAX_NODE_SCORE)
        return (raw - low) * MAX_NODE_SCORE // (high - low)

    def _room_worth(self, nodes: NodeView) -> RoomWorth:
        """The constants of the epoch, kept until the mix or the capacity changes."""
        mix, capacity = nodes.mix, nodes.capacity
        key = (capacity.tobytes(), *nodes.resources)
        if self._room is None or self._room[0] is not mix or self._room[1] != key:
            self._room = (mix, key, RoomWorth(mix, nodes.resources, capacity, self.tuning))
        return self._room[2]


def _expected(pod: PodInfo, nodes: NodeView, room: RoomWorth) -> Scores:
    rows = room.rows
    request = _request(pod, nodes, rows)
    allocatable = nodes.allocatable[rows]
    free = allocatable - nodes.requested[rows]
    n = nodes.count
    worth = room.worth(
        np.concatenate([free, free - request[:, None]], axis=1),
        np.concatenate([allocatable, allocatable], axis=1),
    )
    size = max(room.size(request), 1.0)
    return np.asarray(np.rint((worth[n:] - worth[:n]) * (_MILLION / size)), np.int64)


def _tight(pod: PodInfo, nodes: NodeView) -> Scores:
    free_memory, free_others = _free_after(pod, nodes)
    return (_MILLION - _millionths(free_memory)) * _FIRST + (_MILLION - _millionths(free_others))


def _balanced(pod: PodInfo, nodes: NodeView) -> Scores:
    free_memory, free_others = _free_after(pod, nodes)
    imbalance = (np.abs(free_memory - free_others) * _IMBALANCE_STEPS).astype(np.int64)
    return _millionths((free_memory + free_others) / 2) - imbalance * _FIRST


def _spread(pod: PodInfo, nodes: NodeView) -> Scores:
    free_memory, free_others = _free_after(pod, nodes)
    return _millionths((free_memory + free_others) / 2)


def _free_after(pod: PodInfo, nodes: NodeView) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64[n] each, 0 … 1: free share of memory, and the mean one of cpu and of the further
    resources that the pod asks for, with the pod on the node."""
    asked = sorted(nodes.resources[name] for name in pod.requests if name in nodes.resources)
    rows = np.array([MEMORY, CPU, *(row for row in asked if row not in (CPU, MEMORY))], np.intp)
    allocatable = nodes.allocatable[rows]
    free = np.maximum(allocatable - nodes.requested[rows] - _request(pod, nodes, rows)[:, None], 0)
    share = free / np.maximum(allocatable, 1)
    others = share[1]
    for further in share[2:]:
        others = others + further
    return share[0], others / (len(rows) - 1)


def _request(pod: PodInfo, nodes: NodeView, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """int64[len(rows)]: what the pod asks for, in the order of `rows` of the node table."""
    request = np.zeros(len(nodes.resources), np.int64)
    for name, amount in pod.requests.items():
        if name in nodes.resources:
            request[nodes.resources[name]] = amount
    return request[rows]


def _millionths(share: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(share * _MILLION).astype(np.int64)
