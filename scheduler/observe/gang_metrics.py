"""What co-scheduling costs, as metrics. Never by gang: these come and go by the thousand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.core.gangs.cost import GangCost
from scheduler.core.gangs.gang import Strategy

_STRATEGIES = [strategy.value for strategy in Strategy]


class GangCollector(Collector):
    """Reads the counts at scrape time."""

    def __init__(self, cost: GangCost) -> None:
        self._cost = cost

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        cost = self._cost
        yield _by_strategy("wholepod_gang_plans", "Plans for gangs that were complete.", cost.commits)
        yield _by_strategy(
            "wholepod_gang_infeasible_plans", "Attempts that found no plan for a gang.", cost.infeasible
        )
        yield _by_strategy(
            "wholepod_gang_conflicts", "Claims whose room others had taken meanwhile.", cost.conflicts
        )
        yield _by_strategy(
            "wholepod_gang_rollbacks", "Plans given up after members had places in them.", cost.rollbacks
        )
        held = CounterMetricFamily(
            "wholepod_gang_held_memory_byte_seconds",
            "Memory held for gangs, times how long: 'used' if a commit followed, or 'wasted'.",
            labels=["outcome"],
        )
        for outcome in ("used", "wasted"):
            held.add_metric([outcome], cost.held_byte_seconds[outcome])
        yield held
        yield CounterMetricFamily(
            "wholepod_gang_reserved_memory_byte_seconds",
            "Free memory of nodes that were kept for a gang that had waited long, times how long.",
            value=cost.reserved_byte_seconds,
        )
        yield CounterMetricFamily(
            "wholepod_gang_deadlocks",
            "Times a gang gave up its holds for a senior one that it blocked.",
            value=cost.deadlocks,
        )


def _by_strategy(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["strategy"])
    for strategy in _STRATEGIES:
        family.add_metric([strategy], counts.get(strategy, 0))
    return family
