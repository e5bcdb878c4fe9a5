"""Volumes on a real API server, with the volume controller of kube-controller-manager.

A pod whose claims wait for their first consumer is decided for in one go with them, and bound only when
they are. What happens in between, and to whom, is what is tested here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.integration.harness import Json, Scheduler, eventually
from tests.integration.observer import Observer, node_of
from tests.integration.proxy import Proxy
from tests.integration.storage import CLAIMS, HOSTNAME, VOLUMES, Provisioner, Storage, volume_manifest

FLAGS = ("--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000")
ZONE = "topology.kubernetes.io/zone"
PRE_BIND = 'running PreBind plugin "VolumeBinding": '


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def observers(plane: ControlPlane) -> Iterator[tuple[Observer, Observer, Observer, Observer]]:
    with (
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
        Observer(plane, CLAIMS) as claims,
        Observer(plane, VOLUMES) as volumes,
    ):
        yield pods, events, claims, volumes


@pytest.fixture
def storage(
    plane: ControlPlane, observers: tuple[Observer, Observer, Observer, Observer]
) -> Iterator[Storage]:
    storage = Storage(plane, *observers)
    yield storage
    storage.clear()


@pytest.fixture(scope="module")
def scheduler(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """One for all tests that don't harm it."""
    log = tmp_path_factory.mktemp("volumes") / "scheduler.log"
    with Scheduler(*FLAGS, kubeconfig=plane.kubeconfig, log=log) as scheduler:
        yield scheduler


@pytest.fixture
def shared(scheduler: Scheduler, storage: Storage) -> Iterator[Scheduler]:
    """The shared scheduler; at the end no pod may wait for volumes, and its picture must be true."""
    yield scheduler
    scheduler.show_log()
    eventually(lambda: waiting(scheduler) == 0, "no pod waits for volumes")
    scheduler.check_cache()


def waiting(scheduler: Scheduler) -> float:
    return scheduler.metric("wholepod_pods_waiting_for_volumes")


def host(name: str, **labels: str) -> Json:
    return {"labels": {HOSTNAME: name, **labels}}


# Where volumes are, there pods go.


def test_a_volume_that_exists_is_taken_where_it_is(storage: Storage, shared: Scheduler) -> None:
    for node in ("a", "b", "c"):
        storage.node(node, **host(node))
    storage.volume("disk-b", on="b")
    storage.claim("data", "local")
    storage.consumer("pod", "data")
    assert storage.wait_bound("pod") == ["b"]
    # The pod was not bound before its claim was.
    assert storage.volume_of("data") == "disk-b"
    annotations = storage.api.get(f"{VOLUMES}/disk-b")["metadata"]["annotations"]
    assert annotations["pv.kubernetes.io/bound-by-controller"] == "yes"
    storage.wait_event("pod", "Scheduled")
    assert {event["reason"] for event in storage.events_of("pod")} == {"Scheduled"}


def test_the_smallest_volumes_that_do_on_one_node(storage: Storage, shared: Scheduler) -> None:
    """Two claims: only node b has room for both."""
    for node in ("a", "b"):
        storage.node(node, **host(node))
    storage.volume("a-big", on="a", size="10Gi")
    for name, size in (("b-small", "1Gi"), ("b-big", "10Gi"), ("b-huge", "100Gi")):
        storage.volume(name, on="b", size=size)
    storage.claim("small", "local", size="1Gi")
    storage.claim("big", "local", size="5Gi")
    storage.consumer("pod", "big", "small")
    assert storage.wait_bound("pod") == ["b"]
    assert (storage.volume_of("small"), storage.volume_of("big")) == ("b-small", "b-big")


def test_a_volume_is_made_where_the_pod_goes(storage: Storage, shared: Scheduler) -> None:
    storage.node("small", memory="1Gi", **host("small"))
    storage.node("big", memory="8Gi", **host("big"))
    storage.claim("data", "made")
    storage.consumer("pod", "data", memory="4Gi")
    with Provisioner(storage):
        assert storage.wait_bound("pod") == ["big"]
    made = storage.volume_of("data")
    assert made.startswith("pvc-")
    assert storage.owner_of(made) == "data"


