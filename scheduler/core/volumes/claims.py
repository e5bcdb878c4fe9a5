"""Claims and volumes: which class they are of, whether they belong together, which volume a claim stands for.

Sources: k8s.io/component-helpers/storage/volume (helpers.go, pv_helpers.go), getCSIDriverInfo
(pkg/scheduler/framework/plugins/nodevolumelimits/csi.go).
"""

from __future__ import annotations

from scheduler.api_objects import (
    ClusterObject,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from scheduler.core.objects import ClusterObjects
from scheduler.core.volumes.plan import BIND_COMPLETED
from scheduler.core.volumes.pod_volumes import ClaimUse
from scheduler.core.volumes.sources import IN_TREE, NOT_COUNTED, Attachable, attachable_volume
from scheduler.quantity import nanos

WAIT_FOR_FIRST_CONSUMER = "WaitForFirstConsumer"
READ_WRITE_ONCE_POD = "ReadWriteOncePod"
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"

Dependency = tuple[type[ClusterObject], str, str]
"""Kind, namespace, name of an object that an answer was read from, whether it is there or not."""


def class_of_claim(claim: PersistentVolumeClaim) -> str:
    """Empty for none."""
    annotated = (claim.metadata.annotations or {}).get(_CLASS_ANNOTATION)
    return annotated if annotated is not None else claim.spec.storage_class_name or ""


def class_of_volume(volume: PersistentVolume) -> str:
    """Empty for none."""
    annotated = (volume.metadata.annotations or {}).get(_CLASS_ANNOTATION)
    return annotated if annotated is not None else volume.spec.storage_class_name


def is_fully_bound(claim: PersistentVolumeClaim) -> bool:
    """Whether the volume controller is done with the claim."""
    return bool(claim.spec.volume_name) and BIND_COMPLETED in (claim.metadata.annotations or {})


def waits_for_consumer(claim: PersistentVolumeClaim, cluster: ClusterObjects) -> bool:
    """Whether a volume is only to be found once a pod that uses the claim is placed."""
    found = cluster.get(StorageClass, class_of_claim(claim))
    return found is not None and found.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER


def is_reserved_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """IsVolumeBoundToClaim: the volume's claimRef names the claim, by uid as well if it has one."""
    reference = volume.spec.claim_ref
    return (
        reference is not None
        and reference.name == claim.metadata.name
        and reference.namespace == claim.metadata.namespace
        and reference.uid in ("", claim.metadata.uid)
    )


def requested_storage(claim: PersistentVolumeClaim) -> str | None:
    """A quantity; None when the claim says nothing of size."""
    resources = claim.spec.resources
    return (resources.requests or {}).get("storage") if resources is not None else None


def requested_nanos(claim: PersistentVolumeClaim) -> int:
    """Billionths of a byte. Raises QuantityError."""
    text = requested_storage(claim)
    return nanos(text) if text is not None else 0


def attachable_of(use: ClaimUse, cluster: ClusterObjects) -> tuple[Attachable | None, tuple[Dependency, ...]]:
    """What the claim's volume, as it is or will be, is to a CSI driver; and what that was read from.

    A volume that does not exist yet counts under a name of its own.
    """
    read: list[Dependency] = [(PersistentVolumeClaim, use.namespace, use.name)]
    claim = cluster.get(PersistentVolumeClaim, use.name, use.namespace)
    if claim is None or not use.owns(claim):
        return None, tuple(read)
    if claim.spec.volume_name:
        read.append((PersistentVolume, "", claim.spec.volume_name))
        volume = cluster.get(PersistentVolume, claim.spec.volume_name)
        if volume is not None:
            return attachable_volume(volume), tuple(read)
    class_name = class_of_claim(claim)
    if not class_name:
        return None, tuple(read)
    read.append((StorageClass, "", class_name))
    storage_class = cluster.get(StorageClass, class_name)
    if storage_class is None or storage_class.provisioner in (*NOT_COUNTED, ""):
        return None, tuple(read)
    in_tree = IN_TREE.get(storage_class.provisioner)
    driver = in_tree.driver if in_tree is not None else storage_class.provisioner
    # No handle of a driver looks like this.
    handle = f"claim\n{use.namespace}/{use.name}"
    return Attachable(driver, handle, in_tree is not None), tuple(read)
