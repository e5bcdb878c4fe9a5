"""Both measures on both halves of both traces, for any policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from scheduler.core.mix import HALF_LIFE_EPOCHS, FrozenMix
from tests.bench.packing.bounds import least_nodes
from tests.bench.packing.policies import Policy
from tests.bench.packing.replay import fill, mixes_seen, nodes_needed
from tests.bench.packing.traces import (
    BATCH_NODE,
    BATCH_NODES,
    WAGAP_NODE,
    Request,
    Task,
    batch_tasks,
    wagap_windows,
)

FURTHER_STARTS = 4
_TASKS_FROM_A_START = 1_200
"""Enough to fill the cluster; 400 nodes are full after about 900 tasks."""


@dataclass(frozen=True)
class Traces:
    """windows and tasks in order, and the least number of nodes of each window."""

    windows: list[list[Request]]
    bounds: list[int]
    tasks: list[Task]

    @classmethod
    def read(cls, folder: Path) -> Traces:
        windows = wagap_windows(folder)
        bounds = [
            max(least_nodes((pod[r] for pod in pods), WAGAP_NODE[r]) for r in (0, 1)) for pods in windows
        ]
        return cls(windows, bounds, batch_tasks(folder))

    @property
    def window_halves(self) -> tuple[slice, slice]:
        half = len(self.windows) // 2
        return slice(0, half), slice(half, None)

    @property
    def task_halves(self) -> tuple[slice, slice]:
        half = len(self.tasks) // 2
        return slice(0, half), slice(half, None)


@dataclass(frozen=True)
class Mixes:
    """What a scheduler has learnt by the time it places each pod of a window, each task of the list.

    It starts knowing nothing and sees every arrival once, in order; what it learnt in one window
    or in the first half, it knows in the next.
    """

    windows: list[list[FrozenMix]]
    tasks: list[FrozenMix]

    @classmethod
    def learn(cls, traces: Traces, half_life_epochs: int = HALF_LIFE_EPOCHS) -> Mixes:
        pods: Iterator[FrozenMix] = mixes_seen(
            (Task(1, request) for window in traces.windows for request in window), half_life_epochs
        )
        windows = [list(islice(pods, len(window))) for window in traces.windows]
        return cls(windows, list(mixes_seen(traces.tasks, half_life_epochs)))


@dataclass(frozen=True)
class Windows:
    """Nodes a policy needs for each of some windows, against the bounds."""

    needed: Sequence[int]
    bounds: Sequence[int]

    @property
    def over_bound_percent(self) -> float:
        return 100 * (sum(self.needed) / sum(self.bounds) - 1)

    @property
    def worst_percent(self) -> float:
        return 100 * max(n / b - 1 for n, b in zip(self.needed, self.bounds, strict=True))


def measure_windows(policy: Policy, traces: Traces, mixes: Mixes, part: slice) -> Windows:
    bounds = traces.bounds[part]
    needed = [
        nodes_needed(policy, WAGAP_NODE, pods, known, bound)
        for pods, known, bound in zip(traces.windows[part], mixes.windows[part], bounds, strict=True)
    ]
    return Windows(needed, bounds)


def measure_list(policy: Policy, traces: Traces, mixes: Mixes, part: slice) -> tuple[float, float]:
    """(cpu, memory) allocated on empty nodes by the tasks of this part, in percent."""
    cpu, memory = fill(policy, BATCH_NODE, BATCH_NODES, traces.tasks[part], mixes.tasks[part])
    return 100 * cpu, 100 * memory


def measure_further_starts(policy: Policy, traces: Traces, mixes: Mixes, part: slice) -> float:
    """Mean over several later beginnings in this part of the list, of the percentage allocated of
    whichever resource is fuller (which one runs out first differs along the list)."""
    first, last, _ = part.indices(len(traces.tasks))
    stride = (last - first) // (FURTHER_STARTS + 1)
    starts = [first + k * stride for k in range(1, FURTHER_STARTS + 1)]
    filled = [
        max(measure_list(policy, traces, mixes, slice(start, start + _TASKS_FROM_A_START)))
        for start in starts
    ]
    return sum(filled) / len(filled)