def test_a_volume_can_be_found_for_one_claim_and_made_for_another(
    storage: Storage, shared: Scheduler
) -> None:
    for node in ("a", "b"):
        storage.node(node, **host(node))
    storage.volume("disk-a", on="a")
    storage.claim("found", "local")
    storage.claim("new", "made")
    storage.consumer("pod", "found", "new")
    with Provisioner(storage):
        assert storage.wait_bound("pod") == ["a"]
    assert storage.volume_of("found") == "disk-a"
    assert storage.volume_of("new").startswith("pvc-")


def test_a_generic_ephemeral_volume(storage: Storage, shared: Scheduler) -> None:
    """Its claim is made by a controller after the pod."""
    storage.node("node", **host("node"))
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "made",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    storage.pod("pod", volumes=[{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}])
    with Provisioner(storage):
        storage.wait_bound("pod")
    assert storage.volume_of("pod-scratch").startswith("pvc-")


def test_immediate_claims_are_waited_for(storage: Storage, shared: Scheduler) -> None:
    for node in ("a", "b"):
        storage.node(node, **host(node))
    storage.claim("data", "immediate")
    storage.consumer("pod", "data")
    assert storage.wait_unschedulable("pod").startswith(
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    )
    storage.api.create(volume_manifest("disk-b", {HOSTNAME: "b"}, of="immediate"))
    assert storage.wait_bound("pod") == ["b"]


def test_a_pod_lands_in_the_zone_of_its_volume(storage: Storage, shared: Scheduler) -> None:
    for zone in ("east", "north", "west"):
        storage.node(f"node-{zone}", **host(f"node-{zone}", **{ZONE: zone}))
    for name in ("by-label", "by-affinity"):
        volume = volume_manifest(name, {ZONE: "north"}, of=name)
        if name == "by-label":
            # An old one, which says only by its label where it is.
            volume["metadata"]["labels"] = {ZONE: "north"}
            del volume["spec"]["local"], volume["spec"]["nodeAffinity"]
            volume["spec"]["hostPath"] = {"path": "/disk"}
        storage.api.create(volume)
        storage.wait_volume(name, lambda seen: seen["status"].get("phase") == "Available", "available")
        storage.claim(name, name)
        storage.wait_claim_bound(name)
        storage.consumer(f"pod-{name}", name)
        storage.consumer(f"lost-{name}", name, nodeSelector={ZONE: "west"})
    assert storage.wait_bound("pod-by-label", "pod-by-affinity") == ["node-north", "node-north"]
    selector = "2 node(s) didn't match Pod's node affinity/selector"
    for name, reason in (
        ("by-label", "1 node(s) had no available volume zone"),
        ("by-affinity", "1 node(s) didn't match PersistentVolume's node affinity"),
    ):
        assert storage.wait_unschedulable(f"lost-{name}").startswith(
            f"0/3 nodes are available: {reason}, {selector}."
        )


# Not enough for all.


