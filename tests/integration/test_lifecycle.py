"""What happens to pods and nodes, and what the scheduler makes of it, on a real API server.

No kubelet runs: each test plays its part and so decides when a pod runs, ends, or is gone. That something
did *not* happen is asked behind a barrier (`Workbench.barrier`): the scheduler has then seen all
there was to see.
"""

import pytest

from tests.integration.harness import Scheduler, eventually
from tests.integration.workbench import Workbench

pytestmark = pytest.mark.usefixtures("true_picture")


# A pod waits, and changes or goes.


def test_a_pod_is_deleted_while_it_waits(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("small", memory="1Gi")
    bench.pod("big", "2Gi")
    bench.wait_unschedulable("big")
    assert scheduler.metric("scheduler_pending_pods") == 1
    bench.remove("big")
    eventually(lambda: scheduler.metric("scheduler_pending_pods") == 0, "the queue is empty")


def test_a_gated_pod_is_left_alone_until_it_is_ungated(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("node")
    bench.pod("gated", schedulingGates=[{"name": "example.com/quota"}])
    bench.barrier()
    assert bench.node_of("gated") == ""
    assert bench.events_of("gated") == []
    assert scheduler.metric("scheduler_pending_pods", queue="gated") == 1
    bench.api.patch(bench.path("gated"), {"spec": {"schedulingGates": None}})
    assert bench.wait_bound("gated") == ["node"]


def test_a_waiting_pod_that_somebody_else_binds(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("small", memory="1Gi")
    bench.pod("big", "2Gi")
    bench.wait_unschedulable("big")
    target = {"apiVersion": "v1", "kind": "Node", "name": "small"}
    bench.api.post(f"{bench.path('big')}/binding", {"metadata": {"name": "big"}, "target": target})
    eventually(lambda: scheduler.metric("scheduler_pending_pods") == 0, "the queue is empty")
    # The room is more than taken now.
    bench.pod("tiny", "1Mi")
    assert bench.wait_unschedulable("tiny") == (
        "0/1 nodes are available: 1 Insufficient memory. "
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


# The same name again.


def test_a_pod_is_created_again(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("again", "3Gi")
    bench.wait_bound("again")
    bench.remove("again")
    bench.pod("again", "4Gi")
    bench.wait_bound("again")


def test_a_bound_pod_is_created_again_unseen(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("again", "3Gi")
    bench.wait_bound("again")
    scheduler.pause()
    bench.remove("again")
    bench.pod("again", "1Gi")
    scheduler.resume()
    bench.wait_bound("again")
    # The old one's room is free, the new one's is taken.
    bench.pod("rest", "3Gi")
    bench.wait_bound("rest")


def test_a_waiting_pod_is_created_again_unseen(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("again", "5Gi")
    bench.wait_unschedulable("again")
    scheduler.pause()
    bench.remove("again")
    bench.pod("again", "1Gi")
    scheduler.resume()
    bench.wait_bound("again")


def test_pods_are_created_again_before_they_are_first_seen(bench: Workbench, scheduler: Scheduler) -> None:
    for name in ("old", "new"):
        bench.node(name, memory="64Gi", labels={"for": name})
    pods = [f"again-{n}" for n in range(20)]
    scheduler.pause()
    for version in ("old", "new"):
        for pod in pods:
            if version == "new":
                bench.remove(pod)
            bench.pod(pod, nodeSelector={"for": version})
    scheduler.resume()
    assert bench.wait_bound(*pods) == ["new"] * 20
    # What was meant for the first of a name left nothing behind.
    bench.pod("fills-it", "64Gi", nodeSelector={"for": "old"})
    bench.wait_bound("fills-it")


# Resizing.


def test_a_pod_is_resized(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("resized", "1Gi")
    bench.wait_bound("resized")
    bench.set_phase("resized", "Running")

    def resize(memory: str) -> None:
        container = {"name": "main", "resources": {"requests": {"memory": memory}}}
        bench.api.patch(
            f"{bench.path('resized')}/resize",
            {"spec": {"containers": [container]}},
            content_type="application/strategic-merge-patch+json",
        )

    def kubelet_has_done(memory: str) -> None:
        requests = {"cpu": "100m", "memory": memory}
        status = {
            "name": "main",
            "image": "pause",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "allocatedResources": requests,
            "resources": {"requests": requests},
        }
        bench.api.patch(f"{bench.path('resized')}/status", {"status": {"containerStatuses": [status]}})

    kubelet_has_done("1Gi")
    resize("3Gi")
    bench.barrier()
    # What is asked for counts at once, though nothing is allocated yet.
    bench.pod("waiting", "2Gi")
    bench.wait_unschedulable("waiting")
    kubelet_has_done("3Gi")
    resize("1Gi")
    # What the container still has counts until the kubelet has taken it away.
    bench.barrier()
    assert bench.node_of("waiting") == ""
    kubelet_has_done("1Gi")
    bench.wait_bound("waiting")


# Nodes.


def test_a_node_comes(bench: Workbench) -> None:
    bench.pod("early")
    assert bench.wait_unschedulable("early") == "no nodes available to schedule pods"
    bench.node("first")
    assert bench.wait_bound("early") == ["first"]


def test_a_node_goes_and_comes_back_with_its_pods(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("stays", "3Gi")
    bench.wait_bound("stays")
    bench.remove_node("node")
    bench.pod("waiting", "2Gi")
    bench.wait_unschedulable("waiting")
    bench.node("node", memory="4Gi")
    bench.barrier()
    assert bench.node_of("waiting") == ""
    bench.remove("stays")
    bench.wait_bound("waiting")


def test_a_node_is_cordoned(bench: Workbench) -> None:
    bench.node("node")
    bench.change_node("node", spec={"unschedulable": True})
    bench.barrier()
    bench.pod("waiting")
    bench.wait_unschedulable("waiting")
    bench.change_node("node", spec={"unschedulable": None})
    bench.wait_bound("waiting")


def test_a_node_shrinks_and_grows(bench: Workbench) -> None:
    bench.node("node", memory="4Gi", cpu="8", pods=10)
    bench.pod("first", "1Gi")
    bench.wait_bound("first")
    bench.set_allocatable("node", memory="2Gi", cpu="8", pods="10")
    bench.barrier()
    bench.pod("waiting", "2Gi")
    bench.wait_unschedulable("waiting")
    bench.set_allocatable("node", memory="3Gi", cpu="8", pods="10")
    bench.wait_bound("waiting")


# The pod's life.


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_a_finished_pod_frees_its_room_at_once(bench: Workbench, end: str) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("job", "3Gi")
    bench.wait_bound("job")
    bench.pod("waiting", "2Gi")
    bench.wait_unschedulable("waiting")
    bench.set_phase("job", "Running")
    bench.barrier()
    assert bench.node_of("waiting") == ""
    bench.set_phase("job", end)
    bench.wait_bound("waiting")
    assert bench.node_of("job") == "node"


def test_a_terminating_pod_keeps_its_room_until_it_is_gone(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("leaving", "3Gi")
    bench.wait_bound("leaving")
    bench.pod("waiting", "2Gi")
    bench.wait_unschedulable("waiting")
    bench.delete("leaving")
    bench.barrier()
    assert bench.node_of("waiting") == ""
    bench.remove("leaving")
    bench.wait_bound("waiting")


def test_pods_of_a_node_that_is_not_ready_keep_their_room(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("stuck", "3Gi")
    bench.wait_bound("stuck")
    # As the node lifecycle controller would.
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    ready = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "silent"}
    bench.api.patch("/api/v1/nodes/node/status", {"status": {"conditions": [ready]}})
    bench.change_node("node", spec={"taints": [taint]})
    bench.barrier()
    bench.pod("waiting", "2Gi", tolerations=[taint])
    assert "1 Insufficient memory" in bench.wait_unschedulable("waiting")
    bench.remove("stuck")
    bench.wait_bound("waiting")


def test_a_pod_of_unknown_phase_keeps_its_room(bench: Workbench) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("lost", "3Gi")
    bench.wait_bound("lost")
    bench.pod("waiting", "2Gi")
    bench.wait_unschedulable("waiting")
    bench.set_phase("lost", "Unknown")
    bench.barrier()
    assert bench.node_of("waiting") == ""
    bench.remove("lost")
    bench.wait_bound("waiting")


# Others' pods.


def test_other_schedulers_pods_are_left_alone_and_count(bench: Workbench, scheduler: Scheduler) -> None:
    bench.node("node", memory="4Gi")
    bench.pod("theirs", scheduler_name="someone-else")
    bench.pod("theirs-bound", "3Gi", scheduler_name="someone-else", nodeName="node")
    bench.barrier()
    assert bench.node_of("theirs") == ""
    assert bench.events_of("theirs") == []
    assert scheduler.metric("scheduler_pending_pods") == 0
    bench.pod("ours", "2Gi")
    bench.wait_unschedulable("ours")
    bench.remove("theirs-bound")
    bench.wait_bound("ours")
