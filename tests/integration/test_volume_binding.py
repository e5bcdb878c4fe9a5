"""Between a pod's decision and its bind: its volumes become ready, or fail, or everything around them does.

On a real API server, with the volume controller of kube-controller-manager and a provisioner that can be
held up, so that each test stops at the moment that it is about.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.harness import Json, Scheduler, eventually
from tests.integration.observer import bound
from tests.integration.proxy import Proxy
from tests.integration.storage import FLAGS, HOSTNAME, Provisioner, Storage, host, volume_manifest, waiting

PRE_BIND = 'running PreBind plugin "VolumeBinding": '


def test_a_pod_that_waits_holds_its_room_and_hinders_nobody(storage: Storage, shared: Scheduler) -> None:
    storage.node("node", memory="4Gi", **host("node"))
    storage.claim("data", "made")
    with Provisioner(storage, paused=True) as provisioner:
        storage.consumer("waits", "data", memory="3Gi")
        assert storage.wait_selected("data") == "node"
        # An autoscaler can read where it will be.
        expected = storage.wait_pod("waits", lambda pod: pod["status"].get("nominatedNodeName"), "nominated")
        assert expected == "node"
        storage.pod("big", "3Gi")
        assert "1 Insufficient memory" in storage.wait_unschedulable("big")
        storage.pod("small", "1Gi")
        storage.wait_bound("small")
        assert waiting(shared) == 1
        assert storage.node_of("waits") == ""
        provisioner.resume()
        storage.wait_bound("waits")
    storage.remove("small")
    storage.pod("rest", "1Gi")
    storage.wait_bound("rest")


def test_a_pod_that_is_deleted_while_it_waits_gives_its_room_back(
    storage: Storage, shared: Scheduler
) -> None:
    storage.node("node", memory="4Gi", **host("node"))
    storage.claim("data", "made")
    storage.consumer("waits", "data", memory="3Gi")
    storage.wait_selected("data")
    storage.pod("big", "3Gi")
    storage.wait_unschedulable("big")
    storage.remove("waits")
    storage.wait_bound("big")
    assert waiting(shared) == 0


def test_provisioning_that_fails_is_tried_again(storage: Storage, shared: Scheduler) -> None:
    before = shared.metric("scheduler_volume_scheduling_stage_error_total", operation="bind")
    storage.node("node", **host("node"))
    storage.claim("data", "made")
    storage.consumer("pod", "data")
    with Provisioner(storage, failures=1):
        storage.wait_bound("pod")
    event = storage.wait_event("pod", "FailedScheduling")
    assert event["note"] == PRE_BIND + 'binding volumes: provisioning failed for PVC "data"'
    assert shared.metric("scheduler_volume_scheduling_stage_error_total", operation="bind") == before + 1


def test_it_does_not_wait_for_ever(storage: Storage, log: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: wholepod.io/v1alpha1\n"
        "kind: SchedulerConfiguration\n"
        "profiles:\n"
        "- schedulerName: hasty\n"
        "  pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: 1}}]\n"
    )
    storage.node("node", **host("node"))
    storage.claim("data", "made")
    with (
        Provisioner(storage, paused=True) as provisioner,
        Scheduler(*FLAGS, f"--config={config}", kubeconfig=storage.plane.kubeconfig, log=log),
    ):
        storage.consumer("pod", "data", scheduler_name="hasty")
        event = storage.wait_event("pod", "FailedScheduling")
        assert event["note"] == PRE_BIND + "binding volumes: context deadline exceeded"
        provisioner.resume()
        storage.wait_bound("pod")


# Things break in between.


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_scheduler_ends_while_a_pod_waits(storage: Storage, log: Path, how: str) -> None:
    """The next one finds what was begun, and sends the pod nowhere else."""
    name = f"is-{how}"
    with Scheduler(
        *FLAGS, f"--scheduler-name={name}", kubeconfig=storage.plane.kubeconfig, log=log
    ) as scheduler:
        storage.node("first", **host("first"))
        storage.claim("data", "made")
        with Provisioner(storage, paused=True) as provisioner:
            storage.consumer("pod", "data", scheduler_name=name)
            assert storage.wait_selected("data") == "first"
            if how == "killed":
                scheduler.kill()
            else:
                assert scheduler.terminate() == 0
                assert scheduler.records("stopping")[0]["waiting_for_volumes"] == 1
            storage.node("better", memory="2Gi", **host("better"))
            scheduler.start()
            eventually(lambda: waiting(scheduler) == 1, "the pod is decided for again")
            provisioner.resume()
            assert storage.wait_bound("pod") == ["first"]
        storage.wait_event("pod", "Scheduled")


def test_the_scheduler_is_killed_between_two_volumes(storage: Storage, tmp_path: Path) -> None:
    """It writes so slowly that it dies with the first volume reserved and the second still free."""
    storage.node("a", **host("a"))
    for disk in ("disk-1", "disk-2"):
        storage.volume(disk, on="a")
    for claim in ("one", "two"):
        storage.claim(claim, "local")
    name, kubeconfig = "--scheduler-name=mortal", storage.plane.kubeconfig
    slowly = ("--leader-elect=false", "--kube-api-qps=0.2", "--kube-api-burst=1", name)
    with Scheduler(*slowly, kubeconfig=kubeconfig, log=tmp_path / "first.log") as first:
        storage.consumer("pod", "one", "two", scheduler_name="mortal")
        taken = storage.volumes.wait(
            lambda seen: [disk for disk, volume in seen.items() if "claimRef" in volume["spec"]],
            "one is taken",
        )
        first.kill()
    assert len(taken) == 1
    with Scheduler(*FLAGS, name, kubeconfig=kubeconfig, log=tmp_path / "second.log"):
        storage.wait_bound("pod")
    assert {storage.volume_of("one"), storage.volume_of("two")} == {"disk-1", "disk-2"}


def test_the_api_server_is_killed_while_a_pod_waits(storage: Storage, shared: Scheduler) -> None:
    storage.node("node", **host("node"))
    storage.claim("data", "made")
    with Provisioner(storage, paused=True) as provisioner:
        storage.consumer("pod", "data")
        storage.wait_selected("data")
        storage.plane.kill_apiserver()
        storage.plane.start_apiserver()
        provisioner.resume()
        storage.wait_bound("pod")
    storage.wait_event("pod", "Scheduled")
    assert {event["reason"] for event in storage.events_of("pod")} == {"Scheduled"}


def test_the_leader_falls_silent_while_a_pod_waits(storage: Storage, tmp_path: Path) -> None:
    """Its heir sends the pod to the same node; it itself has nothing more to say when it is back."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: wholepod.io/v1alpha1\n"
        "kind: SchedulerConfiguration\n"
        "leaderElection: {leaseDuration: 4s, renewDeadline: 2s, retryPeriod: 500ms}\n"
        "profiles: [{schedulerName: pair}]\n"
    )
    storage.node("first", **host("first"))
    storage.claim("data", "made")
    with ExitStack() as stack:
        pair = [
            Scheduler(f"--config={config}", kubeconfig=storage.plane.kubeconfig, log=tmp_path / f"{n}.log")
            for n in ("leader", "heir")
        ]
        leader, heir = (stack.enter_context(scheduler) for scheduler in pair)
        provisioner = stack.enter_context(Provisioner(storage, paused=True))
        storage.consumer("pod", "data", scheduler_name="pair")
        assert storage.wait_selected("data") == "first"
        eventually(lambda: waiting(leader) + waiting(heir) == 1, "one of them waits")
        if waiting(heir):
            leader, heir = heir, leader
        leader.pause()
        storage.node("better", memory="2Gi", **host("better"))
        eventually(lambda: waiting(heir) == 1, "the pod is decided for again")
        provisioner.resume()
        assert storage.wait_bound("pod") == ["first"]
        leader.resume()
        assert leader.wait() == 3
        assert storage.node_of("pod") == "first"


