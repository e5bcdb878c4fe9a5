"""What a dashboard is made of, so that the dashboards themselves are lists of questions and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

JOB = 'job="$job"'
"""The selector that every query has: Prometheus may watch kube-scheduler, too, with the same names."""
RATE = "[$__rate_interval]"
QUANTILES = (0.5, 0.9, 0.99)


class Kind(Enum):
    LINES = "lines"
    STACK = "stack"
    """Lines that add up to something."""
    NUMBER = "number"
    """What it is now."""


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str
    """With {{label}}."""


@dataclass(frozen=True)
class Panel:
    title: str
    queries: Sequence[Query]
    description: str
    """What it means, and what to make of it."""
    unit: str = "short"
    """As Grafana calls it."""
    kind: Kind = Kind.LINES
    width: int = 8
    """Of 24 columns."""
    warn_above: float | None = None
    """Of a number: from here on it is not green."""


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    uid: str
    """Also the name of its file."""
    title: str
    description: str
    rows: Sequence[Row]

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]


def counted(metric: str, by: str, **labels: str) -> Query:
    """A counter's events a second, by a label (or several, with commas), over all replicas."""
    names = [name.strip() for name in by.split(",")] if by else []
    legend = ", ".join(f"{{{{{name}}}}}" for name in names) or "all"
    grouping = f" by ({by})" if by else ""
    return Query(f"sum{grouping} (rate({select(metric, **labels)}{RATE}))", legend)


def standing(metric: str, by: str = "", legend: str = "", **labels: str) -> Query:
    """A gauge; all replicas see the same cluster, so the largest stands for all of them."""
    grouping = f" by ({by})" if by else ""
    names = [name.strip() for name in by.split(",")] if by else []
    return Query(
        f"max{grouping} ({select(metric, **labels)})",
        legend or ", ".join(f"{{{{{name}}}}}" for name in names),
    )


def waiting(metric: str, by: str = "", legend: str = "", **labels: str) -> Query:
    """A gauge about what waits. Only the leader's counts: others keep all that waits ready to be decided."""
    grouping = f" by ({by})" if by else ""
    return Query(
        f"sum{grouping} ({of_leader(select(metric, **labels))})",
        legend or ", ".join(f"{{{{{name.strip()}}}}}" for name in by.split(",")),
    )


def of_leader(selector: str) -> str:
    """Of the replica that leads, or of all where leader election is off."""
    leads = f"leader_election_master_status{{{JOB}}}"
    return f"{selector} and on (instance) {leads} == 1 or {selector} unless on () {leads}"


def percentiles(
    metric: str, by: str = "", quantiles: Sequence[float] = QUANTILES, **labels: str
) -> list[Query]:
    """Of a histogram."""
    grouping = f"le, {by}" if by else "le"
    prefix = f"{{{{{by}}}}} " if by else ""
    return [
        Query(
            f"histogram_quantile({quantile}, "
            f"sum by ({grouping}) (rate({select(f'{metric}_bucket', **labels)}{RATE})))",
            f"{prefix}{quantile * 100:g} %",
        )
        for quantile in quantiles
    ]


def select(metric: str, **labels: str) -> str:
    matchers = [JOB, *(f'{name}="{value}"' for name, value in labels.items())]
    return f"{metric}{{{', '.join(matchers)}}}"
