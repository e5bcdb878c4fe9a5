"""A cluster on which something happens: pods that fit, pods that don't, preemption, gangs of each strategy.

Nodes are objects alone, since only what the scheduler says about them is looked at.
"""

from __future__ import annotations

import time

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.controlling import GROUPS, LABEL
from tests.integration.harness import Json, Scheduler, eventually

NODES = 8
URGENT = "urgent"
STRATEGIES = ("atomic", "hoarding", "optimistic")
WAVES = 8
WAVE_S = 5.0
FULL_AT = 3
"""The wave in which the cluster becomes full."""
APART_S = 0.7
"""How long a gang's last member is behind the others."""
PODS = "/api/v1/namespaces/default/pods"


def gang(name: str, members: int, memory: str, strategy: str, *, min_count: int | None = None) -> list[Json]:
    """`min_count`: more than there are members, to leave it incomplete."""
    manifests = []
    for i in range(members):
        manifest = pod_manifest(f"{name}-{i}", {"memory": memory, "cpu": "100m"})
        manifest["metadata"]["annotations"] = {
            "wholepod.io/gang": name,
            "wholepod.io/min-count": str(min_count or members),
            "wholepod.io/strategy": strategy,
            "wholepod.io/hold-timeout": "4s",
        }
        manifests.append(manifest)
    return manifests


def single(name: str, memory: str) -> Json:
    return pod_manifest(name, {"memory": memory, "cpu": "50m"})


def play(plane: ControlPlane, scheduler: Scheduler) -> None:
    """About half a minute: it gets full, and then urgent pods come."""
    api = plane.api
    api.create(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": URGENT},
            "value": 1000,
        }
    )
    api.create_many(
        node_manifest(f"node-{n}", cpu="16", memory="16Gi" if n % 2 else "10Gi") for n in range(NODES)
    )
    api.create(single("too-large", "1Ti"))
    api.post(
        f"{GROUPS}/namespaces/default/podgroups",
        {
            "apiVersion": "scheduling.x-k8s.io/v1alpha1",
            "kind": "PodGroup",
            "metadata": {"name": "grouped"},
            "spec": {"minMember": 2},
        },
    )
    for i in range(2):
        member = single(f"grouped-{i}", "128Mi")
        member["metadata"]["labels"] = {LABEL: "grouped"}
        api.create(member)
    api.create_many(gang("wide", NODES // 2 + 1, "12Gi", "atomic"))  # one node too few is large enough
    for wave in range(WAVES):
        start = time.monotonic()
        api.create_many(single(f"single-{wave}-{i}", f"{512 + 256 * (i % 3)}Mi") for i in range(12))
        for strategy in STRATEGIES:
            # Never complete: one holds, one claims, one just waits.
            api.create_many(gang(f"{strategy}-late-{wave}", 1, "256Mi", strategy, min_count=2))
        gangs = [gang(f"{strategy}-{wave}", 3, "600Mi", strategy) for strategy in STRATEGIES]
        api.create_many(member for members in gangs for member in members[:2])
        time.sleep(APART_S)
        if wave == FULL_AT:
            # They take what optimistic gangs have claimed, too.
            api.create_many(single(f"filler-{i}", "3Gi") for i in range(3 * NODES))
            time.sleep(APART_S)
        api.create_many(members[2] for members in gangs)
        if wave > FULL_AT:
            urgent = [single(f"urgent-{wave}-{i}", "2Gi") for i in range(2)]
            urgent += gang(f"urgent-gang-{wave}", 2, "2Gi", "atomic")
            for manifest in urgent:
                manifest["spec"]["priorityClassName"] = URGENT
            api.create_many(urgent)
        _act_as_kubelets(plane)
        time.sleep(max(0.0, WAVE_S - (time.monotonic() - start)))
    eventually(
        lambda: scheduler.metric("wholepod_victims_total", outcome="Deleted") > 0, "pods are preempted"
    )


def _act_as_kubelets(plane: ControlPlane) -> None:
    """Pods that are bound run, and those that are to go are gone."""
    for item in plane.api.items(PODS):
        path = f"{PODS}/{item['metadata']['name']}"
        if item["metadata"].get("deletionTimestamp"):
            plane.api.delete(path, gracePeriodSeconds="0")
        elif item["spec"].get("nodeName") and item["status"].get("phase") == "Pending":
            plane.api.patch(f"{path}/status", {"status": {"phase": "Running"}})
