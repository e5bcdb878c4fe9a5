"""Claims, volumes and what else storage is made of, for tests, said in few words."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.api_objects import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from scheduler.core.volumes.bound import MIGRATED_PLUGINS
from scheduler.core.volumes.plan import BIND_COMPLETED
from tests.builders import PodBuilder, make_pod

ZONE = "topology.kubernetes.io/zone"
Manifest = dict[str, Any]


def claim(
    name: str,
    *,
    volume: str = "",
    size: str = "1Gi",
    version: str = "1",
    owner: str = "",
    phase: str = "",
    deleted: bool = False,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> PersistentVolumeClaim:
    """In namespace default; with a volume it is bound, without one it waits in class `wait`."""
    metadata: Manifest = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    metadata |= {"resourceVersion": version, "annotations": dict(annotations or {})}
    fields: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if volume:
        metadata["annotations"].setdefault(BIND_COMPLETED, "yes")
        fields["volumeName"] = volume
    else:
        fields["storageClassName"] = "wait"
    if owner:
        metadata["ownerReferences"] = [{"kind": "Pod", "name": "p", "uid": owner, "controller": True}]
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    manifest = {"metadata": metadata, "spec": fields | spec, "status": {"phase": phase}}
    return msgspec.convert(manifest, PersistentVolumeClaim)


def volume(
    name: str,
    *,
    size: str = "1Gi",
    zone: str = "",
    node: str = "",
    version: str = "1",
    phase: str = "Available",
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> PersistentVolume:
    """Free, of class `wait`; `zone` and `node` limit it to nodes with that label or name."""
    fields: Manifest = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "wait",
    }
    expressions = [
        {"key": key, "operator": "In", "values": [value]}
        for key, value in ((ZONE, zone), ("kubernetes.io/hostname", node))
        if value
    ]
    if expressions:
        terms = [{"matchExpressions": expressions}]
        fields["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": version, "labels": labels or {}}
    manifest = {"metadata": metadata, "spec": fields | spec, "status": {"phase": phase}}
    return msgspec.convert(manifest, PersistentVolume)


def claim_ref(name: str, uid: str = "") -> Manifest:
    """As a volume's claimRef."""
    return {"kind": "PersistentVolumeClaim", "namespace": "default", "name": name, "uid": uid}


def csi(driver: str, handle: str) -> Manifest:
    return {"csi": {"driver": driver, "volumeHandle": handle}}


def storage_class(
    name: str = "wait",
    *,
    provisioner: str = "kubernetes.io/no-provisioner",
    mode: str = "WaitForFirstConsumer",
    zones: list[str] | None = None,
) -> StorageClass:
    fields: Manifest = {"provisioner": provisioner, "volumeBindingMode": mode}
    if zones is not None:
        fields["allowedTopologies"] = [{"matchLabelExpressions": [{"key": ZONE, "values": zones}]}]
    return msgspec.convert({"metadata": {"name": name}, **fields}, StorageClass)


def csi_node(name: str, migrated: str = "", **limits: int | None) -> CSINode:
    """Drivers by name with `_` for `.`, and how many volumes they can attach; None for no limit."""
    drivers = [
        {"name": driver.replace("_", "."), **({} if count is None else {"allocatable": {"count": count}})}
        for driver, count in limits.items()
    ]
    annotations = {MIGRATED_PLUGINS: migrated} if migrated else {}
    manifest = {"metadata": {"name": name, "annotations": annotations}, "spec": {"drivers": drivers}}
    return msgspec.convert(manifest, CSINode)


def csi_driver(name: str, **spec: Any) -> CSIDriver:
    return msgspec.convert({"metadata": {"name": name}, "spec": spec}, CSIDriver)


def storage_pool(name: str, capacity: str | None, *, zone: str = "", **fields: Any) -> CSIStorageCapacity:
    """Of class `wait`, for the nodes of a zone or, without one, for all."""
    topology = {"matchLabels": {ZONE: zone}} if zone else {}
    metadata = {"name": name, "namespace": "kube-system"}
    manifest: Manifest = {"metadata": metadata, "storageClassName": "wait"}
    manifest |= {"nodeTopology": topology, "capacity": capacity, **fields}
    return msgspec.convert(manifest, CSIStorageCapacity)


def attachment(name: str, node: str, volume_name: str, attacher: str) -> VolumeAttachment:
    spec = {"nodeName": node, "attacher": attacher, "source": {"persistentVolumeName": volume_name}}
    return msgspec.convert({"metadata": {"name": name}, "spec": spec}, VolumeAttachment)


def with_claims(name: str, *claims: str, **sources: Any) -> PodBuilder:
    """A pod that uses these claims, and volumes by their source."""
    volumes: list[Manifest] = [
        {"name": f"v{i}", "persistentVolumeClaim": {"claimName": claim}} for i, claim in enumerate(claims)
    ]
    volumes += [{"name": f"s{i}", kind: source} for i, (kind, source) in enumerate(sources.items())]
    return make_pod(name).spec(volumes=volumes)
