"""A cluster on which something happens: pods that fit, pods that don't, preemption, gangs of each strategy.

Nodes are objects alone, since only what the scheduler says about them is looked at.
"""

from __future__ import annotations

import time

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.harness import Json, Scheduler, eventually

NODES = 8
PRIORITIES = {"urgent": 1000}
WAVES = 6
WAVE_S = 5.0
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


def play(plane: ControlPlane, scheduler: Scheduler) -> None:
    """About half a minute of ordinary life, and some trouble."""
    api = plane.api
    for name, value in PRIORITIES.items():
        api.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            }
        )
    api.create_many(
        node_manifest(f"node-{n}", cpu="16", memory="16Gi" if n % 2 else "10Gi") for n in range(NODES)
    )
    api.create(pod_manifest("too-large", {"memory": "1Ti"}))
    for wave in range(WAVES):
        start = time.monotonic()
        singles = [
            pod_manifest(f"single-{wave}-{i}", {"memory": f"{512 + 256 * (i % 3)}Mi", "cpu": "50m"})
            for i in range(12)
        ]
        api.create_many(singles)
        for strategy in ("atomic", "hoarding", "optimistic"):
            members = gang(f"{strategy}-{wave}", 3, "600Mi", strategy)
            api.create_many(members[:2])
            if wave % 2:
                time.sleep(0.5)
            api.create_many(members[2:])
            # Never complete: it holds, claims, or just waits.
            api.create_many(gang(f"{strategy}-late-{wave}", 1, "256Mi", strategy, min_count=2))
        if wave == WAVES // 2:
            api.create_many(
                pod_manifest(f"filler-{i}", {"memory": "3Gi", "cpu": "50m"}) for i in range(2 * NODES)
            )
            api.create_many(gang("no-room", 4, "9Gi", "atomic"))
        if wave > WAVES // 2:
            api.create_many(
                pod_manifest(
                    f"urgent-{wave}-{i}", {"memory": "2Gi", "cpu": "50m"}, priorityClassName="urgent"
                )
                for i in range(2)
            )
            members = gang(f"urgent-gang-{wave}", 2, "2Gi", "atomic")
            for member in members:
                member["spec"]["priorityClassName"] = "urgent"
            api.create_many(members)
        for item in api.items(PODS):
            # As kubelets do: those that are bound run, and those that are to go are gone.
            path = f"{PODS}/{item['metadata']['name']}"
            if item["metadata"].get("deletionTimestamp"):
                api.delete(path, gracePeriodSeconds="0")
            elif item["spec"].get("nodeName") and item["status"].get("phase") == "Pending":
                api.patch(f"{path}/status", {"status": {"phase": "Running"}})
        time.sleep(max(0.0, WAVE_S - (time.monotonic() - start)))
    eventually(
        lambda: scheduler.metric("wholepod_victims_total", outcome="Deleted") > 0, "pods are preempted"
    )
