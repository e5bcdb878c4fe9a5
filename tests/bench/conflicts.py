"""How long single pods wait while a large optimistic gang is planned.

Single pods come in a steady stream, each timed from before its creation to the watch's news of its bind. The
gang's members are there from the start, but its PodGroup is not, so nothing is tried; when that comes, all
members are planned at once, beside the stream. What the singles take meanwhile are conflicts. Quiet
times before each gang are what its planning is compared with: same cluster, same stream, same minute.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.bench.runs import GIVE_UP_AFTER_S, QPS, Seen, setting
from tests.bench.workloads import POD_GROUPS
from tests.cluster import ControlPlane, node_manifest
from tests.cluster.api import Api, Json, pod_manifest
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.integration.harness import Scheduler

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "conflicts.md"
CEILING = 2.0
"""Singles' p99 while a gang is planned, to that of quiet times."""
SINGLES, MEMBERS = "singles", "members"
SETTLE_S = 3.0
"""So long after other work quiet times begin."""
HEADINGS = ("singles created while", "pods", "p50 ms", "p99 ms", "longest ms")


@dataclass
class Latencies:
    """Seconds from creation to bind, by what was going on when the pod was created."""

    quiet: list[float] = field(default_factory=list)
    planning: list[float] = field(default_factory=list)
    binding: list[float] = field(default_factory=list)
    plans_s: list[float] = field(default_factory=list)
    """From each group's creation to its first bind."""
    conflicts: int = 0
    rollbacks: int = 0

    @property
    def ratio(self) -> float:
        return percentile(self.planning, 99) / percentile(self.quiet, 99)


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * percent // 100) - 1, 0)]


def measure(nodes: int, members: int, rate: int, rounds: int, quiet_s: float) -> Latencies:
    """All rounds on one control plane."""
    found = Latencies()
    with (
        ControlPlane(
            controller_manager=False,
            feature_gates=POD_GROUPS_GATES,
            runtime_config=POD_GROUPS_SERVED,
        ) as plane,
        tempfile.TemporaryDirectory() as folder,
    ):
        for name in (SINGLES, MEMBERS):
            plane.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        plane.api.create_many(node_manifest(f"node-{n:04}") for n in range(nodes))
        flags = ("--leader-elect=false", f"--kube-api-qps={QPS}", f"--kube-api-burst={QPS}")
        log = Path(folder) / "scheduler.log"
        with (
            Seen(plane, SINGLES, "pods", "spec.nodeName!=") as singles,
            Seen(plane, MEMBERS, "pods", "spec.nodeName!=") as bound,
            Scheduler(*flags, kubeconfig=plane.kubeconfig, log=log) as scheduler,
            _stream(plane.api, rate) as created,
        ):
            for number in range(rounds):
                _round(plane.api, number, members, quiet_s, found, bound, created, singles)
            labels = {"strategy": "optimistic"}
            found.conflicts = int(scheduler.metric("wholepod_gang_conflicts_total", **labels))
            found.rollbacks = int(scheduler.metric("wholepod_gang_rollbacks_total", **labels))
    return found


def _round(
    api: Api,
    number: int,
    members: int,
    quiet_s: float,
    found: Latencies,
    bound: Seen,
    created: dict[str, float],
    singles: Seen,
) -> None:
    gang, before = f"gang-{number}", bound.count
    api.create_many(_member(gang, n) for n in range(members))
    time.sleep(SETTLE_S)
    quiet_from = time.monotonic()
    time.sleep(quiet_s)
    planned_from = time.monotonic()
    api.create(_group(gang, members))
    _wait(lambda: bound.count > before, f"the first member of {gang} is bound")
    planned_until = min(when for name, when in list(bound.times.items()) if name.startswith(f"{gang}-"))
    _wait(lambda: bound.count == before + members, f"all members of {gang} are bound")
    bound_until = bound.last
    _wait(lambda: all(n in singles.times for n, at in list(created.items()) if at < bound_until), "singles")
    found.plans_s.append(planned_until - planned_from)
    for name, at in list(created.items()):
        latency_s = singles.times.get(name, at) - at
        if quiet_from <= at < planned_from - SETTLE_S:  # bound before the gang is planned, too
            found.quiet.append(latency_s)
        elif planned_from <= at < planned_until:
            found.planning.append(latency_s)
        elif planned_until <= at < bound_until:
            found.binding.append(latency_s)


