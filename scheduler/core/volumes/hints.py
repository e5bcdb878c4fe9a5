"""Which changes of storage can help a pod that waits (the QueueingHintFns of the volume plugins).

A cluster's claims, volumes and pools change all the time, and nearly always for some other pod.
"""

from __future__ import annotations

from scheduler.api_objects import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from scheduler.core.plugin import ObjectChange
from scheduler.core.pod_info import PodInfo
from scheduler.quantity import QuantityError, value


def may_help(pod: PodInfo, change: ObjectChange) -> bool:
    """Whether any rule about volumes may judge the pod otherwise after this change."""
    before, after = change
    match before or after:
        case PersistentVolumeClaim(metadata=metadata):
            used = pod.volumes.claims
            return any((use.namespace, use.name) == (metadata.namespace, metadata.name) for use in used)
        case VolumeAttachment():
            return after is None or before is not None  # a volume more makes no room
        case StorageClass() | PersistentVolume():
            return after is not None
        case CSINode():
            return _allows_more(before, after)
        case CSIStorageCapacity():
            return _limit(after) > _limit(before)
        case CSIDriver():
            return True  # rare, and some changes free pods
    return True


def _allows_more(before: object, after: object) -> bool:
    """Whether a driver appeared or has a higher limit (none is the highest), or CSI took over volumes."""
    if not isinstance(after, CSINode):
        return isinstance(before, CSINode)  # without it there are no limits
    if not isinstance(before, CSINode) or before.metadata.annotations != after.metadata.annotations:
        return True
    limits = _limits(before)
    return any(name not in limits or limits[name] < limit for name, limit in _limits(after).items()) or any(
        name not in _limits(after) for name in limits
    )


def _limits(node: CSINode) -> dict[str, float]:
    return {
        driver.name: driver.allocatable.count
        if driver.allocatable is not None and driver.allocatable.count is not None
        else float("inf")
        for driver in node.spec.drivers or ()
    }


def _limit(pool: object) -> int:
    """Bytes of the largest volume that can be made."""
    if not isinstance(pool, CSIStorageCapacity):
        return -1
    text = pool.capacity if pool.maximum_volume_size is None else pool.maximum_volume_size
    try:
        return value(text) if text is not None else -1
    except QuantityError:
        return -1
