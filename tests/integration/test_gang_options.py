"""Caps of a profile, transaction mode `incremental` and `minResources`, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import ControlPlane
from tests.cluster.api import pod_manifest
from tests.integration.harness import REPOSITORY, Json, Scheduler
from tests.integration.observer import Observer, condition
from tests.integration.workbench import Workbench

CONFIGURATION = {
    "apiVersion": "wholepod.io/v1alpha1",
    "kind": "SchedulerConfiguration",
    "profiles": [
        {"schedulerName": "wholepod", "gangs": {"maxHeldFraction": {"namespace": 0.5}}},
        {"schedulerName": "careful", "gangs": {"strategies": ["atomic"]}},
    ],
}


@pytest.fixture(scope="module")
def scheduler(shared_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    folder = tmp_path_factory.mktemp("options")
    configuration = folder / "wholepod.yaml"
    configuration.write_text(yaml.safe_dump(CONFIGURATION))
    flags = (f"--config={configuration}", "--leader-elect=false")
    with Scheduler(*flags, kubeconfig=shared_plane.kubeconfig, log=folder / "scheduler.log") as scheduler:
        yield scheduler


def member(bench: Workbench, name: str, *, scheduler_name: str = "wholepod", **options: str) -> None:
    """Of 1 GiB."""
    manifest = pod_manifest(name, {"memory": "1Gi"}, namespace=bench.namespace, scheduler_name=scheduler_name)
    annotations = {"gang": "g", **{key.replace("_", "-"): value for key, value in options.items()}}
    manifest["metadata"]["annotations"] = {f"wholepod.io/{key}": value for key, value in annotations.items()}
    bench.api.create(manifest)


def waits(pod: Json) -> str:
    """Why, if it says that it waits for its gang."""
    scheduled = condition(pod, "PodScheduled")
    return scheduled["message"] if scheduled.get("reason") == "WaitingForGang" else ""


def has_a_place(pod: Json) -> bool:
    return waits(pod).startswith("has a place on node ")


@pytest.mark.usefixtures("scheduler", "true_picture")
def test_a_strategy_over_the_cap_is_told_what_is_allowed(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    member(bench, "a", scheduler_name="careful", strategy="hoarding", min_count="1")
    why = bench.wait_pod("a", waits, "waiting")
    assert why.startswith("annotation wholepod.io/strategy: hoarding is none of the strategies (atomic) that")
    assert bench.wait_event("a", "WaitingForGang")["note"] == why
    assert bench.node_of("a") == ""


@pytest.mark.usefixtures("scheduler", "true_picture")
def test_no_more_than_its_share_is_held_and_a_complete_gang_is_bound_all_the_same(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    options = {"strategy": "hoarding", "min_count": "4"}
    for name in ("a", "b"):
        member(bench, name, **options)
        bench.wait_pod(name, has_a_place, "held")
    member(bench, "c", **options)
    why = bench.wait_pod("c", waits, "waiting")
    assert "gangs.maxHeldFraction.namespace of profile wholepod allows (0.5 of the cluster's 4096Mi)" in why
    assert bench.wait_event("c", "WaitingForGang")["note"] == why
    bench.pod("single", "2Gi")
    assert bench.wait_bound("single") == ["node"]  # what may not be held is there for others
    bench.remove("single")
    member(bench, "d", **options)
    assert bench.wait_bound("a", "b", "c", "d") == ["node"] * 4


@pytest.mark.usefixtures("scheduler", "true_picture")
def test_incremental_holds_what_a_conflict_is_not_about(bench: Workbench) -> None:
    for number in range(3):
        bench.node(f"n{number}", memory="1Gi")
    bench.node("elsewhere", memory="4Gi", taints=[{"key": "other", "effect": "NoSchedule"}])
    options = {"strategy": "optimistic", "transaction": "incremental", "min_count": "3", "hold_timeout": "5m"}
    for name in ("a", "b"):
        member(bench, name, **options)
        bench.wait_pod(name, has_a_place, "claimed")
    claimed = bench.wait_pod("a", waits, "claimed").removeprefix("has a place on node ").split()[0]
    bench.pod("theirs", nodeName=claimed)
    bench.barrier()
    member(bench, "c", **options)
    bench.wait_pod("c", lambda pod: condition(pod, "PodScheduled").get("reason"), "tried")
    bench.pod("single")
    bench.wait_unschedulable("single")  # two nodes have room that is held
    assert [bench.node_of(name) for name in ("a", "b", "c")] == ["", "", ""]
    bench.remove("single")
    bench.node("more", memory="1Gi")
    nodes = bench.wait_bound("a", "b", "c")
    assert len(set(nodes)) == 3
    assert claimed not in nodes


def test_min_resources_are_waited_for(log: Path) -> None:
    crd = REPOSITORY / "deploy" / "crd-podgroups.yaml"
    with (
        ControlPlane(controller_manager=False) as plane,
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
    ):
        plane.kubectl("create", "-f", str(crd))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(crd))
        with Scheduler("--leader-elect=false", kubeconfig=plane.kubeconfig, log=log):
            bench = Workbench(plane, pods, events)
            bench.node("small", memory="2Gi")
            group = {
                "apiVersion": "scheduling.x-k8s.io/v1alpha1",
                "kind": "PodGroup",
                "metadata": {"name": "g", "namespace": bench.namespace},
                "spec": {"minMember": 2, "minResources": {"memory": "3Gi", "cpu": 1}},
            }
            manifest = log.with_name("group.yaml")
            manifest.write_text(yaml.safe_dump(group))
            plane.kubectl("create", "-f", str(manifest))
            for name in ("a", "b"):
                bench.api.create(
                    pod_manifest(
                        name,
                        {"memory": "1Gi"},
                        namespace=bench.namespace,
                        labels={"scheduling.x-k8s.io/pod-group": "g"},
                    )
                )
            assert bench.wait_unschedulable("a") == (
                f"gang {bench.namespace}/g is not tried before the cluster has room for what minResources "
                "and minMember of its PodGroup ask for: 3072Mi memory (2048Mi to be had)"
            )
            bench.node("more", memory="1Gi")
            assert len(bench.wait_bound("a", "b")) == 2