@pytest.mark.parametrize("of", ["local", "made"])
def test_the_answer_to_a_write_is_lost(storage: Storage, log: Path, of: str) -> None:
    """The first pod's bind takes the only token for a while, so the volume's write meets held answers."""
    storage.node("node", **host("node"))
    if of == "local":
        storage.volume("disk", on="node")
    storage.claim("data", of)
    with (
        Provisioner(storage) as _,
        Proxy(storage.plane) as proxy,
        Scheduler(
            *("--leader-elect=false", "--kube-api-qps=0.5", "--kube-api-burst=1", "--scheduler-name=deaf"),
            kubeconfig=proxy.kubeconfig(storage.plane),
            log=log,
        ) as scheduler,
    ):
        scheduler.pause()
        storage.pod("first", scheduler_name="deaf", priority=0)
        storage.consumer("second", "data", scheduler_name="deaf", priority=0)
        scheduler.resume()
        storage.wait_bound("first")
        # Its answer has come, so there is a connection that the next write can use.
        eventually(lambda: scheduler.metric("wholepod_binds_total", outcome="Bound") == 1, "it knows of that")
        assert waiting(scheduler) == 1
        proxy.hold_answers()
        if of == "local":
            storage.wait_volume("disk", lambda volume: "claimRef" in volume["spec"], "reserved, unheard of")
        else:
            storage.wait_selected("data")
        proxy.cut()
        proxy.release_answers()
        storage.wait_bound("second")
        assert scheduler.metric("wholepod_write_retries_total", kind="volumes") >= 1
    assert {event["reason"] for event in storage.events_of("second")} <= {"Scheduled"}


