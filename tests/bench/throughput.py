"""Throughput against kube-scheduler: same API server, same nodes, same pods, alternating runs.

Alike pods are a scheduler's easiest work, so that this measures all that surrounds a decision; for harder
ones see `shapes`. Machines are noisy: the numbers to quote are the ratios pair by pair.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.bench.runs import KUBE, QPS, SCHEDULER_NAME, Run, measure, setting
from tests.bench.workloads import SHAPES, Shape

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "throughput.md"


def summarise(runs: Sequence[Run], load: Shape) -> tuple[Table, str]:
    """A table for people, and the report as Markdown. Ratios are medians over the pairs."""
    schedulers = list(dict.fromkeys(run.scheduler for run in runs))
    by_scheduler = {name: [run for run in runs if run.scheduler == name] for name in schedulers}
    table = Table(title=f"{load.pods} pods on {load.nodes} nodes, medians of {len(by_scheduler[KUBE])} runs")
    headings = ["scheduler", "pods/s", "ratio", "CPU ms/pod", "ratio", "API server ms/pod", "start-up s"]
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "scheduler" else "right")
    for name, mine in by_scheduler.items():
        pairs = list(zip(mine, by_scheduler[KUBE], strict=False))
        row = [
            name,
            f"{statistics.median(run.rate for run in mine):.0f}",
            f"{statistics.median(a.rate / b.rate for a, b in pairs):.2f}",
            f"{statistics.median(run.cpu_ms for run in mine):.2f}",
            f"{statistics.median(a.cpu_ms / b.cpu_ms for a, b in pairs):.2f}",
            f"{statistics.median(run.api_server_ms for run in mine):.2f}",
            f"{statistics.median(run.startup_s for run in mine):.1f}",
        ]
        table.add_row(*row)
        lines.append("| " + " | ".join(row) + " |")
    return table, "\n".join(lines)


def _write_report(markdown: str, runs: Sequence[Run], load: Shape) -> None:
    details = "\n".join(
        f"| {i} | {run.scheduler} | {run.rate:.0f} | {run.cpu_ms:.2f} | {run.api_server_ms:.2f} |"
        for i, run in enumerate(runs, start=1)
    )
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        f"# Throughput\n\n{setting()}. By `make bench`: {load.pods} alike pods (100m, 500Mi) waiting on "
        f"{load.nodes} nodes (4 CPU, 32Gi) when the scheduler starts; both at {QPS} QPS; done when the last "
        "`Scheduled` event is stored. Ratios are to kube-scheduler, pair by pair; medians.\n\n"
        f"{markdown}\n\nAll runs, in order:\n\n| # | scheduler | pods/s | CPU ms/pod | API server ms/pod |\n"
        f"|---|---|---|---|---|\n{details}\n"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--nodes", default=5000, show_default=True)
@click.option("--pods", default=5000, show_default=True)
@click.option("--pairs", default=5, show_default=True, help="Runs of each scheduler.")
@click.option("--only", multiple=True, type=click.Choice(list(SCHEDULER_NAME)), help="Default: all.")
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(nodes: int, pods: int, pairs: int, only: tuple[str, ...], report: bool) -> None:
    """Compare Wholepod's throughput with kube-scheduler's."""
    load = replace(SHAPES["basic"], nodes=nodes, pods=pods)
    schedulers = [name for name in SCHEDULER_NAME if name in only or not only]
    runs: list[Run] = []
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=pairs * len(schedulers))
        for _, name in itertools.product(range(pairs), schedulers):
            progress.update(task, description=name)
            run = measure(name, load)
            runs.append(run)
            progress.console.print(
                f"{name}: {run.rate:.0f} pods/s, {run.cpu_ms:.2f} ms CPU a pod, "
                f"API server {run.api_server_ms:.2f} ms, start-up {run.startup_s:.1f} s"
            )
            progress.advance(task)
    if KUBE not in schedulers:
        return
    table, markdown = summarise(runs, load)
    console.print(table)
    if report:
        _write_report(markdown, runs, load)
        console.print(f"written: {REPORT.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
