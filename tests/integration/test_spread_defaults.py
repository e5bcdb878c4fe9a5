"""Pods of a real Deployment and behind a Service are spread over zones, though none of them asks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.integration.harness import Json, Scheduler
from tests.integration.observer import Observer, node_of
from tests.integration.workbench import Workbench

NAME = "default-scheduler"
REPLICAS = 6


@pytest.fixture
def bench() -> Iterator[Workbench]:
    """With the controllers that make pods of a Deployment."""
    with (
        ControlPlane() as plane,
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
    ):
        yield Workbench(plane, pods, events)


def test_replicas_and_pods_behind_a_service_are_spread_over_zones(bench: Workbench, log: Path) -> None:
    # By resources alone the node in zone a is the best by far.
    for zone, memory, cpu in (("a", "256Gi", "64"), ("b", "8Gi", "8"), ("c", "8Gi", "8")):
        labels = {"kubernetes.io/hostname": zone, "topology.kubernetes.io/zone": zone}
        bench.node(zone, memory=memory, cpu=cpu, labels=labels)
        if zone != "a":
            bench.pod(f"load-{zone}", "2Gi", cpu="2", nodeName=zone)
    bench.api.create(service(bench.namespace, "served"))
    flags = (f"--scheduler-name={NAME}", "--leader-elect=false")
    with Scheduler(*flags, kubeconfig=bench.plane.kubeconfig, log=log) as scheduler:
        assert places(bench, "lone") == {"a": REPLICAS}
        assert places(bench, "served") == {"a": 2, "b": 2, "c": 2}
        bench.api.create(deployment(bench.namespace, "web"))
        assert wait_placed(bench, "web") == {"a": 2, "b": 2, "c": 2}
        scheduler.check_cache()


def places(bench: Workbench, app: str) -> Counter[str]:
    """Of some pods that nobody owns, one after another."""
    names = [f"{app}-{i}" for i in range(REPLICAS)]
    for name in names:
        bench.pod(name, "16Mi", cpu="10m", labels={"app": app}, scheduler_name=NAME)
    return Counter(bench.wait_bound(*names))


def wait_placed(bench: Workbench, app: str) -> Counter[str]:
    """Nodes of a Deployment's pods, when all have one."""

    def placed(pods: Mapping[str, Json]) -> Counter[str] | None:
        nodes = [node_of(pod) for pod in pods.values() if pod["metadata"].get("labels", {}).get("app") == app]
        return Counter(nodes) if len(nodes) == REPLICAS and all(nodes) else None

    return bench.pods.wait(placed, f"all pods of {app} are bound")


def service(namespace: str, app: str) -> Json:
    spec: Json = {"selector": {"app": app}, "ports": [{"port": 80}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "namespace": namespace},
        "spec": spec,
    }


def deployment(namespace: str, app: str) -> Json:
    requests = {"cpu": "10m", "memory": "16Mi"}
    container = {"name": "main", "image": "pause", "resources": {"requests": requests}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {"schedulerName": NAME, "containers": [container]},
            },
        },
    }
