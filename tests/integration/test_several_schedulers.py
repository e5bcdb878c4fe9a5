"""Optimistic gangs beside a second active scheduler that fills the same nodes with a thousand pods.

Both prefer the fullest node that takes a pod, so they meet all the time. Pods belong to controllers, which
make others in place of those that a lost race has cost. Once all are bound, no node holds more than it
can, as far as Wholepods have bound it; what kube-scheduler binds too late is not theirs to undo.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from scheduler.core.races import VERDICT_AFTER_S
from tests.cluster import ControlPlane, node_manifest
from tests.integration.harness import Json, Scheduler, eventually
from tests.integration.observer import Observer, node_of

NODES, UNITS_PER_NODE = 60, 30
"""A unit is 100m of CPU and 256Mi of memory; each pod takes one."""
SINGLES = 1000
GANGS, GANG_SIZE = 20, 25
TIGHT = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
leaderElection: {{leaderElect: false, resourceName: {name}}}
clientConnection: {{qps: 1000, burst: 1000}}
profiles:
- schedulerName: {name}
  pluginConfig:
  - name: MemoryFit
    args: {{objective: tight}}
"""
REPLICA_SETS = "/apis/apps/v1/namespaces/default/replicasets"
SECOND = {"wholepod": "second", "kube-scheduler": "default-scheduler"}
TO_SETTLE_S = 300.0
"""For all pods to be bound, some of them again; a busy machine must not fail the test."""


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(kwok=True) as plane:
        cpu, memory = f"{100 * UNITS_PER_NODE}m", f"{256 * UNITS_PER_NODE}Mi"
        plane.api.create_many(node_manifest(f"node-{n:02}", cpu=cpu, memory=memory) for n in range(NODES))
        yield plane


@contextmanager
def wholepod(plane: ControlPlane, name: str, folder: Path) -> Iterator[Scheduler]:
    configuration = folder / f"{name}.yaml"
    configuration.write_text(TIGHT.format(name=name))
    flags = (f"--config={configuration}",)
    with Scheduler(*flags, kubeconfig=plane.kubeconfig, log=folder / f"{name}.log") as scheduler:
        yield scheduler


def template(labels: Mapping[str, str], scheduler_name: str, annotations: Mapping[str, str]) -> Json:
    requests = {"cpu": "100m", "memory": "256Mi"}
    return {
        "metadata": {"labels": dict(labels), "annotations": dict(annotations)},
        "spec": {
            "schedulerName": scheduler_name,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "pause", "resources": {"requests": requests}}],
        },
    }


def replica_set(scheduler_name: str) -> Json:
    labels = {"app": "singles"}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "singles", "namespace": "default"},
        "spec": {
            "replicas": SINGLES,
            "selector": {"matchLabels": labels},
            "template": template(labels, scheduler_name, {}),
        },
    }


def gang(number: int) -> Json:
    """A ReplicaSet, all of whose pods are needed at once."""
    name = f"gang-{number:02}"
    options = {
        "gang": name,
        "min-count": str(GANG_SIZE),
        "strategy": "optimistic",
        "conflict-mode": ("fit", "sequence")[number % 2],
    }
    annotations = {f"wholepod.io/{key}": value for key, value in options.items()}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": GANG_SIZE,
            "selector": {"matchLabels": {"app": name}},
            "template": template({"app": name}, "wholepod", annotations),
        },
    }


def on_nodes(pods: Mapping[str, Json], schedulers: set[str]) -> Counter[str]:
    """Pods of these schedulers on each node; each takes a unit."""
    return Counter(node_of(pod) for pod in pods.values() if pod["spec"]["schedulerName"] in schedulers)


@pytest.mark.parametrize("second", SECOND)
def test_gangs_beside_a_second_scheduler(second: str, plane: ControlPlane, tmp_path: Path) -> None:
    name = SECOND[second]
    ours = {"wholepod", name} if second == "wholepod" else {"wholepod"}
    with ExitStack() as stack:
        pods = stack.enter_context(Observer(plane, "/api/v1/pods"))
        first = stack.enter_context(wholepod(plane, "wholepod", tmp_path))
        if second == "wholepod":
            stack.enter_context(wholepod(plane, name, tmp_path))
        else:
            packed = {"type": "MostAllocated", "resources": [{"name": "memory", "weight": 1}]}
            fit = {"name": "NodeResourcesFit", "args": {"scoringStrategy": packed}}
            profile = {"schedulerName": name, "pluginConfig": [fit]}
            plane.start_scheduler(qps=1000, burst=1000, settings={"profiles": [profile]})
        plane.api.post(REPLICA_SETS, replica_set(name))
        for number in range(GANGS):
            plane.api.post(REPLICA_SETS, gang(number))

        def settled() -> bool:
            """All are bound, no node of ours is overfilled, and it has been so for long enough."""
            for _ in range(4):
                seen = dict(pods.objects)
                found = on_nodes(seen, ours)
                full = max((count for node, count in found.items() if node), default=0)
                everybody = len(seen) == SINGLES + GANGS * GANG_SIZE
                if (
                    not everybody
                    or found[""]
                    or not all(map(node_of, seen.values()))
                    or full > UNITS_PER_NODE
                ):
                    return False
                time.sleep(VERDICT_AFTER_S / 2)
            return True

        eventually(settled, "all pods are bound, none beyond its node's room", timeout_s=TO_SETTLE_S)
        conflicts = first.metric("wholepod_gang_conflicts_total", strategy="optimistic")
        assert conflicts > 0
        gangs: dict[str, int] = defaultdict(int)
        for pod in pods.objects.values():
            gangs[pod["metadata"]["labels"]["app"]] += 1
        assert all(gangs[f"gang-{number:02}"] == GANG_SIZE for number in range(GANGS))
        first.check_cache()