def _wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while not holds():
        if time.monotonic() > deadline:
            raise click.ClickException(f"not in {GIVE_UP_AFTER_S:.0f} s: {what}")
        time.sleep(0.02)


@contextmanager
def _stream(api: Api, rate: int) -> Iterator[dict[str, float]]:
    """Creates single pods in the background; name → when (monotonic clock)."""
    created: dict[str, float] = {}
    ended = threading.Event()

    def run() -> None:
        due = time.monotonic()
        while not ended.wait(max(due - time.monotonic(), 0.0)):
            due += 1 / rate
            name = f"single-{len(created):06}"
            pod = pod_manifest(name, {"cpu": "10m", "memory": "200Mi"}, namespace=SINGLES)
            created[name] = time.monotonic()
            api.create(pod)

    thread = threading.Thread(target=run, name="stream")
    thread.start()
    try:
        yield created
    finally:
        ended.set()
        thread.join()


def _member(gang: str, number: int) -> Json:
    group = {"podGroupName": gang}
    requests = {"cpu": "100m", "memory": "1Gi"}
    return pod_manifest(f"{gang}-{number:04}", requests, namespace=MEMBERS, schedulingGroup=group)


def _group(gang: str, members: int) -> Json:
    return {
        "apiVersion": POD_GROUPS,
        "kind": "PodGroup",
        "metadata": {
            "name": gang,
            "namespace": MEMBERS,
            "annotations": {"wholepod.io/strategy": "optimistic"},
        },
        "spec": {"schedulingPolicy": {"gang": {"minCount": members}}},
    }


def rows(found: Latencies) -> list[list[str]]:
    """One cell for each of `HEADINGS`."""
    times = {"it is quiet": found.quiet, "a gang is planned": found.planning, "it is bound": found.binding}
    return [
        [
            what,
            str(len(values)),
            *(f"{1000 * percentile(values, percent):.1f}" for percent in (50, 99, 100)),
        ]
        for what, values in times.items()
        if values
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--nodes", default=5000, show_default=True)
@click.option("--members", default=2000, show_default=True)
@click.option("--rate", default=100, show_default=True, help="Single pods a second.")
@click.option("--rounds", default=5, show_default=True, help="Gangs, one after the other.")
@click.option("--quiet-s", default=15.0, show_default=True, help="Quiet time before each.")
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(nodes: int, members: int, rate: int, rounds: int, quiet_s: float, report: bool) -> None:
    """Measure how long single pods wait while large optimistic gangs are planned."""
    found = measure(nodes, members, rate, rounds, quiet_s)
    table = Table(*HEADINGS)
    for row in rows(found):
        table.add_row(*row)
    plans = ", ".join(f"{seconds:.1f}" for seconds in found.plans_s)
    verdict = (
        f"p99 while a gang is planned, to that of quiet times: {found.ratio:.2f} "
        f"(wanted: at most {CEILING}). From each group's creation to its first bind: {plans} s. "
        f"Conflicts: {found.conflicts}, plans rolled back: {found.rollbacks}."
    )
    console = Console()
    console.print(table, verdict)
    if report:
        lines = [HEADINGS, ["---"] * len(HEADINGS), *rows(found)]
        markdown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(
            f"# Single pods while a gang is planned\n\n{setting()}. By `make bench-conflicts`: {rounds} "
            f"optimistic gangs of {members} members on {nodes} nodes (4 CPU, 32Gi), one by one, beside "
            f"{rate} single pods a second; from before a pod's creation to the news of its bind.\n\n"
            f"{markdown}\n\n{verdict}\n"
        )
        console.print(f"written: {REPORT.relative_to(Path.cwd())}")
    raise SystemExit(0 if found.ratio <= CEILING else 1)


if __name__ == "__main__":
    main()
