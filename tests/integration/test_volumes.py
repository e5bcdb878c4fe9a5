"""Volumes on a real API server, with the volume controller of kube-controller-manager.

A pod whose claims wait for their first consumer is decided for in one go with them, and bound only when
they are (`test_volume_binding.py` looks at what happens in between).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.integration.harness import Json, Scheduler
from tests.integration.observer import condition, node_of
from tests.integration.storage import FLAGS, HOSTNAME, VOLUMES, Provisioner, Storage, host, volume_manifest

ZONE = "topology.kubernetes.io/zone"


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


@pytest.mark.parametrize("of", ["local", "made"])
def test_pods_that_share_a_claim(storage: Storage, shared: Scheduler, of: str) -> None:
    """All of them are decided for before the claim is bound."""
    for node in ("a", "b"):
        storage.node(node, **host(node))
    if of == "local":
        storage.volume("disk-b", on="b")
    storage.claim("data", of)
    names = [f"pod-{n}" for n in range(4)]
    shared.pause()
    for name in names:
        storage.consumer(name, "data")
    shared.resume()
    with Provisioner(storage):
        taken = storage.wait_bound(*names)
    assert len(set(taken)) == 1
    for name in names:
        storage.wait_event(name, "Scheduled")
        assert {event["reason"] for event in storage.events_of(name)} == {"Scheduled"}


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


# In kube-scheduler's words.


def test_the_words_are_kube_schedulers(storage: Storage, log: Path, tmp_path: Path) -> None:
    """The real one runs beside, in the same cluster, and meets the same failures."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: wholepod.io/v1alpha1\n"
        "kind: SchedulerConfiguration\n"
        "profiles: [{schedulerName: ours, preset: kube}]\n"
    )
    cases = ("fails", "immediate", "nowhere", "missing")
    for node in ("a", "b"):
        storage.node(node, **host(node))
    storage.plane.start_scheduler()
    try:
        with (
            Provisioner(storage, failures=1000),
            Scheduler(*FLAGS, f"--config={config}", kubeconfig=storage.plane.kubeconfig, log=log),
        ):
            for scheduler in ("ours", "default-scheduler"):
                for case, of in (("fails", "made"), ("immediate", "immediate"), ("nowhere", "local")):
                    storage.claim(f"{case}-{scheduler}", of)
                for case in cases:
                    storage.consumer(f"{case}-{scheduler}", f"{case}-{scheduler}", scheduler_name=scheduler)
            for case in cases:
                assert words(storage, case, "ours") == words(storage, case, "default-scheduler"), case
    finally:
        storage.plane.programs["kube-scheduler"].stop()


def words(storage: Storage, case: str, scheduler: str) -> Json:
    """The event and condition of a pod that could not be placed, with the scheduler's name taken out."""
    pod = f"{case}-{scheduler}"
    event = storage.wait_event(pod, "FailedScheduling")
    found = storage.wait_pod(pod, lambda seen: condition(seen, "PodScheduled"), "reported on")
    said = {
        "event": [event["type"], event["reason"], event["action"], event["note"]],
        "condition": [found["status"], found["reason"], found["message"]],
    }
    text = json.dumps(said).replace(scheduler, "SCHEDULER")
    # What preemption adds comes last ("not found" when it had no node to look at).
    answer: Json = json.loads(re.sub(r' preemption: [^"]*|(?<=\.) not found', "", text))
    return answer
