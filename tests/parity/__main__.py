"""`python -m tests.parity` (`make parity`): thousands of random cases, none may differ.

Exit codes: 0 no difference, 1 differences (or cases too tame to prove anything). Cases are numbered;
the same number is the same case on every machine. Whole differing cases are written as JSON: feed
`document` to the oracle or to `python -m tests.parity.decide` to see both sides again.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.cluster.progress import live_report
from tests.parity import subjects
from tests.parity.build import oracle_program
from tests.parity.run import FLOORS, Family, Outcome, run

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "parity.md"


@click.command(help=__doc__)
@click.option("--pods", default=10_000, show_default=True, help="Random pods to count requests of.")
@click.option("--clusters", default=20_000, show_default=True, help="Random clusters to decide in.")
@click.option("--preemptions", default=6_000, show_default=True, help="Random clusters to preempt in.")
@click.option("--first", default=0, show_default=True, help="Number of the first case of each kind.")
@click.option("--processes", default=os.cpu_count() or 1, help="[default: one for each CPU]")
@click.option(
    "--differences", type=click.Path(path_type=Path), default=Path("dist/parity"), show_default=True
)
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(
    pods: int, clusters: int, preemptions: int, first: int, processes: int, differences: Path, report: bool
) -> None:
    console = Console()
    with live_report(console) as status:
        oracle_program(status)
    wanted: dict[Family, int] = {"pods": pods, "clusters": clusters, "preemptions": preemptions}
    outcomes = {
        family: _run(console, family, range(first, first + count), processes)
        for family, count in wanted.items()
        if count
    }
    failed = False
    for family, outcome in outcomes.items():
        console.print(_table(family, outcome))
        for shortfall in outcome.shortfalls(family):
            failed = True
            console.print(f"[red]too tame[/] {family}: {shortfall}")
    for shortfall in _subjects(outcomes)[1]:
        failed = True
        console.print(f"[red]too tame[/] {shortfall}")
    for family, outcome in outcomes.items():
        numbers = f"{family} {first} to {first + outcome.cases - 1}"
        console.print(
            f"{numbers}: [{'red' if outcome.differing else 'green'}]{outcome.differing} differences"
        )
        for i, case in enumerate(outcome.kept):
            failed = True
            path = differences / f"{family}-{i}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.format(msgspec.json.encode(case)))
            console.print(f"  {path}: {case['differences'][0]}", soft_wrap=True)
    if report:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(_markdown(outcomes, first))
    sys.exit(1 if failed else 0)


def _run(console: Console, family: Family, numbers: range, processes: int) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{family}, no difference", total=len(numbers))

        def show(outcome: Outcome) -> None:
            count = f"{outcome.differing} differ" if outcome.differing else "no difference"
            progress.update(task, completed=outcome.cases, description=f"{family}, {count}")

        return run(family, numbers, processes=processes, on_progress=show)


def _subjects(outcomes: dict[Family, Outcome]) -> tuple[Counter[str], list[str]]:
    """How often each subject came up in all families of clusters, and where that is not enough."""
    clusters = [outcome for family, outcome in outcomes.items() if family != "pods"]
    seen = sum((outcome.seen for outcome in clusters), Counter[str]())
    return seen, subjects.shortfalls(seen, sum(outcome.cases for outcome in clusters))


def _table(family: Family, outcome: Outcome) -> Table:
    table = Table("What the cases were about", "Cases", "Share", title=f"{outcome.cases} {family}")
    for name, count in _coverage(family, outcome):
        table.add_row(name, str(count), f"{count / outcome.cases:.1%}")
    return table


def _coverage(family: Family, outcome: Outcome) -> list[tuple[str, int]]:
    return [(name, outcome.seen[name]) for name in FLOORS[family]]


def _markdown(outcomes: dict[Family, Outcome], first: int) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}"
    lines = [
        "# Parity with kube-scheduler",
        "",
        "Made by `make parity`: random cases decided by kube-scheduler's own plugins and by Wholepod's",
        "profile `kube`. See `tests/parity/` for what is compared.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.strip()}, {machine}.",
        "",
    ]
    for family, outcome in outcomes.items():
        lines += [
            f"## {outcome.cases} {family} (numbers from {first}): {outcome.differing} differences",
            "",
            "| what the cases were about | cases | share |",
            "|---|---:|---:|",
            *(f"| {n} | {count} | {count / outcome.cases:.1%} |" for n, count in _coverage(family, outcome)),
            "",
        ]
    seen, _ = _subjects(outcomes)
    lines += [
        "## Subjects, in all clusters together",
        "",
        "| cases with | cases |",
        "|---|---:|",
        *(f"| {name.removeprefix('subject: ')} | {seen[name]} |" for name in subjects.SUBJECTS),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
