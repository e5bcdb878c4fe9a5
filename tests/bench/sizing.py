"""How much memory and CPU Wholepod's processes take on large clusters.

Leader, standby and controller run at once, as the chart installs them, on a control plane without kubelets
whose pods are there already. Each is looked at while nothing happens, and then while pods come, are bound and
go at a steady rate. Most pods are single; every tenth belongs to a gang by a PodGroup, which the controller
follows. Memory is what is resident (of which the largest counts), CPU in cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.runs import setting
from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.cluster.api import Api, Json
from tests.integration.controlling import GROUPS, LABEL, with_crd
from tests.integration.harness import Controller, Scheduler, eventually

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "sizing.md"
SIZES = ((1000, 10_000), (1000, 30_000), (5000, 10_000), (5000, 30_000))
"""(nodes, pods)."""
GANG = 10
SAMPLE_S = 0.25
PODS = "/api/v1/namespaces/default/pods"
HEADINGS = (
    "nodes",
    "pods",
    "process",
    "start, CPU s",
    "quiet, MiB",
    "quiet, cores",
    "churn, MiB",
    "churn, cores",
)
CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles:
- schedulerName: wholepod
clientConnection: {qps: 1000, burst: 2000}
"""


@dataclass(frozen=True)
class Use:
    """Of one process in one span of time."""

    memory_bytes: int
    """The largest that was seen resident."""
    cores: float


@dataclass(frozen=True)
class Size:
    """One process on one cluster."""

    nodes: int
    pods: int
    process: str
    start_cpu_s: float
    quiet: Use
    churn: Use


def measure(nodes: int, pods: int, *, rate: int, seconds: float) -> list[Size]:
    """All processes on one cluster. `rate`: pods that come and go, a second."""
    with (
        ControlPlane(controller_manager=False) as plane,
        tempfile.TemporaryDirectory() as name,
        ExitStack() as stack,
    ):
        with_crd(plane)
        _fill(plane.api, nodes, pods)
        folder = Path(name)
        configuration = folder / "wholepod.yaml"
        configuration.write_text(CONFIGURATION)
        processes: dict[str, psutil.Process] = {}

        def start(role: str, kind: type[Scheduler]) -> Scheduler:
            started = stack.enter_context(
                kind(f"--config={configuration}", kubeconfig=plane.kubeconfig, log=folder / f"{role}.log")
            )
            processes[role] = psutil.Process(started.pid)
            return started

        leader = start("leader", Scheduler)
        eventually(lambda: leader.metric("leader_election_master_status") == 1, "it leads")
        start("standby", Scheduler)
        start("controller", Controller)
        start_cpu_s = {role: _cpu_s(process) for role, process in processes.items()}
        quiet = _watch(processes, seconds)
        churn = _watch(processes, seconds, _churn(plane.api, rate))
        bound = leader.metric("wholepod_binds_total", outcome="Bound")
        if bound < rate * seconds / 2:
            raise click.ClickException(f"only {bound:.0f} pods were bound: not the load that was meant")
    return [Size(nodes, pods, role, start_cpu_s[role], quiet[role], churn[role]) for role in processes]


def _fill(api: Api, nodes: int, pods: int) -> None:
    """Nodes, and pods that run on them: every tenth of a gang."""
    api.create_many(node_manifest(f"node-{n:05}", cpu="64", memory="256Gi") for n in range(nodes))
    gangs = pods // 10 // GANG
    for gang in range(gangs):
        api.post(f"{GROUPS}/namespaces/default/podgroups", _group(f"gang-{gang:05}"))
    api.create_many(_pods_on_nodes(nodes, pods, gangs))


def _pods_on_nodes(nodes: int, pods: int, gangs: int) -> Iterator[Json]:
    for number in range(pods):
        labels = {"app": f"app-{number % 200}"}
        if number < gangs * GANG:
            labels[LABEL] = f"gang-{number // GANG:05}"
        yield pod_manifest(
            f"there-{number:06}", _requests(number), labels=labels, nodeName=f"node-{number % nodes:05}"
        )


