"""Places pods one by one, in arrival order, on the scheduler's own node table. Nobody leaves.

Two questions, two measures. How many nodes does a policy need to place everything? (Windows of the
wagap log.) How much work does it get onto a fixed set of nodes? (The batch list.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scheduler.api import Container, Node, NodeStatus, ObjectMeta, Pod, PodSpec, ResourceRequirements
from scheduler.core.mix import HALF_LIFE_EPOCHS, FrozenMix, ShapeMix
from scheduler.core.nodes import CPU, MEMORY, NodeTable
from scheduler.core.pod_info import PodInfo
from tests.bench.packing.policies import Policy
from tests.bench.packing.traces import Request, Task

_SEED = 1
_INFEASIBLE = -np.inf


class Cluster:
    """`count` equal nodes and a policy that fills them."""

    def __init__(self, policy: Policy, node: Request, count: int, mix: FrozenMix) -> None:
        self.policy, self.table = policy, NodeTable(mix)
        cpu_milli, memory_bytes = node
        status = NodeStatus(
            allocatable={"cpu": f"{cpu_milli}m", "memory": str(memory_bytes), "pods": str(2**31)}
        )
        for i in range(count):
            self.table.upsert(Node(metadata=ObjectMeta(name=f"node-{i}"), status=status))
        self._rng = np.random.default_rng(_SEED)
        self._pod: PodInfo | None = None
        self._scores: NDArray[np.float64] = np.empty(0)

    def copies(self, pod: PodInfo) -> int:
        """How many such pods fit in total."""
        room = np.full(len(self.table), np.iinfo(np.int64).max)
        for row, free in zip((CPU, MEMORY), self._free(), strict=True):
            amount = pod.requests.get(("cpu", "memory")[row], 0)
            if amount:
                room = np.minimum(room, free // amount)
        return int(room.sum())

    def place(self, pod: PodInfo, mix: FrozenMix) -> bool:
        """Puts the pod on the node the policy likes best; False when it fits nowhere."""
        if mix is not self.table.mix or pod is not self._pod:
            self.table.mix, self._pod = mix, pod
            self._scores = self._score(slice(0, len(self.table)))
        best = self._scores.max()
        if best == _INFEASIBLE:
            return False
        row = self._break_tie(np.flatnonzero(self._scores == best))
        self.table.add_pod(row, pod)
        # The product's way: a placement changes one row, so one score is redone.
        self._scores[row] = self._score(slice(row, row + 1))[0]
        return True

    def allocated(self) -> tuple[float, float]:
        """Shares of cpu and memory that pods have asked for."""
        view = self.table.view()
        used = view.requested.sum(axis=1) / np.maximum(view.capacity, 1)
        return float(used[CPU]), float(used[MEMORY])

    def _free(self) -> NDArray[np.int64]:
        view = self.table.view()
        return view.allocatable[:2] - view.requested[:2]

    def _score(self, rows: slice) -> NDArray[np.float64]:
        assert self._pod is not None
        view = self.table.view(rows)
        free = view.allocatable - view.requested
        fits = np.ones(view.count, np.bool_)
        for name, amount in self._pod.requests.items():
            fits &= free[view.resources[name]] >= amount
        return np.where(fits, self.policy.score(self._pod, view).astype(np.float64), _INFEASIBLE)

    def _break_tie(self, rows: NDArray[np.intp]) -> int:
        if self.policy.ties == "random":
            return int(self._rng.choice(rows))
        if self.policy.ties == "least free memory":
            return int(rows[self._free()[MEMORY, rows].argmin()])
        return int(rows[0])


def nodes_needed(
    policy: Policy, node: Request, pods: Sequence[Request], mixes: Sequence[FrozenMix], at_least: int
) -> int:
    """The smallest number of nodes on which the policy places all pods, found by bisection from the
    lower bound (as if more nodes never hurt, which holds nearly always)."""
    low = high = at_least
    step = 2
    while not _all_fit(policy, node, pods, mixes, high):
        low, high, step = high + 1, high + step, 2 * step
    while low < high:
        middle = (low + high) // 2
        if _all_fit(policy, node, pods, mixes, middle):
            high = middle
        else:
            low = middle + 1
    return high


def _all_fit(
    policy: Policy, node: Request, pods: Sequence[Request], mixes: Sequence[FrozenMix], count: int
) -> bool:
    cluster = Cluster(policy, node, count, mixes[0])
    return all(cluster.place(_pod(request), mix) for request, mix in zip(pods, mixes, strict=True))


def fill(
    policy: Policy, node: Request, count: int, tasks: Sequence[Task], mixes: Sequence[FrozenMix]
) -> tuple[float, float]:
    """Tries all tasks in turn, each as a whole or not at all; returns (cpu, memory) shares allocated."""
    cluster = Cluster(policy, node, count, mixes[0])
    for task, mix in zip(tasks, mixes, strict=True):
        pod = _pod(task.request)
        if cluster.copies(pod) >= task.count:
            for _ in range(task.count):
                cluster.place(pod, mix)
    return cluster.allocated()


def mixes_seen(tasks: Iterable[Task], half_life_epochs: int = HALF_LIFE_EPOCHS) -> Iterator[FrozenMix]:
    """The frozen mix a scheduler works with when it places each task, all of whose pods have been
    seen by then, and so have those of earlier tasks."""
    mix = ShapeMix(half_life_epochs=half_life_epochs)
    for t, task in enumerate(tasks):
        requests = _pod(task.request).requests
        for i in range(task.count):
            mix.observe(f"{t}-{i}", requests, daemon=False)
        yield mix.frozen


@lru_cache(maxsize=4096)
def _pod(request: Request) -> PodInfo:
    """One object for all pods of a size: placing reads nothing but the request."""
    cpu_milli, memory_bytes = request
    resources = ResourceRequirements(requests={"cpu": f"{cpu_milli}m", "memory": str(memory_bytes)})
    return PodInfo(Pod(spec=PodSpec(containers=[Container(resources=resources)])))
