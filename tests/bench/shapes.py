"""The workloads of scheduler_perf, on kube-scheduler and on Wholepod, in alternating pairs.

Machines are noisy, so the numbers to quote are the ratios of a run to the run beside it. The report is
written again after each workload, so that a long bench that is ended early has reported what it has done.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.bench.pairs import Pair, alternating
from tests.bench.runs import QPS, Run, setting
from tests.bench.workloads import SHAPES, Shape

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "shapes.md"
HEADINGS = (
    "workload",
    "scheduler_perf's",
    "nodes",
    "pods",
    "kube-scheduler pods/s",
    "Wholepod pods/s",
    "ratio",
    "lowest",
    "wanted",
    "CPU ms/pod",
    "Wholepod's",
)


@dataclass(frozen=True)
class Result:
    """All pairs of one workload."""

    shape: Shape
    pairs: Sequence[Pair]

    @property
    def ratios(self) -> list[float]:
        """Wholepod's throughput to kube-scheduler's, pair by pair."""
        return [ours.rate / theirs.rate for theirs, ours in self.pairs]

    @property
    def met(self) -> bool:
        return statistics.median(self.ratios) >= self.shape.floor

    def row(self) -> list[str]:
        """One cell for each of `HEADINGS`."""
        theirs, ours = zip(*self.pairs, strict=True)
        return [
            self.shape.name,
            self.shape.models,
            str(self.shape.nodes),
            str(self.shape.pods),
            f"{statistics.median(run.rate for run in theirs):.0f}",
            f"{statistics.median(run.rate for run in ours):.0f}",
            f"{statistics.median(self.ratios):.2f}",
            f"{min(self.ratios):.2f}",
            f"{self.shape.floor:.1f}{'' if self.met else ' (missed)'}",
            f"{statistics.median(run.steady_cpu_ms for run in theirs):.2f}",
            f"{statistics.median(run.steady_cpu_ms for run in ours):.2f}",
        ]


def write_report(results: Sequence[Result]) -> None:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    lines += ["| " + " | ".join(result.row()) + " |" for result in results]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        f"# Workloads of scheduler_perf\n\n{setting()}. By `make bench-shapes`: each workload waits when the "
        f"scheduler starts, {len(results[0].pairs)} runs of each scheduler in turn, both at {QPS} QPS, done "
        "when the last measured pod is bound and its `Scheduled` event is stored. Rates and ratios are "
        "medians, a ratio is of one run to the run before it, and the lowest of them stands beside. CPU is "
        "of the whole process from the first bind on. What each workload is: `tests/bench/workloads.py`.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def show(results: Sequence[Result], console: Console) -> None:
    """What fits a terminal of it."""
    table = Table(HEADINGS[0])
    for heading in HEADINGS[4:9]:
        table.add_column(heading, justify="right")
    for result in results:
        row = result.row()
        table.add_row(row[0], *row[4:9])
    console.print(table)


def chosen(names: Sequence[str], nodes: int) -> Mapping[str, Shape]:
    return {name: SHAPES[name].scaled(nodes) for name in names or SHAPES}


def _told(run: Run) -> str:
    return (
        f"{run.rate:.0f} pods/s, {run.steady_cpu_ms:.2f} ms CPU a pod, API server {run.api_server_ms:.2f} ms"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shape", "names", multiple=True, type=click.Choice(list(SHAPES)), help="Default: all.")
@click.option("--nodes", default=5000, show_default=True, help="Counts of pods scale with it.")
@click.option("--pairs", default=3, show_default=True, help="Runs of each scheduler.")
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(names: tuple[str, ...], nodes: int, pairs: int, report: bool) -> None:
    """Compare throughput with kube-scheduler's on the workloads of its own benchmark.

    Ends with code 1 if a workload is below the ratio that is wanted of it.
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
