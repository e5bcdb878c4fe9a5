"""Gangs that make room for themselves, on a real API server.

As in the tests of single preemptors no kubelet runs: a victim is terminating until a test removes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster import ControlPlane
from tests.cluster.api import pod_manifest
from tests.cluster.assets import asked_minor
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.integration.forger import Fault, Forger
from tests.integration.harness import Scheduler, eventually
from tests.integration.observer import Observer, condition
from tests.integration.test_preemption import (
    OWN,
    budget,
    condemned,
    get,
    low,
    nominated,
    own_scheduler,
    priority_classes,  # noqa: F401  (used by all tests)
    wait_condemned,
    wait_gone,
)
from tests.integration.workbench import Workbench

GANG = {"wholepod.io/gang": "g", "wholepod.io/min-count": "2"}


def members(
    bench: Workbench, *names: str, memory: str = "3Gi", strategy: str = "atomic", **more: Any
) -> None:
    """Of an urgent gang of two."""
    more = {"priorityClassName": "high", **more}
    for name in names:
        manifest = pod_manifest(name, {"memory": memory}, namespace=bench.namespace, **more)
        manifest["metadata"]["annotations"] = {**GANG, "wholepod.io/strategy": strategy}
        bench.api.create(manifest)


def nodes_with_victims(bench: Workbench, **more: Any) -> None:
    """a and b, each full with one pod that is called like it."""
    for node in ("a", "b"):
        bench.node(node)
        low(bench, f"on-{node}", node, **more)


@pytest.mark.usefixtures("true_picture")
class TestInGoodWeather:
    @pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
    def test_single_pods_leave_and_the_gang_takes_their_places(
        self, bench: Workbench, scheduler: Scheduler, strategy: str
    ) -> None:
        before = scheduler.metric("scheduler_workload_preemption_victims_sum")
        nodes_with_victims(bench)
        members(bench, "x", "y", strategy=strategy)
        for victim in ("on-a", "on-b"):
            why = condition(wait_condemned(bench, victim), "DisruptionTarget")
            assert why["message"] == "wholepod: preempting to accommodate a higher priority gang"
            event = bench.wait_event(victim, "Preempted")
            assert event["note"] == f"Preempted by gang {bench.namespace}/g on node cluster"
        assert sorted(nominated(get(bench, name)) for name in ("x", "y")) == ["a", "b"]
        bench.remove("on-a")
        bench.pod("late", "3Gi", priorityClassName="high")
        bench.wait_unschedulable("late")  # the room of the first is kept until the other's is free, too
        assert [bench.node_of(name) for name in ("x", "y")] == ["", ""]
        bench.remove("on-b")
        assert sorted(bench.wait_bound("x", "y")) == ["a", "b"]
        assert scheduler.metric("scheduler_workload_preemption_victims_sum") == before + 2

    def test_nobody_leaves_for_a_gang_that_would_not_fit(self, bench: Workbench) -> None:
        nodes_with_victims(bench)
        members(bench, "x", "y", memory="4100Mi")
        bench.wait_unschedulable("x")
        bench.barrier()
        assert condemned(bench, "on-a", "on-b") == []
        assert nominated(get(bench, "x")) == ""

    def test_nobody_leaves_when_a_member_goes_first(self, bench: Workbench) -> None:
        nodes_with_victims(bench)
        members(bench, "x")
        bench.barrier()
        assert condemned(bench, "on-a", "on-b") == []
        members(bench, "y", priorityClassName="patient")
        bench.wait_unschedulable("y")
        bench.barrier()
        assert condemned(bench, "on-a", "on-b") == []


def test_a_budget_is_respected(bench: Workbench, log: Path) -> None:
    for node in "abc":
        bench.node(node)
        low(bench, f"on-{node}", node, labels={"app": node}, terminationGracePeriodSeconds=0)
    budget(bench, "keep", 0, app="b")
    with own_scheduler(bench.plane.kubeconfig, log):
        members(bench, "x", "y", scheduler_name=OWN)
        assert sorted(bench.wait_bound("x", "y")) == ["a", "c"]
    assert condemned(bench, "on-b") == []


@pytest.mark.parametrize("grace_s", [0, 30])
def test_the_scheduler_dies_between_two_victims(bench: Workbench, log: Path, grace_s: int) -> None:
    """VICTIMS_PARTIAL: the next one goes on with what is left, and nobody else has to go."""
    nodes_with_victims(bench, terminationGracePeriodSeconds=grace_s)
    bench.node("c")
    low(bench, "on-c", "c", terminationGracePeriodSeconds=grace_s, priorityClassName="middle")
    with Forger(bench.plane) as forger, own_scheduler(forger.kubeconfig(), log) as scheduler:
        let_through, hold = Fault("DELETE .*/pods/", "hold"), Fault("DELETE .*/pods/", "hold", times=99)
        let_through.release()
        forger.faults += [let_through, hold]
        members(bench, "x", "y", scheduler_name=OWN)
        hold.wait()
        [first] = eventually(lambda: condemned(bench, "on-a", "on-b"), "the first victim is deleted")
        assert sorted(nominated(get(bench, name)) for name in ("x", "y")) == ["a", "b"]
        scheduler.kill()
    with own_scheduler(bench.plane.kubeconfig, log) as scheduler:
        [second] = {"on-a", "on-b"} - {first}
        if grace_s:
            bench.barrier(OWN)
            assert condemned(bench, "on-a", "on-b") == [first]  # it waits, and takes no other meanwhile
            bench.remove(first)
            wait_condemned(bench, second)
            bench.remove(second)
        assert sorted(bench.wait_bound("x", "y")) == ["a", "b"]
        assert condemned(bench, "on-a", "on-b", "on-c") == ["on-a", "on-b"]
        scheduler.check_cache()


@pytest.mark.skipif(asked_minor() is not None, reason="v1beta1 is served since Kubernetes 1.37")
def test_a_native_group_goes_whole(log: Path) -> None:
    with (
        ControlPlane(
            controller_manager=False,
            feature_gates=POD_GROUPS_GATES,
            runtime_config=POD_GROUPS_SERVED,
        ) as plane,
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
        Scheduler("--leader-elect=false", kubeconfig=plane.kubeconfig, log=log) as scheduler,
    ):
        bench = Workbench(plane, pods, events)
        for name, value in (("low", 0), ("high", 1000)):
            kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
            plane.api.create({**kind, "metadata": {"name": name}, "value": value})
        for node in "abc":
            bench.node(node)
        for group, priority, mode in (("victims", "low", "all"), ("g", "high", "single")):
            manifest = {
                "apiVersion": "scheduling.k8s.io/v1beta1",
                "kind": "PodGroup",
                "metadata": {"name": group, "namespace": bench.namespace},
                "spec": {
                    "schedulingPolicy": {"gang": {"minCount": 2}},
                    "disruptionMode": {mode: {}},
                    "priorityClassName": priority,
                },
            }
            plane.api.create(manifest)
        for name in ("v0", "v1", "v2"):
            group_of = {"podGroupName": "victims"}
            bench.pod(
                name,
                "3Gi",
                schedulingGroup=group_of,
                priorityClassName="low",
                terminationGracePeriodSeconds=0,
            )
        bench.wait_bound("v0", "v1", "v2")
        for name in ("x", "y"):
            bench.pod(name, "3Gi", schedulingGroup={"podGroupName": "g"}, priorityClassName="high")
        bench.wait_bound("x", "y")
        for victim in ("v0", "v1", "v2"):
            note = bench.wait_event(victim, "Preempted")["note"]
            assert note.startswith("Preempted by podgroup ")
            wait_gone(bench, victim)
        scheduler.check_cache()
