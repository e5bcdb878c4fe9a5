"""Who is woken by what, and what is counted: seen from the outside, on a real API server.

A pod that fits nowhere sleeps for five minutes unless something helps it, far longer than these tests wait,
so a pod that gets in was woken. The metric of the queue's moves tells whether one was woken in vain.
"""

from typing import Any

import pytest

from tests.integration.harness import Json, Scheduler, eventually
from tests.integration.workbench import Workbench

pytestmark = pytest.mark.usefixtures("true_picture")


def woken(scheduler: Scheduler) -> float:
    """How many pods were woken by something that happened to a node or to a pod on it."""
    return scheduler.metric("scheduler_queue_incoming_pods_total", event="NodeChange")


TAINT = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}


def test_room_wakes_whom_it_helps_and_nobody_else(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("left", memory="4Gi", labels={"side": "left"})
    bench.node("right", memory="4Gi", labels={"side": "right"})
    for side in ("left", "right"):
        bench.pod(f"big-{side}", "3Gi", nodeSelector={"side": side})
        bench.pod(f"small-{side}", "512Mi", nodeSelector={"side": side})
    bench.wait_bound("big-left", "small-left", "big-right", "small-right")
    bench.pod("waiting", "2Gi", nodeSelector={"side": "left"})
    bench.wait_unschedulable("waiting")
    before = woken(scheduler)
    # Room on the wrong side, too little room on the right one, and things that are no room at all.
    bench.remove("big-right")
    bench.remove("small-left")
    bench.change_node("left", metadata={"annotations": {"note": "anything"}})
    bench.set_phase("big-left", "Running")
    bench.barrier()
    assert bench.node_of("waiting") == ""
    assert woken(scheduler) == before
    bench.remove("big-left")
    bench.wait_bound("waiting")
    assert woken(scheduler) == before + 1


@pytest.mark.parametrize(
    ("node", "pod", "irrelevant", "helpful"),
    [
        (
            {"taints": [TAINT]},
            {},
            {"metadata": {"labels": {"disk": "ssd"}}},
            {"spec": {"taints": None}},
        ),
        (
            {},
            {"nodeSelector": {"disk": "ssd"}},
            {"spec": {"taints": [TAINT]}, "metadata": {"labels": {"disk": "hdd"}}},
            {"spec": {"taints": None}, "metadata": {"labels": {"disk": "ssd"}}},
        ),
        (
            {"labels": {"disk": "ssd"}},
            {"nodeSelector": {"disk": "ssd"}, "cpu": "9"},
            {"metadata": {"labels": {"disk": "ssd", "more": "yes"}}},
            None,
        ),
    ],
    ids=["taint", "label", "allocatable"],
)
def test_a_node_that_changes_wakes_whom_it_helps(
    bench: Workbench,
    scheduler: Scheduler,
    node: dict[str, Any],
    pod: dict[str, Any],
    irrelevant: Json,
    helpful: Json | None,
) -> None:
    bench.node("node", **node)
    bench.pod("waiting", **pod)
    bench.wait_unschedulable("waiting")
    before = woken(scheduler)
    bench.change_node("node", **irrelevant)
    bench.barrier()
    assert bench.node_of("waiting") == ""
    assert woken(scheduler) == before
    if helpful is None:
        bench.set_allocatable("node", cpu="16", memory="4Gi", pods="10")
    else:
        bench.change_node("node", **helpful)
    assert bench.wait_bound("waiting") == ["node"]
    assert woken(scheduler) == before + 1


def test_obstacles_that_go_one_by_one(bench: Workbench) -> None:
    """The last one to go wakes the pod, whichever of them was named when it was tried."""
    bench.node("node", memory="4Gi", taints=[TAINT])
    bench.pod("full", "3Gi", nodeName="node")
    bench.pod("waiting", "2Gi")
    assert bench.wait_unschedulable("waiting") == (
        "0/1 nodes are available: 1 node(s) had untolerated taint(s). "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    bench.change_node("node", spec={"taints": None})
    bench.barrier()
    assert bench.node_of("waiting") == ""
    bench.remove("full")
    bench.wait_bound("waiting")


# What is counted.


def test_pods_and_their_memory_are_counted_by_phase(bench: Workbench, scheduler: Scheduler) -> None:
    gib = 2**30
    bench.node("node", memory="8Gi")
    for name, memory in {"running": "1Gi", "lost": "2Gi", "starting": "512Mi"}.items():
        bench.pod(name, memory)
        bench.wait_bound(name)
    bench.pod("waiting", "64Gi")
    bench.wait_unschedulable("waiting")
    bench.set_phase("running", "Running")
    bench.set_phase("lost", "Unknown")

    def counted() -> dict[str, tuple[float, float]]:
        return {
            phase: (
                scheduler.metric("wholepod_pods", phase=phase),
                scheduler.metric("wholepod_pod_memory_bytes", phase=phase),
            )
            for phase in ("Pending", "Running", "Unknown")
        }

    # A pod without a node is counted and holds nothing.
    expected = {"Pending": (2, gib / 2), "Running": (1, gib), "Unknown": (1, 2 * gib)}
    eventually(lambda: counted() == expected, f"the metrics are {expected}")
    assert scheduler.metric("wholepod_node_memory_bytes", state="allocatable") == 8 * gib
    assert scheduler.metric("wholepod_node_memory_bytes", state="requested") == 3.5 * gib
    assert scheduler.metric("scheduler_cache_size", type="nodes") == 1
    assert scheduler.metric("scheduler_cache_size", type="pods") == 3
    assert scheduler.metric("scheduler_unschedulable_pods", plugin="NodeResourcesFit") == 1
