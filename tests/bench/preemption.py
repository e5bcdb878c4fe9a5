"""Preemption against kube-scheduler: the same full cluster, the same urgent pods, alternating runs.

Each run has a control plane of its own with the real disruption controller; kwok runs and ends pods. The
nodes are full of pods of four low priorities, in apps of which half have a PodDisruptionBudget.
Then the scheduler starts and finds pods of high priority waiting. What counts is how many pods had to
leave, of what priority, and how far budgets were overdrawn. Wholepod's own decisions are judged one by
one from its log, too (`preemption_judge`).
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.bench.preemption_judge import Pod, Room, Wrong, judge
from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.harness import Json, Scheduler
from tests.integration.observer import Observer, node_of

NAMESPACE = "bench"
REPORT = Path(__file__).parents[2] / "docs" / "reports" / "preemption.md"
GIVE_UP_AFTER_S = 900.0
QPS = 500
KUBE, WHOLEPOD, WHOLEPOD_MEMORY = "kube-scheduler", "wholepod (kube)", "wholepod (memory-fit)"
SCHEDULER_NAME = {KUBE: "default-scheduler", WHOLEPOD: "default-scheduler", WHOLEPOD_MEMORY: "wholepod"}

CPU_MILLI, MEMORY_MIB, PODS = 4000, 16384, 110
"""Of each node."""
GRACE_S = 1
UNIT_MILLI, UNIT_MIB = 250, 1024
LOW_PRIORITIES = {f"low-{i}": 10 * i for i in range(4)}
HIGH_PRIORITY = 1000
PRIORITIES = {**LOW_PRIORITIES, "high": HIGH_PRIORITY}
APPS = 20
BUDGETED_APPS = APPS // 2
BUDGET = 0.1
"""Share of its pods that an app with a budget may lose."""


@dataclass(frozen=True)
class Load:
    """The same for the same numbers."""

    nodes: int
    urgent: int
    seed: int

    def running(self) -> list[Pod]:
        """Pods that fill all nodes to the last millicore."""
        rng = random.Random(self.seed)
        pods: list[Pod] = []
        for n in range(self.nodes):
            cpu, memory = CPU_MILLI // UNIT_MILLI, MEMORY_MIB
            while cpu:
                units = min(cpu, rng.randint(1, 4))
                cpu -= units
                # As much memory as it likes, as long as the rest of the CPU gets some, too.
                likes = int(units * UNIT_MIB * rng.choice((0.5, 0.75, 1.0, 1.25)))
                mib = min(likes, memory - cpu * UNIT_MIB // 2)
                memory -= mib
                priority, app = rng.choice(list(LOW_PRIORITIES.values())), rng.randrange(APPS)
                name, node = f"low-{len(pods):04}", f"node-{n:03}"
                pods.append(Pod(name, units * UNIT_MILLI, mib, priority, node, app))
        return pods

    def waiting(self) -> list[Pod]:
        rng = random.Random(self.seed + 1)
        sizes = [(rng.randint(2, 6), rng.choice((0.5, 0.75, 1.0))) for _ in range(self.urgent)]
        return [
            Pod(f"urgent-{i:03}", units * UNIT_MILLI, int(units * UNIT_MIB * share), HIGH_PRIORITY)
            for i, (units, share) in enumerate(sizes)
        ]

    def budgets(self) -> dict[int, int]:
        """App → how many of its pods may go."""
        sizes = Counter(pod.app for pod in self.running())
        return {app: int(sizes[app] * BUDGET) for app in range(BUDGETED_APPS)}


@dataclass(frozen=True)
class Run:
    scheduler: str
    victims: Counter[int]
    """By priority."""
    violations: int
    """Pods that went beyond what their app's budget allowed."""
    preemptions: int = 0
    wrong: tuple[Wrong, ...] = ()
    """Both are of Wholepod only."""
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.victims.total()


def measure(scheduler: str, load: Load) -> Run:
    """One run of one scheduler on a control plane of its own; all urgent pods are placed in the end, or it
    raises AssertionError."""
    running, waiting = load.running(), load.waiting()
    with ControlPlane(kwok=True) as plane, Observer(plane, f"/api/v1/namespaces/{NAMESPACE}/pods") as pods:
        _fill(plane, load, running)
        budgets = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets"
        allowed = load.budgets()
        with Observer(plane, budgets) as seen:
            seen.wait(lambda now: _allow(now) == {f"app-{app}": n for app, n in allowed.items()}, "budgets")
        name = SCHEDULER_NAME[scheduler]
        plane.api.create_many(_manifest(pod, scheduler_name=name) for pod in waiting)
        started = time.monotonic()
        with _running(scheduler, plane) as records:
            pods.wait(
                lambda now: all(node_of(now[f"{NAMESPACE}/{pod.name}"]) for pod in waiting),
                f"{scheduler} has placed all urgent pods",
                timeout_s=GIVE_UP_AFTER_S,
            )
            seconds = time.monotonic() - started
        log = records()
        left = {
            item["metadata"]["name"]
            for item in plane.api.items(f"/api/v1/namespaces/{NAMESPACE}/pods")
            if "deletionTimestamp" not in item["metadata"]
        }
    gone = [pod for pod in running if pod.name not in left]
    lost = Counter(pod.app for pod in gone)
    preemptions, wrong = judge(log, [*running, *waiting], Room(CPU_MILLI, MEMORY_MIB, PODS))
    return Run(
        scheduler,
        victims=Counter(pod.priority for pod in gone),
        violations=sum(max(0, lost[app] - limit) for app, limit in allowed.items()),
        preemptions=preemptions,
        wrong=tuple(wrong),
        seconds=seconds,
    )


