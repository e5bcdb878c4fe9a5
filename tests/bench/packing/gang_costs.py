"""What gangs cost under each strategy: which part of which trace is replayed on what, and in which order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scheduler.core.gangs.gang import Strategy
from tests.bench.packing.traces import (
    BATCH_NODE,
    WAGAP_NODE,
    WAGAP_SMALL_NODE,
    Job,
    batch_jobs,
    wagap_jobs,
)
from tests.bench.packing.virtual import SINGLES, Outcome, Replay, Scenario

STRATEGIES = (*(strategy.value for strategy in Strategy), SINGLES)
_SEED = 1
_BATCH_HOUR = (3600.0, 7200.0)
_BATCH_SHARE = 0.25
_BATCH_NODES = 6
_WAGAP_DAYS = 20
_WAGAP_NODES = ((14, WAGAP_NODE), (34, WAGAP_SMALL_NODE))
"""7 in 10 of those in the log, so that there is something to wait for."""


@dataclass(frozen=True)
class Measured:
    """One scenario, under every strategy."""

    scenario: Scenario
    outcomes: tuple[Outcome, ...]


def scenarios(traces: Path) -> Iterator[Scenario]:
    """Raises TraceError."""
    yield Scenario(
        "batch",
        _batch(batch_jobs(traces)),
        ((_BATCH_NODES, BATCH_NODE),),
        apart_s=5.0,
        hold_timeout="60s",
        flush_after_s=300.0,
        seed=_SEED,
    )
    yield Scenario(
        "wagap",
        _wagap(wagap_jobs(traces)),
        _WAGAP_NODES,
        apart_s=5.0,
        hold_timeout="1h",
        flush_after_s=1e9,
        seed=_SEED,
    )


def measure(scenario: Scenario, progress: Callable[[str], None]) -> Measured:
    outcomes = []
    for strategy in STRATEGIES:
        outcome = Replay(scenario, strategy).run()
        outcomes.append(outcome)
        progress(f"{scenario.name}, {strategy}: {len(outcome.gang_waits_s)} gangs were bound")
    return Measured(scenario, tuple(outcomes))


def _batch(jobs: list[Job]) -> list[Job]:
    """A quarter of the tasks of the list's second hour. Tasks that want more than half of the cluster are
    left out."""
    rng = random.Random(_SEED)
    start, end = _BATCH_HOUR
    hour = [job for job in jobs if start <= job.submitted_s < end and rng.random() < _BATCH_SHARE]
    most = _BATCH_NODES * BATCH_NODE[0] / 2
    return _from_zero([job for job in hour if sum(cpu_milli for cpu_milli, _ in job.pods) <= most])


def _wagap(jobs: list[Job]) -> list[Job]:
    """The first twenty days of the log."""
    return [job for job in _from_zero(jobs) if job.submitted_s < _WAGAP_DAYS * 86_400]


def _from_zero(jobs: list[Job]) -> list[Job]:
    first = jobs[0].submitted_s
    return [Job(job.submitted_s - first, job.duration_s, job.pods) for job in jobs]
