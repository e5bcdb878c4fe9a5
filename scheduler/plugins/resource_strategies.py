"""The three ways in which NodeResourcesFit can score: LeastAllocated, MostAllocated and
RequestedToCapacityRatio.

Sources: least_allocated.go, most_allocated.go, requested_to_capacity_ratio.go (and helper/shape_score.go)
in pkg/scheduler/framework/plugins; validation in pkg/scheduler/apis/config/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.plugin import MAX_NODE_SCORE, Scores
from scheduler.plugins.arguments import Arguments, require

Column = NDArray[np.int64]
_MAX_SHAPE_SCORE = 10


class ResourceSpec(Arguments, frozen=True):
    name: str
    weight: int = 1
    """0 stands for 1, as in kube-scheduler."""


class UtilizationShapePoint(Arguments, frozen=True):
    utilization: int = 0
    score: int = 0


class RequestedToCapacityRatioParam(Arguments, frozen=True):
    shape: tuple[UtilizationShapePoint, ...] = ()


class ScoringStrategy(Arguments, frozen=True):
    type: Literal["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]
    resources: tuple[ResourceSpec, ...] = ()
    """cpu and memory with weight 1 when empty."""
    requested_to_capacity_ratio: RequestedToCapacityRatioParam | None = None


class Demand(NamedTuple):
    """One resource on all nodes."""

    weight: int
    allocatable: Column
    """int64[n]; 0 where a node has none."""
    used: Column
    """int64[n]: by the pods that are there."""
    asked: int
    """By the pod to place."""


Strategy = Callable[[Sequence[Demand], int], Scores]
"""From the resources that count and the number of nodes to scores of 0 … 100."""


def with_default_weights(resources: Sequence[ResourceSpec]) -> list[ResourceSpec]:
    given = resources or (ResourceSpec(name="cpu"), ResourceSpec(name="memory"))
    return [ResourceSpec(name=resource.name, weight=resource.weight or 1) for resource in given]


def is_default(strategy: ScoringStrategy) -> bool:
    defaults = with_default_weights(())
    return strategy.type == "LeastAllocated" and with_default_weights(strategy.resources) == defaults


def strategy_of(strategy: ScoringStrategy) -> Strategy:
    """Raises ValueError for what kube-scheduler would refuse, naming the field."""
    for i, resource in enumerate(strategy.resources):
        require(
            0 <= resource.weight <= 100,
            f"scoringStrategy.resources[{i}].weight",
            f"must be 1 to 100, got {resource.weight}",
        )
    ratio = strategy.requested_to_capacity_ratio
    field = "scoringStrategy.requestedToCapacityRatio"
    if strategy.type == "RequestedToCapacityRatio":
        if ratio is None:
            raise ValueError(f"{field}: needed when type is RequestedToCapacityRatio")
        return partial(_by_ratio, score_of_percent(ratio.shape, f"{field}.shape"))
    require(ratio is None, field, "only for type RequestedToCapacityRatio")
    return _least_allocated if strategy.type == "LeastAllocated" else _most_allocated


def _least_allocated(demands: Sequence[Demand], n: int) -> Scores:
    return _weighted_mean([(d, np.maximum(d.allocatable - d.used - d.asked, 0)) for d in demands], n)


def _most_allocated(demands: Sequence[Demand], n: int) -> Scores:
    return _weighted_mean([(d, np.minimum(d.used + d.asked, d.allocatable)) for d in demands], n)


def _weighted_mean(parts: Sequence[tuple[Demand, Column]], n: int) -> Scores:
    """The mean of the parts in percent of what the node has, over the resources it has."""
    total, weights = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for demand, part in parts:
        percent = part * MAX_NODE_SCORE // np.maximum(demand.allocatable, 1)
        present = demand.allocatable != 0
        total += np.where(present, percent * demand.weight, 0)
        weights += present * demand.weight
    return np.asarray(total // np.maximum(weights, 1), np.int64)


def _by_ratio(score_of_percent: Column, demands: Sequence[Demand], n: int) -> Scores:
    """The mean over the resources that score more than 0, rounded half up."""
    total, weights = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for demand in demands:
        taken = np.minimum(demand.used + demand.asked, demand.allocatable)
        score = score_of_percent[taken * 100 // np.maximum(demand.allocatable, 1)]
        counts = (demand.allocatable != 0) & (score > 0)
        total += np.where(counts, score * demand.weight, 0)
        weights += counts * demand.weight
    return np.asarray((2 * total + weights) // np.maximum(2 * weights, 1), np.int64)


def score_of_percent(shape: Sequence[UtilizationShapePoint], field: str) -> Column:
    """int64[101]: the broken line through the points, scores stretched from 0 … 10 to 0 … 100."""
    require(bool(shape), field, "at least one point is needed")
    for i, point in enumerate(shape):
        where = f"{field}[{i}]"
        require(
            0 <= point.utilization <= 100,
            f"{where}.utilization",
            f"must be 0 to 100, got {point.utilization}",
        )
        require(0 <= point.score <= _MAX_SHAPE_SCORE, f"{where}.score", f"must be 0 to 10, got {point.score}")
        require(
            i == 0 or shape[i - 1].utilization < point.utilization,
            f"{where}.utilization",
            "points must be in increasing order of utilization",
        )
    points = [(point.utilization, point.score * MAX_NODE_SCORE // _MAX_SHAPE_SCORE) for point in shape]
    return np.array([_on_line(points, percent) for percent in range(101)], np.int64)


def _on_line(points: Sequence[tuple[int, int]], percent: int) -> int:
    for i, (utilization, score) in enumerate(points):
        if percent <= utilization:
            if i == 0:
                return score
            before, score_before = points[i - 1]
            rise = (score - score_before) * (percent - before)
            step = abs(rise) // (utilization - before)  # Go divides towards zero
            return score_before + (step if rise >= 0 else -step)
    return points[-1][1]
