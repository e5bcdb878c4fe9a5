"""Throughput against kube-scheduler: same API server, same nodes, same pods, alternating runs.

A run: a fresh control plane without kubelets, nodes and a backlog of alike pods in the API server, then
the scheduler starts. It is done when the last `Scheduled` event is stored, not when the last pod is
bound, since a scheduler could otherwise be fast by owing its events. Rates count from the first bind
(so a program's start-up does not count; it is printed beside). CPU is the whole process tree's, and the
API server's, per pod. Machines are noisy: the numbers to quote are the ratios pair by pair.
"""

from __future__ import annotations

import http.client
import itertools
import os
import platform
import signal
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import click
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.cluster.control_plane import API_SERVER, SCHEDULER, environment

NAMESPACE = "bench"
REPORT = Path(__file__).parents[2] / "docs" / "reports" / "throughput.md"
POLL_S = 0.05
GIVE_UP_AFTER_S = 600.0
QPS = 5000

KUBE, WHOLEPOD, WHOLEPOD_MEMORY = "kube-scheduler", "wholepod (kube)", "wholepod (memory-fit)"
SCHEDULER_NAME = {KUBE: "default-scheduler", WHOLEPOD: "default-scheduler", WHOLEPOD_MEMORY: "wholepod"}


@dataclass(frozen=True)
class Load:
    nodes: int
    pods: int


@dataclass(frozen=True)
class Run:
    """Of one scheduler: seconds and CPU seconds for the whole backlog."""

    scheduler: str
    pods: int
    seconds: float
    """From the first bind to the last event stored."""
    startup_s: float
    """From the start of the process to the first bind."""
    scheduler_cpu_s: float
    api_server_cpu_s: float

    @property
    def rate(self) -> float:
        return self.pods / self.seconds

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.scheduler_cpu_s / self.pods

    @property
    def api_server_ms(self) -> float:
        return 1000 * self.api_server_cpu_s / self.pods


def measure(scheduler: str, load: Load) -> Run:
    """One run of one scheduler on a control plane of its own."""
    with ControlPlane(controller_manager=False) as plane, ThreadPoolExecutor(1) as watcher:
        api = plane.api
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        api.create_many(node_manifest(f"node-{i:05}", cpu="4", memory="32Gi") for i in range(load.nodes))
        requests = {"cpu": "100m", "memory": "500Mi"}
        name = SCHEDULER_NAME[scheduler]
        api.create_many(
            pod_manifest(f"pod-{i:05}", requests, namespace=NAMESPACE, scheduler_name=name)
            for i in range(load.pods)
        )
        api_server = psutil.Process(plane.pids()[API_SERVER])
        watching = threading.Event()
        first_bind = watcher.submit(_first_bind, plane, watching)
        watching.wait()
        before, started = _cpu_s(api_server), time.monotonic()
        process, stop = _start(scheduler, plane)
        try:
            while api.count(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events") < load.pods:
                if time.monotonic() - started > GIVE_UP_AFTER_S:
                    raise click.ClickException(f"{scheduler} did not finish in {GIVE_UP_AFTER_S:.0f} s")
                time.sleep(POLL_S)
            ended = time.monotonic()
            scheduler_cpu_s, api_server_cpu_s = _cpu_s(process), _cpu_s(api_server) - before
        finally:
            stop()
        began = first_bind.result(timeout=1)
    return Run(
        scheduler=scheduler,
        pods=load.pods,
        seconds=ended - began,
        startup_s=began - started,
        scheduler_cpu_s=scheduler_cpu_s,
        api_server_cpu_s=api_server_cpu_s,
    )


def _first_bind(plane: ControlPlane, watching: threading.Event) -> float:
    """The moment at which a watch shows the first pod with a node (monotonic clock)."""
    address = urlsplit(plane.server)
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    connection = http.client.HTTPSConnection(
        str(address.hostname), address.port, context=context, timeout=GIVE_UP_AFTER_S
    )
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?watch=true&fieldSelector=spec.nodeName!%3D"
    connection.request("GET", path, headers={"Authorization": f"Bearer {plane.token}"})
    response = connection.getresponse()
    watching.set()
    response.readline()
    moment = time.monotonic()
    connection.close()
    return moment


def _start(scheduler: str, plane: ControlPlane) -> tuple[psutil.Process, Callable[[], None]]:
    if scheduler == KUBE:
        plane.start_scheduler(qps=QPS, burst=QPS)
        return psutil.Process(plane.pids()[SCHEDULER]), lambda: None
    command = [sys.executable, "-m", "scheduler", "run", "--leader-elect=false"]
    command += ["--scheduler-name", SCHEDULER_NAME[scheduler], "--bind-address", "127.0.0.1:0"]
    command += [f"--kube-api-qps={QPS}", f"--kube-api-burst={QPS}", "--log-level=warning"]
    child = subprocess.Popen(command, env=environment(plane.kubeconfig), start_new_session=True)

    def stop() -> None:
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=30)

    return psutil.Process(child.pid), stop


def _cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        times = member.cpu_times()
        total += times.user + times.system
    return total


def summarise(runs: Sequence[Run], load: Load) -> tuple[Table, str]:
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


def _write_report(markdown: str, runs: Sequence[Run], load: Load) -> None:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    details = "\n".join(
        f"| {i} | {run.scheduler} | {run.rate:.0f} | {run.cpu_ms:.2f} | {run.api_server_ms:.2f} |"
        for i, run in enumerate(runs, start=1)
    )
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        f"# Throughput\n\n{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}, "
        f"kube-scheduler 1.37.2. By `make bench`: {load.pods} alike pods (100m, 500Mi) waiting on "
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
    load = Load(nodes, pods)
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
