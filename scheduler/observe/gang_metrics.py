"""What co-scheduling costs, as metrics. Never by gang: these come and go by the thousand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.core.engine import Engine
from scheduler.core.gangs.census import UNKNOWN_STRATEGY, census, held_memory_bytes
from scheduler.core.gangs.cost import DURATION_BOUNDS_S, Durations
from scheduler.core.gangs.gang import Strategy
from scheduler.core.gangs.view import GangState

_STRATEGIES = [strategy.value for strategy in Strategy]
_BOUNDS = [*(str(bound_s) for bound_s in DURATION_BOUNDS_S), "+Inf"]


class GangCollector(Collector):
    """Reads the counts at scrape time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        gangs = self._engine.gangs
        cost = gangs.cost
        gangs.accounts.settle()
        yield from _standing(self._engine)
        yield _by_strategy("wholepod_gang_plans", "Plans for gangs that were complete.", cost.commits)
        yield _by_strategy(
            "wholepod_gang_infeasible_plans", "Attempts that found no plan for a gang.", cost.infeasible
        )
        yield _by_strategy(
            "wholepod_gang_searches_given_up",
            "Attempts that found no plan before their budget was spent.",
            cost.searches_given_up,
        )
        yield _by_strategy(
            "wholepod_gang_conflicts", "Gangs some of whose room others had taken meanwhile.", cost.conflicts
        )
        yield _by_strategy(
            "wholepod_gang_rollbacks", "Plans given up after members had places in them.", cost.rollbacks
        )
        yield _by_strategy(
            "wholepod_gang_compensations",
            "Commits that were given up with members bound, which had to go.",
            cost.compensations,
        )
        yield _by_strategy(
            "wholepod_gang_planning_cpu_seconds", "Processor time spent on planning.", cost.planning_cpu_s
        )
        held = CounterMetricFamily(
            "wholepod_gang_held_memory_byte_seconds",
            "Memory held for gangs, times how long: 'used' if a commit followed, or 'wasted'.",
            labels=["strategy", "outcome"],
        )
        for strategy in _STRATEGIES:
            for outcome in ("used", "wasted"):
                held.add_metric([strategy, outcome], cost.held_byte_seconds[strategy, outcome])
        yield held
        yield _by_strategy(
            "wholepod_gang_reserved_memory_byte_seconds",
            "Free memory of nodes that were kept for a gang that had waited long, times how long.",
            cost.reserved_byte_seconds,
        )
        yield _by_strategy(
            "wholepod_gang_incomplete_memory_byte_seconds",
            "Memory of bound members of gangs with fewer than minCount bound and others waiting, "
            "times how long.",
            cost.incomplete_byte_seconds,
        )
        yield _by_strategy(
            "wholepod_gang_free_while_wanted_memory_byte_seconds",
            "Free memory that members of gangs that found no plan could have used, times how long.",
            cost.free_byte_seconds,
        )
        yield CounterMetricFamily(
            "wholepod_gang_deadlocks",
            "Times a gang gave up its holds for a senior one that it blocked.",
            value=cost.deadlocks,
        )
        yield _times_to_gang({"first_member": cost.since_first_member, "min_count": cost.since_min_count})


def _standing(engine: Engine) -> Iterator[Metric]:
    """What there is at the moment."""
    counts = census(engine)
    gangs = GaugeMetricFamily("wholepod_gangs", "Gangs that have members.", labels=["strategy", "state"])
    for strategy in (*_STRATEGIES, UNKNOWN_STRATEGY):
        for state in GangState:
            gangs.add_metric([strategy, state.value], counts[state, strategy])
    yield gangs
    held = GaugeMetricFamily(
        "wholepod_gang_held_memory_bytes", "Memory that is held for gangs.", labels=["strategy"]
    )
    by_strategy = held_memory_bytes(engine)
    for strategy in _STRATEGIES:
        held.add_metric([strategy], by_strategy[strategy])
    yield held


def _by_strategy(name: str, text: str, counts: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["strategy"])
    for strategy in _STRATEGIES:
        family.add_metric([strategy], counts.get(strategy, 0))
    return family


def _times_to_gang(durations: Mapping[str, Mapping[str, Durations]]) -> Metric:
    family = HistogramMetricFamily(
        "wholepod_gang_time_to_bound_seconds",
        "Until minCount members were bound, since the first member was seen, or since minCount existed.",
        labels=["strategy", "since"],
    )
    for since, by_strategy in durations.items():
        for strategy in _STRATEGIES:
            seen = by_strategy.get(strategy, Durations())
            buckets = list(zip(_BOUNDS, accumulate(seen.counts), strict=True))
            family.add_metric([strategy, since], buckets, seen.sum_s)
    return family
