"""The entries of docs/differences.md, shown with kube-scheduler's own plugins where these can show them.

A difference that goes away fails here as well, so that the page stays true.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.parity.decide import decide
from tests.parity.judge import compare
from tests.parity.oracle_process import Oracle, OracleError

Json = dict[str, Any]
MIB = 1 << 20
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
REQUESTS = {"cpu": "100m", "memory": "100Mi"}


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as running:
        yield running


def node(name: str, *, labels: Json | None = None, memory: str = "8Gi", **status: Any) -> Json:
    allocatable = {"cpu": "4", "memory": memory, "pods": "110"}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "status": {"allocatable": allocatable, **status},
    }


def pod(name: str, **spec: Any) -> Json:
    container = {"name": "c", "image": "app:v1", "resources": {"requests": REQUESTS}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def cluster(*nodes: Json, pod: Json, pods: tuple[Json, ...] = (), objects: tuple[Json, ...] = ()) -> Json:
    return {"nodes": list(nodes), "pods": list(pods), "pod": pod, "objects": list(objects)}


WAITING: Json = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "static"},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}
CLAIM: Json = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data", "namespace": "default"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "static",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}
VOLUME: Json = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "disk"},
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "static",
        "hostPath": {"path": "/disk"},
    },
    "status": {"phase": "Available"},
}
AZURE: Json = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "CSINode",
    "metadata": {"name": "a"},
    "spec": {"drivers": [{"name": "disk.csi.azure.com", "nodeID": "a", "allocatable": {"count": 3}}]},
}


def claims(*names: str) -> list[Json]:
    return [{"name": name, "persistentVolumeClaim": {"claimName": "data"}} for name in names]


def test_all_nodes_are_looked_at() -> None:
    """With so many nodes kube-scheduler stops after about half of them, unless it is told not to."""
    fuller = [node(f"n{i:03}") for i in range(400)]
    for best in (0, 200, 399):
        nodes = [node(n["metadata"]["name"], memory="64Gi") if i == best else n for i, n in enumerate(fuller)]
        assert decide(cluster(*nodes, pod=pod("p")))["selected"] == f"n{best:03}"


def test_all_nodes_are_candidates_of_a_preemption() -> None:
    """kube-scheduler would be content with 100 of these."""
    nodes = [node(f"n{i:03}", memory="150Mi") for i in range(300)]
    for cheapest in (0, 150, 299):
        victims = [
            pod(f"on-n{i:03}", nodeName=f"n{i:03}", priority=1 if i == cheapest else 2) for i in range(300)
        ]
        verdict = decide(cluster(*nodes, pods=tuple(victims), pod=pod("p", priority=10)))
        assert verdict["nominate"] == f"n{cheapest:03}"


def test_ties_are_broken_the_same_way_everywhere(oracle: Oracle) -> None:
    """kube-scheduler draws one of the best; here the fuller comes first, then a hash of pod and node."""
    document = cluster(*(node(f"n{i}") for i in range(10)), pod=pod("p"))
    kube = oracle.ask(document)
    assert len(kube["best"]) == 10
    verdicts = [decide(document, shuffle=Random(seed)) for seed in range(10)]
    assert [compare(kube, verdict) for verdict in verdicts] == [[]] * 10
    assert len({verdict["selected"] for verdict in verdicts}) == 1
    others = [pod(f"p{i}") | {"metadata": {"name": f"p{i}", "uid": f"uid-of-p{i}"}} for i in range(30)]
    assert len({decide({**document, "pod": other})["selected"] for other in others}) > 3


def test_a_preference_that_can_not_be_read_prefers_nothing(oracle: Oracle) -> None:
    terms = [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["two"]}]}}
    ]
    document = cluster(
        node("a", labels={"n": "5"}), pod=pod("p", affinity={"nodeAffinity": {PREFERRED: terms}})
    )
    with pytest.raises(OracleError, match="the value must be an integer"):
        oracle.ask(document)
    assert decide(document)["selected"] == "a"


def test_images_have_the_size_that_the_node_reports() -> None:
    """(The oracle's snapshots take sizes from nodes, too; kube-scheduler's cache does not.)"""
    sizes = {"a": 900, "b": 300}
    nodes = [
        node(name, images=[{"names": ["app:v1"], "sizeBytes": mib * MIB}]) for name, mib in sizes.items()
    ]
    raw = decide(cluster(*nodes, pod=pod("p")))["plugins"]["ImageLocality"]["raw"]
    assert raw["a"] > raw["b"] > 0


def test_a_volume_that_no_driver_can_be_named_for_counts_for_none(oracle: Oracle) -> None:
    source = {"diskName": "d", "diskURI": "https://example.com/d", "kind": "Dedicated"}
    document = cluster(
        node("a"),
        pods=(pod("there", nodeName="a", volumes=[{"name": "v", "azureDisk": source}]),),
        objects=(CLAIM, VOLUME, WAITING, AZURE),
        pod=pod("p", volumes=claims("v")),
    )
    kube = oracle.ask(document)
    assert (kube["fit"]["a"]["code"], kube["fit"]["a"]["plugin"]) == ("Error", "NodeVolumeLimits")
    assert decide(document)["selected"] == "a"


def test_a_claim_that_is_mounted_twice_needs_one_volume(oracle: Oracle) -> None:
    document = cluster(node("a"), objects=(CLAIM, VOLUME, WAITING), pod=pod("p", volumes=claims("v", "w")))
    assert "didn't find available persistent volumes to bind" in oracle.ask(document)["fitError"]
    assert decide(document)["selected"] == "a"


def test_resource_claims_wait() -> None:
    claim = [{"name": "gpu", "resourceClaimName": "gpu"}]
    verdict = decide(cluster(node("a"), pod=pod("p", resourceClaims=claim)))
    assert verdict["fitError"] == "0/1 nodes are available: Wholepod does not support resource claims yet."
