"""What the random cases were about, as far as it is storage; see `tests.parity.coverage`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

PLUGINS = ("VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone")
_REFUSALS = {
    "claim not found": "persistentvolumeclaim",
    "claim not bound in time": "pod has unbound immediate",
    "claim of an ephemeral volume missing": "waiting for ephemeral volume controller",
    "claim of another pod": "was not created for pod",
    "volume not found": 'persistentvolume "',
    "claim lost": "bound to non-existent persistentvolume",
    "claim being deleted": "is being deleted",
}
_NAMING = ("looking up PVC", "was not created for pod", "CSI driver is not installed on the node")
_COMMON, _RARE = 0.02, 0.0005
FLOORS = {
    **{f"{plugin} rejects": _COMMON for plugin in PLUGINS},
    "VolumeBinding scores vary": 0.05,
    **{f"refused: {name}": _RARE for name in _REFUSALS},
    **{
        f"reason: {text}": _COMMON
        for text in (
            "node(s) didn't find available persistent volumes to bind",
            "node(s) didn't match PersistentVolume's node affinity",
            "node(s) did not have enough free storage",
            "node(s) exceed max volume count",
            "node(s) had no available volume zone",
            "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already "
            "in-use by another pod",
        )
    },
    "reason: node(s) had no available disk": 0.003,
    "reason: node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)": _RARE,
    f"reason: …{_NAMING[2]}…": 0.005,
    **dict.fromkeys(("claims of several kinds", "old sources", "volumes of both kinds of plan"), _RARE),
    "reserved volumes": 0.005,
    **dict.fromkeys(("attachments", "ephemeral volumes", "storage pools"), _COMMON),
}
_OLD = ("awsElasticBlockStore", "gcePersistentDisk", "azureDisk", "cinder", "portworxVolume")


def of_volumes(document: Json, verdict: Json) -> set[str]:
    """What a cluster exercised of storage."""
    return {name for name, holds in _of(document, verdict) if holds}


def kind(reason: str) -> str:
    """A reason without names."""
    for part in _NAMING:
        if part in reason:
            return f"…{part}…"
    return reason


def _of(document: Json, verdict: Json) -> Iterator[tuple[str, bool]]:
    volumes = document["pod"]["spec"].get("volumes", [])
    if not volumes:
        return
    plugins = verdict["plugins"]
    refusals = [text for name in PLUGINS for text in plugins[name].get("preFilter", {}).get("reasons", ())]
    for name, part in _REFUSALS.items():
        yield f"refused: {name}", any(part in text for text in refusals)
    objects = document["objects"]
    kinds = {item["kind"] for item in objects}
    claims = [item for item in objects if item["kind"] == "PersistentVolumeClaim"]
    classes = {claim["spec"].get("storageClassName") for claim in claims}
    yield "claims of several kinds", len(volumes) > 1 and len(classes) > 1
    yield "ephemeral volumes", any("ephemeral" in volume for volume in volumes)
    yield "old sources", any(source in volume for volume in volumes for source in _OLD)
    yield "attachments", "VolumeAttachment" in kinds
    yield "storage pools", "CSIStorageCapacity" in kinds and "pools" in classes
    names = {claim["metadata"]["name"] for claim in claims if "volumeName" not in claim["spec"]}
    references = [item["spec"].get("claimRef", {}) for item in objects if item["kind"] == "PersistentVolume"]
    yield "reserved volumes", any(reference.get("name") in names for reference in references)
    yield "volumes of both kinds of plan", len(volumes) > 1 and {"static", "pools"} <= classes
