"""`python -m tests.e2e.upstream` (`make e2e-upstream`): Kubernetes' own tests of scheduling.

The `[sig-scheduling]` tests of Kubernetes' end-to-end suite, compiled from its Go module (some minutes,
once), on an embedded control plane with four nodes of kwok's and one scheduler, which serves
`default-scheduler`. It takes about a quarter of an hour for each scheduler. A test that fails is run
once more.

Exit codes: 0 all passed (perhaps at the second attempt, which is then said), 1 not all, 2 usage,
3 something could not be built or started.
"""

import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from scheduler import __version__
from tests.cluster.assets import Pin, pin
from tests.cluster.errors import ClusterError
from tests.cluster.progress import live_report
from tests.e2e.upstream import suite
from tests.e2e.upstream.report import Run, origin, page, table
from tests.e2e.upstream.stage import NODES, SCHEDULERS, WHOLEPOD, stage

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "docs" / "reports" / "e2e-upstream.md"
UNUSABLE = 3


@click.command(help=__doc__)
@click.option(
    "--scheduler",
    "schedulers",
    type=click.Choice(SCHEDULERS),
    multiple=True,
    default=(WHOLEPOD,),
    show_default=True,
    help="Which scheduler the cluster has; repeat for one run with each.",
)
@click.option("--focus", help="Only tests whose names match this regular expression (Go's syntax).")
@click.option("--retry/--no-retry", default=True, show_default=True, help="Run failed tests once more.")
@click.option("--logs", type=click.Path(path_type=Path), default=Path("dist/e2e-upstream"), show_default=True)
@click.option(
    "--report/--no-report",
    "wants_report",
    default=None,
    help=f"Write docs/reports/{REPORT.name}.  [default: when all tests are run]",
)
def main(
    schedulers: tuple[str, ...], focus: str | None, retry: bool, logs: Path, wants_report: bool | None
) -> None:
    out, err = Console(), Console(stderr=True)
    runs = []
    try:
        for scheduler in dict.fromkeys(schedulers):
            run = _run(scheduler, focus=focus, retry=retry, logs=logs.resolve() / scheduler, console=err)
            out.print(table(run))
            runs.append(run)
    except ClusterError as error:
        err.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(UNUSABLE)
    if wants_report or (wants_report is None and focus is None):
        REPORT.write_text(page(REPORT.read_text() if REPORT.exists() else "", runs))
        out.print(f"Report: {REPORT.relative_to(ROOT)}")
    out.print(f"Logs: {logs}")
    sys.exit(0 if all(run.all_passed for run in runs) else 1)


def _run(scheduler: str, *, focus: str | None, retry: bool, logs: Path, console: Console) -> Run:
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with live_report(console) as report:
        e2e_test = suite.program(report)
        with stage(scheduler, log=logs / "scheduler.log", report=report) as plane:
            started = origin(
                f"tests {_version(suite.PROGRAM)}",
                f"Kubernetes {plane.api.get('/version')['gitVersion']}",
                f"kwok {_version(pin('kwok'))}",
                *([f"Wholepod {__version__}"] if scheduler == WHOLEPOD else []),
            )
            specs = suite.run(
                plane,
                e2e_test,
                focus=focus,
                nodes=NODES,
                folder=logs,
                retry=retry,
                report=lambda line: report(f"{scheduler}: {line}"),
            )
    return Run(scheduler, started, specs)


def _version(program: Pin) -> str:
    return f"v{'.'.join(map(str, program.pinned))}"


if __name__ == "__main__":
    main(prog_name="python -m tests.e2e.upstream")
