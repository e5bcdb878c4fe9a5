"""See the package. Exit code 1 when Wholepod has not shown what it was to show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from scheduler.core.gangs.gang import Strategy
from tests.bench.gang_liveness.scenes import (
    Deadlock,
    DeadlockEnd,
    Starvation,
    StarvationEnd,
    Words,
    play_deadlock,
    play_starvation,
)
from tests.bench.runs import setting
from tests.cluster import ControlPlane
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.integration.harness import Scheduler
from tests.integration.observer import Observer

REPORT = Path(__file__).parents[3] / "docs" / "reports" / "gang-liveness.md"
KUBE = "kube-scheduler"
SCHEDULERS = (*(strategy.value for strategy in Strategy), KUBE)
NAMESPACE = "default"
QPS = 500
RESOLVED_WITHIN_S = 10.0
STARVATION_AFTER_S = (10, 60)
"""Profile's `starvationAfter`, in two runs of the second scene."""
CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles:
- schedulerName: wholepod
  gangs:
    starvationAfter: {after_s}s
    maxHeldFraction: {{namespace: 1, cluster: 1}}
"""


@dataclass(frozen=True)
class Row:
    scheduler: str
    deadlock: DeadlockEnd
    deadlocks: float | None
    """As the scheduler counts them; None for kube-scheduler."""
    starvation: Sequence[StarvationEnd]
    """One for each of STARVATION_AFTER_S; for kube-scheduler, which has no such thing, one."""


@contextmanager
def _stage(
    scheduler: str, *, after_s: int
) -> Iterator[tuple[ControlPlane, Observer, Words, Scheduler | None]]:
    """A control plane with PodGroups, and the scheduler at work."""
    kube = scheduler == KUBE
    with (
        ControlPlane(
            controller_manager=False,
            feature_gates=POD_GROUPS_GATES,
            runtime_config=POD_GROUPS_SERVED,
        ) as plane,
        Observer(plane, f"/api/v1/namespaces/{NAMESPACE}/pods") as pods,
    ):
        words = Words(NAMESPACE, "default-scheduler" if kube else "wholepod", "" if kube else scheduler, True)
        if kube:
            plane.start_scheduler(qps=QPS, burst=2 * QPS)
            yield plane, pods, words, None
            return
        configuration = plane.folder / "wholepod.yaml"
        configuration.write_text(CONFIGURATION.format(after_s=after_s))
        flags = ["--leader-elect=false", f"--config={configuration}"]
        flags += [f"--kube-api-qps={QPS}", f"--kube-api-burst={2 * QPS}"]
        log = plane.folder / "scheduler.log"
        with Scheduler(*flags, kubeconfig=plane.kubeconfig, log=log) as process:
            yield plane, pods, words, process
            process.check_cache()


def run(scheduler: str, first: Deadlock, second: Starvation, *, give_up_s: float, console: Console) -> Row:
    with _stage(scheduler, after_s=60) as (plane, pods, words, process):
        deadlock = play_deadlock(plane.api, pods, words, first, give_up_s=give_up_s)
        counted = process.metric("wholepod_gang_deadlocks_total") if process is not None else None
    console.print(
        f"{scheduler}: {deadlock.complete} of {first.gangs} gangs in {_s(deadlock.seconds, give_up_s)}; "
        f"longest wait beside free room {_s(deadlock.longest_wait_s)}"
    )
    ends = []
    for after_s in STARVATION_AFTER_S if scheduler != KUBE else STARVATION_AFTER_S[:1]:
        with _stage(scheduler, after_s=after_s) as (plane, pods, words, _):
            end = play_starvation(plane.api, pods, words, second, give_up_s=give_up_s)
        ends.append(end)
        bound = _s(end.seconds, give_up_s)
        console.print(f"{scheduler}: the large gang after {bound}, {end.singles} single pods meanwhile")
    return Row(scheduler, deadlock, counted, ends)


def failures(rows: Sequence[Row], gangs: int) -> list[str]:
    """What Wholepod was to show and has not."""
    wrong = []
    for row in rows:
        if row.scheduler == KUBE:
            continue
        if row.deadlock.complete < gangs:
            wrong.append(f"{row.scheduler}: {gangs - row.deadlock.complete} gangs did not complete")
        if row.deadlock.longest_wait_s > RESOLVED_WITHIN_S:
            wrong.append(f"{row.scheduler}: room for a gang was free for {_s(row.deadlock.longest_wait_s)}")
        if row.scheduler == Strategy.HOARDING.value and not row.deadlocks:
            wrong.append("hoarding: there was no deadlock, so that nothing is shown")
        if not all(math.isfinite(end.seconds) for end in row.starvation):
            wrong.append(f"{row.scheduler}: the large gang was not placed")
    return wrong


def tables(rows: Sequence[Row], give_up_s: float) -> list[tuple[list[str], list[list[str]]]]:
    """(headings, rows) of each scene."""
    first = (
        [
            "scheduler",
            "gangs complete",
            "in",
            "longest wait beside room",
            "longest partly bound",
            "deadlocks",
        ],
        [
            [
                row.scheduler,
                str(row.deadlock.complete),
                _s(row.deadlock.seconds, give_up_s),
                _s(row.deadlock.longest_wait_s),
                _s(row.deadlock.partly_bound_s),
                "" if row.deadlocks is None else f"{row.deadlocks:.0f}",
            ]
            for row in rows
        ],
    )
    second = (
        ["scheduler", "starvationAfter", "the gang is bound after", "single pods bound meanwhile"],
        [
            [
                row.scheduler,
                "" if row.scheduler == KUBE else f"{after_s} s",
                _s(end.seconds, give_up_s),
                str(end.singles),
            ]
            for row in rows
            for after_s, end in zip(STARVATION_AFTER_S, row.starvation, strict=False)
        ],
    )
    return [first, second]


def _s(seconds: float, give_up_s: float = 0.0) -> str:
    return f"{seconds:.1f} s" if math.isfinite(seconds) else f"never (in {give_up_s:.0f} s)"


def _write_report(rows: Sequence[Row], first: Deadlock, second: Starvation, give_up_s: float) -> None:
    texts = []
    for headings, cells in tables(rows, give_up_s):
        lines = ["| " + " | ".join(line) + " |" for line in (headings, ["---"] * len(headings), *cells)]
        texts.append("\n".join(lines))
    places = second.nodes * second.slots
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        f"# Gangs that could wait for ever\n\n{setting()}. By `make bench-gang-liveness`, on a real API "
        "server; all gangs are Kubernetes' own PodGroups (kube-scheduler with the feature gate "
        f"GenericWorkload). One run each.\n\n## Deadlock\n\n{first.gangs} gangs of {first.size} on a cluster "
        "that fits two. Half of each gang comes first, member by member in turn, then the other half: what "
        "two first halves hold, a third gang needs. `hold-timeout` is 1 h. A complete gang runs for "
        f"{first.run_s:.0f} s and is deleted.\n\n{texts[0]}\n\n*Longest wait beside room*: the longest time "
        "in which the nodes had room for another gang, gangs waited that had all their members, and none was "
        f"bound; a deadlock would last an hour, and may last {RESOLVED_WITHIN_S:.0f} s. *Longest partly "
        "bound*: from a gang's first bind to its last.\n\n"
        f"## Starvation\n\nA gang of {second.size} on {second.nodes} nodes with {places} places, all of them "
        f"taken by single pods that run for {second.run_s / 2:.0f} to {second.run_s:.0f} s, while "
        f"{second.backlog} more wait at any time. After `starvationAfter` nodes are kept for the gang; "
        "`hoarding` may get there without, as it holds each place that comes up.\n\n"
        f"{texts[1]}\n"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, type=click.Choice(SCHEDULERS), help="Default: all.")
@click.option("--gangs", default=Deadlock.gangs, show_default=True)
@click.option("--size", default=Starvation.size, show_default=True, help="Of the large gang.")
@click.option("--nodes", default=Starvation.nodes, show_default=True, help="Around the large gang.")
@click.option("--give-up", "give_up_s", default=300.0, show_default=True, help="Seconds for each scene.")
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(only: tuple[str, ...], gangs: int, size: int, nodes: int, give_up_s: float, report: bool) -> None:
    """Let gangs block and starve each other, and see how long that lasts."""
    first, second, console = Deadlock(gangs=gangs), Starvation(nodes=nodes, size=size), Console()
    rows = [
        run(name, first, second, give_up_s=give_up_s, console=console)
        for name in SCHEDULERS
        if name in only or not only
    ]
    for headings, cells in tables(rows, give_up_s):
        table = Table(*headings)
        for line in cells:
            table.add_row(*line)
        console.print(table)
    if report:
        _write_report(rows, first, second, give_up_s)
        console.print(f"written: {REPORT.relative_to(Path.cwd())}")
    wrong = failures(rows, gangs)
    if wrong:
        raise click.ClickException("; ".join(wrong))


if __name__ == "__main__":
    main()
