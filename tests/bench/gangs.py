"""Gangs on kube-scheduler (feature gate GenericWorkload) and on Wholepod, in alternating pairs.

Both get the same PodGroups and pods. As in `shapes`, the numbers to quote are the ratios of a run to the run
beside it. Two things are counted otherwise, since a large gang is planned before its first member is
bound: seconds from the start of the process on where that takes long, and CPU always with the start.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.bench.gang_workloads import GANG_SHAPES
from tests.bench.pairs import Pair, alternating
from tests.bench.runs import QPS, Run, setting
from tests.bench.workloads import Shape

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "gangs.md"
CPU_CEILING = 0.25
"""The ratio to kube-scheduler's CPU per pod that is wanted at most."""
FROM_START = frozenset({"large", "waiting"})
"""Workloads whose seconds count from the start of the process."""
HEADINGS = (
    "workload",
    "pods",
    "kube-scheduler pods/s",
    "Wholepod pods/s",
    "ratio",
    "lowest",
    "wanted",
    "kube-scheduler CPU ms/pod",
    "Wholepod CPU ms/pod",
    "ratio",
    "highest",
    "wanted",
)
RUN_HEADINGS = (
    "pair",
    "scheduler",
    "pods/s",
    "s to first bind",
    "s to last event",
    "CPU ms/pod",
    "API server ms/pod",
)


@dataclass(frozen=True)
class Result:
    """All pairs of one workload: kube-scheduler's run, and Wholepod's."""

    shape: Shape
    pairs: Sequence[Pair]

    def rate(self, run: Run) -> float:
        return run.rate_from_start if self.shape.name in FROM_START else run.rate

    @property
    def rates(self) -> list[float]:
        """Ratios of pods/s, pair by pair."""
        return [self.rate(ours) / self.rate(theirs) for theirs, ours in self.pairs]

    @property
    def cpus(self) -> list[float]:
        """Ratios of CPU per pod, pair by pair."""
        return [ours.cpu_ms / theirs.cpu_ms for theirs, ours in self.pairs]

    @property
    def met(self) -> bool:
        return (
            statistics.median(self.rates) >= self.shape.floor and statistics.median(self.cpus) <= CPU_CEILING
        )

    def row(self) -> list[str]:
        """One cell for each of `HEADINGS`."""
        theirs, ours = zip(*self.pairs, strict=True)
        return [
            self.shape.name,
            str(self.shape.pods),
            f"{statistics.median(map(self.rate, theirs)):.0f}",
            f"{statistics.median(map(self.rate, ours)):.0f}",
            f"{statistics.median(self.rates):.2f}",
            f"{min(self.rates):.2f}",
            f"≥ {self.shape.floor:g}",
            f"{statistics.median(run.cpu_ms for run in theirs):.2f}",
            f"{statistics.median(run.cpu_ms for run in ours):.2f}",
            f"{statistics.median(self.cpus):.2f}",
            f"{max(self.cpus):.2f}",
            f"≤ {CPU_CEILING:g}{'' if self.met else ' (missed)'}",
        ]

    def runs(self) -> list[list[str]]:
        """A row for each run, in the order in which they were made."""
        return [
            [
                f"{self.shape.name} {number}",
                run.scheduler,
                f"{run.rate:.0f}",
                f"{run.startup_s:.1f}",
                f"{run.startup_s + run.seconds:.1f}",
                f"{run.cpu_ms:.2f}",
                f"{run.api_server_ms:.2f}",
            ]
            for number, pair in enumerate(self.pairs, start=1)
            for run in pair
        ]


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows)]
    return "\n".join(lines)


def write_report(results: Sequence[Result]) -> None:
    workloads = "\n".join(f"- `{result.shape.name}`: {result.shape.models}." for result in results)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        f"# Gangs\n\n{setting()}. By `make bench-gangs`: gangs that wait on {results[0].shape.nodes} nodes "
        "when the scheduler starts, described by Kubernetes' own PodGroups (kube-scheduler with the feature "
        f"gate GenericWorkload); {len(results[0].pairs)} runs of each scheduler in turn, both at {QPS} QPS; "
        "done when the last measured pod is bound and its `Scheduled` event is stored. Wholepod keeps its "
        "journal. Rates count from the first bind, those of `large` and `waiting` from the start of the "
        "process to the last event. CPU is of the whole process, its start included. Rates and ratios are "
        f"medians; a ratio is of one run to the run before it.\n\n{workloads}\n\n"
        + _markdown(HEADINGS, [result.row() for result in results])
        + "\n\nAll runs, in order:\n\n"
        + _markdown(RUN_HEADINGS, [row for result in results for row in result.runs()])
        + "\n"
    )


def show(results: Sequence[Result], console: Console) -> None:
    """What fits a terminal of it."""
    table = Table(HEADINGS[0])
    shown = {"kube pods/s": 2, "Wholepod": 3, "ratio": 4, "kube CPU ms": 7, "Wholepod ": 8, "ratio ": 9}
    for heading in shown:
        table.add_column(heading, justify="right")
    for result in results:
        row = result.row()
        table.add_row(row[0], *(row[place] for place in shown.values()))
    console.print(table)


def chosen(names: Sequence[str], nodes: int) -> Mapping[str, Shape]:
    return {name: GANG_SHAPES[name].scaled(nodes) for name in names or GANG_SHAPES}


def _told(run: Run) -> str:
    return (
        f"{run.rate:.0f} pods/s, first bind after {run.startup_s:.1f} s, last event after "
        f"{run.startup_s + run.seconds:.1f} s, {run.cpu_ms:.2f} ms CPU a pod, "
        f"API server {run.api_server_ms:.2f} ms"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shape", "names", multiple=True, type=click.Choice(list(GANG_SHAPES)), help="Default: all.")
@click.option("--nodes", default=5000, show_default=True, help="The number of gangs scales with it.")
@click.option("--pairs", default=3, show_default=True, help="Runs of each scheduler.")
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(names: tuple[str, ...], nodes: int, pairs: int, report: bool) -> None:
    """Compare gangs' throughput and CPU with kube-scheduler's.

    Ends with code 1 if a workload misses what is wanted of it.
    """
    console, results = Console(), list[Result]()
    for shape, measured in alternating(chosen(names, nodes), pairs, console, told=_told):
        results.append(Result(shape, measured))
        if report:
            write_report(results)
    show(results, console)
    if report:
        console.print(f"written: {REPORT.relative_to(Path.cwd())}")
    missed = [result.shape.name for result in results if not result.met]
    if missed:
        raise click.ClickException(f"below what is wanted: {', '.join(missed)}")


if __name__ == "__main__":
    main()