def test_the_second_pod_waits_for_a_second_volume(storage: Storage, shared: Scheduler) -> None:
    for node in ("a", "b"):
        storage.node(node, **host(node))
    storage.volume("disk-a", on="a")
    for name in ("one", "two"):
        storage.claim(name, "local")
        storage.consumer(name, name)
    assert storage.wait_bound("one") == ["a"]
    assert storage.wait_unschedulable("two").startswith(
        "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    )
    storage.volume("disk-b", on="b")
    assert storage.wait_bound("two") == ["b"]


def test_many_pods_and_as_many_volumes(storage: Storage, shared: Scheduler) -> None:
    """All at once: each volume serves one claim, and each pod is where its volume is."""
    nodes, each = ("a", "b", "c", "d"), 5
    for node in nodes:
        storage.node(node, memory="16Gi", **host(node))
        for n in range(each):
            storage.volume(f"disk-{node}-{n}", on=node)
    names = [f"pod-{n:02}" for n in range(len(nodes) * each)]
    for name in names:
        storage.claim(name, "local")
    for name in names:
        storage.consumer(name, name)
    taken = [storage.volume_of(name) for name, _ in zip(names, storage.wait_bound(*names), strict=True)]
    assert len(set(taken)) == len(names)
    for name, disk in zip(names, taken, strict=True):
        assert disk.split("-")[1] == storage.node_of(name)


def test_two_schedulers_want_one_volume(storage: Storage, tmp_path: Path) -> None:
    """They decide at the same time, each for the only volume. The API server lets one of them have it."""
    storage.node("a", **host("a"))
    storage.volume("disk-a", on="a")
    schedulers = [
        Scheduler(
            *FLAGS,
            f"--scheduler-name={name}",
            kubeconfig=storage.plane.kubeconfig,
            log=tmp_path / f"{name}.log",
        )
        for name in ("left", "right")
    ]
    left, right = schedulers
    with left, right:
        for scheduler in schedulers:
            scheduler.pause()
        for name in ("left", "right"):
            storage.claim(name, "local")
            storage.consumer(name, name, scheduler_name=name)
        for scheduler in schedulers:
            scheduler.resume()
        winner = storage.pods.wait(
            lambda pods: next((p["metadata"]["name"] for p in pods.values() if node_of(p)), ""),
            "one is bound",
        )
        (loser,) = {"left", "right"} - {winner}
        assert storage.owner_of("disk-a") == storage.owner_of("disk-a") == winner
        assert "didn't find available persistent volumes to bind" in storage.wait_unschedulable(loser)
        storage.volume("second", on="a")
        storage.wait_bound(loser)
        assert (storage.volume_of(winner), storage.volume_of(loser)) == ("disk-a", "second")


def test_a_claim_for_one_pod_only(storage: Storage, shared: Scheduler) -> None:
    for node in ("a", "b"):
        storage.node(node, **host(node))
    storage.volume("disk-a", on="a", accessModes=["ReadWriteOncePod"])
    storage.claim("mine", "local", mode="ReadWriteOncePod")
    storage.consumer("first", "mine")
    assert storage.wait_bound("first") == ["a"]
    storage.consumer("second", "mine")
    assert storage.wait_unschedulable("second").startswith(
        "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod "
        "access mode already in-use by another pod."
    )
    storage.remove("first")
    assert storage.wait_bound("second") == ["a"]


# Between the decision and the bind.


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
            storage.node("better", memory="2Gi", **host("better"))
            scheduler.start()
            eventually(lambda: waiting(scheduler) == 1, "the pod is decided for again")
            provisioner.resume()
            assert storage.wait_bound("pod") == ["first"]
        storage.wait_event("pod", "Scheduled")


def test_the_scheduler_is_killed_between_volume_and_claim(storage: Storage, log: Path) -> None:
    """Volumes are written at one a second, so it dies with the first reserved and the second free."""
    slowly = ("--leader-elect=false", "--kube-api-qps=0.5", "--kube-api-burst=1", "--scheduler-name=slow")
    storage.node("a", **host("a"))
    for disk in ("disk-1", "disk-2"):
        storage.volume(disk, on="a")
    for claim in ("one", "two"):
        storage.claim(claim, "local")
    with Scheduler(*slowly, kubeconfig=storage.plane.kubeconfig, log=log) as scheduler:
        storage.consumer("pod", "one", "two", scheduler_name="slow")
        taken = storage.volumes.wait(
            lambda seen: [name for name, volume in seen.items() if "claimRef" in volume["spec"]],
            "one is taken",
        )
        scheduler.kill()
        assert len(taken) == 1
        scheduler.start()
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