def _requests(number: int) -> dict[str, str]:
    return {"cpu": f"{50 * (1 + number % 4)}m", "memory": f"{128 * (1 + number % 8)}Mi"}


def _group(name: str) -> Json:
    return {
        "apiVersion": "scheduling.x-k8s.io/v1alpha1",
        "kind": "PodGroup",
        "metadata": {"name": name},
        "spec": {"minMember": GANG},
    }


def _churn(api: Api, rate: int) -> Iterator[None]:
    """Each step creates as many pods as are due, and deletes those that came ten seconds before."""
    begun, created, deleted = time.monotonic(), 0, 0
    while True:
        due = int(rate * (time.monotonic() - begun))
        api.create_many(pod_manifest(f"churn-{n:06}", _requests(n)) for n in range(created, due))
        created = due
        while deleted < created - 10 * rate:
            api.delete(f"{PODS}/churn-{deleted:06}", gracePeriodSeconds="0")
            deleted += 1
        yield


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _watch(
    processes: Mapping[str, psutil.Process], seconds: float, work: Iterator[None] | None = None
) -> dict[str, Use]:
    begun, before = time.monotonic(), {role: _cpu_s(process) for role, process in processes.items()}
    largest = dict.fromkeys(processes, 0)
    while time.monotonic() < begun + seconds:
        for role, process in processes.items():
            largest[role] = max(largest[role], process.memory_info().rss)
        if work is not None:
            next(work)
        time.sleep(SAMPLE_S)
    took = time.monotonic() - begun
    return {
        role: Use(largest[role], (_cpu_s(process) - before[role]) / took)
        for role, process in processes.items()
    }


def row(size: Size) -> list[str]:
    """One cell for each of `HEADINGS`."""
    return [
        f"{size.nodes:,}",
        f"{size.pods:,}",
        size.process,
        f"{size.start_cpu_s:.1f}",
        f"{size.quiet.memory_bytes / 2**20:.0f}",
        f"{size.quiet.cores:.3f}",
        f"{size.churn.memory_bytes / 2**20:.0f}",
        f"{size.churn.cores:.2f}",
    ]


class SizeType(click.ParamType[tuple[int, int]]):
    """NODES:PODS."""

    name = "NODES:PODS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        nodes, _, pods = str(value).partition(":")
        if not (nodes.isdecimal() and pods.isdecimal()):
            self.fail(f"{value!r} is not NODES:PODS (example: 1000:10000)", param, ctx)
        return int(nodes), int(pods)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", "sizes", type=SizeType(), multiple=True, default=SIZES, help="May be repeated.")
@click.option("--rate", default=50, show_default=True, help="Pods that come and go, a second.")
@click.option("--seconds", default=60.0, show_default=True, help="How long each span is watched.")
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(sizes: tuple[tuple[int, int], ...], rate: int, seconds: float, report: bool) -> None:
    """Measure memory and CPU of leader, standby and controller."""
    console = Console()
    found: list[Size] = []
    for nodes, pods in sizes:
        found += measure(nodes, pods, rate=rate, seconds=seconds)
        for size in found[-3:]:
            console.print(*row(size))
    table = Table(*HEADINGS)
    for size in found:
        table.add_row(*row(size))
    console.print(table)
    if report:
        lines = [HEADINGS, ["---"] * 3 + ["--:"] * (len(HEADINGS) - 3), *map(row, found)]
        markdown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        REPORT.write_text(
            f"# Memory and CPU\n\n{setting()}. By `make bench-sizing`: leader, standby and controller; "
            f"{seconds:.0f} s while nothing happens, then {seconds:.0f} s in which {rate} pods a second "
            f"come, are bound and go after ten seconds. A tenth of the pods are in gangs of {GANG} with a "
            f"PodGroup. MiB: the largest resident size in that time.\n\n{markdown}\n"
        )
        console.print(f"written: {REPORT.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