def more_than(count: int) -> Callable[[Mapping[str, Json]], bool]:
    """Whether more pods than that are bound."""
    return lambda pods: bound(pods.values()) > count


def test_many_pods_while_things_break(storage: Storage, log: Path) -> None:
    """As many claims as volumes, each pod as big as its share of the node: one volume or one room given away
    twice, or forgotten, and not all of them find a place."""
    nodes, each = ("a", "b", "c", "d"), 10
    disks = [f"disk-{node}-{n}" for node in nodes for n in range(each)]
    for node in nodes:
        storage.node(node, memory=f"{each}Gi", **host(node))
    storage.api.create_many(
        volume_manifest(disk, {HOSTNAME: disk.split("-")[1]}, of="local") for disk in disks
    )
    pods = [f"pod-{n:02}" for n in range(len(disks))]
    with Proxy(storage.plane) as proxy:
        scheduler = Scheduler(
            *("--leader-elect=false", "--kube-api-qps=20", "--kube-api-burst=5", "--scheduler-name=unlucky"),
            kubeconfig=proxy.kubeconfig(storage.plane),
            log=log,
        )

        def kill_api_server() -> None:
            storage.plane.kill_apiserver()
            storage.plane.start_apiserver()

        def kill_scheduler() -> None:
            scheduler.kill()
            scheduler.start()

        def lose_answers() -> None:
            proxy.hold_answers()
            time.sleep(0.3)
            proxy.cut()
            proxy.release_answers()

        faults = (proxy.cut, kill_api_server, kill_scheduler, lose_answers, kill_api_server)
        share = len(pods) // len(faults)
        at_work = 0
        with scheduler:
            for n, fault in enumerate(faults):
                before, created = n * share, (n + 1) * share
                for pod in pods[before:created]:
                    storage.claim(pod, "local")
                    storage.consumer(pod, pod, scheduler_name="unlucky")
                storage.pods.wait(more_than(before), "some are bound")
                at_work += not storage.pods.ask(more_than(created - 1))
                fault()
            taken = dict(zip(pods, storage.wait_bound(*pods), strict=True))
            scheduler.check_cache()
    assert at_work >= 3, "the faults were to hit it at work"
    volumes = {pod: storage.volume_of(pod) for pod in pods}
    assert sorted(volumes.values()) == disks
    assert all(volumes[pod].split("-")[1] == node for pod, node in taken.items())