def _fill(plane: ControlPlane, load: Load, running: Sequence[Pod]) -> None:
    api = plane.api
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for name, value in PRIORITIES.items():
        metadata = {"name": name}
        api.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": metadata,
                "value": value,
            }
        )
    memory = f"{MEMORY_MIB}Mi"
    cpu = f"{CPU_MILLI}m"
    api.create_many(
        node_manifest(f"node-{n:03}", cpu=cpu, memory=memory, pods=PODS) for n in range(load.nodes)
    )
    api.create_many(_manifest(pod, scheduler_name="nobody") for pod in running)
    sizes = Counter(pod.app for pod in running)
    for app, may_go in load.budgets().items():
        selector = {"matchLabels": {"app": f"app-{app}"}}
        api.create(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": f"app-{app}", "namespace": NAMESPACE},
                "spec": {"minAvailable": sizes[app] - may_go, "selector": selector},
            }
        )


def _manifest(pod: Pod, *, scheduler_name: str) -> Json:
    [priority_class] = [name for name, value in PRIORITIES.items() if value == pod.priority]
    return pod_manifest(
        pod.name,
        {"cpu": f"{pod.cpu_milli}m", "memory": f"{pod.memory_mib}Mi"},
        namespace=NAMESPACE,
        scheduler_name=scheduler_name,
        labels={"app": f"app-{pod.app}"} if pod.node else {},
        priorityClassName=priority_class,
        terminationGracePeriodSeconds=GRACE_S,
        **({"nodeName": pod.node} if pod.node else {}),
    )


def _allow(budgets: Mapping[str, Json]) -> dict[str, int]:
    """Budget → how many disruptions it allows, as its controller says."""
    return {
        budget["metadata"]["name"]: budget.get("status", {}).get("disruptionsAllowed", -1)
        for budget in budgets.values()
    }


@contextmanager
def _running(scheduler: str, plane: ControlPlane) -> Iterator[Callable[[], list[Json]]]:
    """The scheduler at work; gives what reads its log afterwards (kube-scheduler's has nothing for us)."""
    if scheduler == KUBE:
        plane.start_scheduler(qps=QPS, burst=2 * QPS)
        yield list
        return
    flags = ["--leader-elect=false", f"--scheduler-name={SCHEDULER_NAME[scheduler]}", "--log-level=debug"]
    flags += [f"--kube-api-qps={QPS}", f"--kube-api-burst={2 * QPS}"]
    log = plane.folder / "wholepod.log"
    with Scheduler(*flags, kubeconfig=plane.kubeconfig, log=log) as process:
        yield process.records
        process.check_cache()


def summarise(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, a row for each run."""
    headings = ["scheduler", "victims", "by priority", "beyond budgets", "seconds"]
    rows = [
        [
            run.scheduler,
            str(run.total),
            ", ".join(f"{run.victims[value]} of {value}" for value in sorted(run.victims)),
            str(run.violations),
            f"{run.seconds:.0f}",
        ]
        for run in runs
    ]
    return headings, rows


def _write_report(runs: Sequence[Run], load: Load) -> None:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    headings, rows = summarise(runs)
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    preemptions = sum(run.preemptions for run in runs)
    wrong = sum(len(run.wrong) for run in runs)
    table = "\n".join(lines)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        f"# Preemption\n\n{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {os.cpu_count()} cores, "
        f"kube-scheduler 1.37.2. By `make bench-preemption`: {load.nodes} nodes are full of "
        f"{len(load.running())} pods of the priorities {', '.join(map(str, LOW_PRIORITIES.values()))}; "
        f"{BUDGETED_APPS} of {APPS} apps have a budget of {BUDGET:.0%}; {load.urgent} pods of priority "
        f"{HIGH_PRIORITY} wait when the scheduler starts (seed {load.seed}). All were placed in every run."
        f"\n\n{table}\n\n*Victims*: pods that had to leave. *Beyond budgets*: those of them that no budget "
        f"allowed.\n\nOf Wholepod's {preemptions} preemptions, {wrong} had a victim that could have stayed.\n"
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--nodes", default=200, show_default=True)
@click.option("--urgent", default=500, show_default=True, help="Pods of high priority.")
@click.option("--seed", default=1, show_default=True)
@click.option("--runs", default=5, show_default=True, help="Of each scheduler.")
@click.option("--only", multiple=True, type=click.Choice(list(SCHEDULER_NAME)), help="Default: all.")
@click.option("--report/--no-report", default=True, help=f"Write docs/reports/{REPORT.name}.")
def main(nodes: int, urgent: int, seed: int, runs: int, only: tuple[str, ...], report: bool) -> None:
    """Compare Wholepod's preemptions with kube-scheduler's."""
    load, console = Load(nodes, urgent, seed), Console()
    schedulers = [name for name in SCHEDULER_NAME if name in only or not only]
    done: list[Run] = []
    for i, name in itertools.product(range(runs), schedulers):
        run = measure(name, load)
        done.append(run)
        console.print(
            f"{i + 1}/{runs} {name}: {run.total} victims, {run.violations} beyond budgets, "
            f"{run.seconds:.0f} s"
        )
        for mistake in run.wrong:
            console.print(f"  {mistake}")
    headings, rows = summarise(done)
    table = Table(*headings, title=f"{urgent} urgent pods on {nodes} full nodes")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if report:
        _write_report(done, load)
        console.print(f"written: {REPORT.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
