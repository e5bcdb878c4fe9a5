"""Objects beside nodes and pods that decisions read: volumes, claims, services, disruption budgets, …

They are kept as they come, by kind and name; a plugin names the kinds that it reads in
`Plugin.watches` and finds them at `NodeView.cluster`. A version per kind tells caches when to look
again. It is not bumped by updates that change nothing but the resourceVersion, and controllers that
count write their status all the time: of those the structs hold no more than rules need.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar, cast

import msgspec

from scheduler.api import ObjectMeta
from scheduler.api_objects import (
    ClusterObject,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from scheduler.core.plugin import Wake

K = TypeVar("K", bound=ClusterObject)

WAKES: Mapping[type[ClusterObject], Wake] = {
    PersistentVolume: Wake.VOLUME,
    PersistentVolumeClaim: Wake.VOLUME_CLAIM,
    StorageClass: Wake.STORAGE_CLASS,
    CSINode: Wake.CSI_NODE,
    CSIDriver: Wake.CSI_DRIVER,
    CSIStorageCapacity: Wake.STORAGE_CAPACITY,
    VolumeAttachment: Wake.VOLUME_ATTACHMENT,
}
"""What a change of an object may help with; kinds that aren't here turn no rejection around."""


class ClusterObjects:
    """By kind, namespace and name; objects without a namespace are in the namespace ""."""

    def __init__(self) -> None:
        self._kinds: dict[type[ClusterObject], dict[str, dict[str, ClusterObject]]] = {}
        self._versions: dict[type[ClusterObject], int] = {}
        self.changes = 0
        """Bumped by every change of any kind."""

    def get(self, kind: type[K], name: str, namespace: str = "") -> K | None:
        return cast("K | None", self._kinds.get(kind, {}).get(namespace, {}).get(name))

    def all(self, kind: type[K]) -> list[K]:
        """In no particular order."""
        return [cast("K", o) for group in self._kinds.get(kind, {}).values() for o in group.values()]

    def in_namespace(self, kind: type[K], namespace: str) -> Collection[K]:
        return cast("Collection[K]", self._kinds.get(kind, {}).get(namespace, {}).values())

    def version(self, *kinds: type[ClusterObject]) -> int:
        """Grows whenever an object of one of these kinds comes, changes or goes."""
        return sum(self._versions.get(kind, 0) for kind in kinds)

    def upsert(self, item: ClusterObject) -> bool:
        """Added or modified; returns whether that changes anything beyond the resourceVersion."""
        metadata, kind = item.metadata, type(item)
        group = self._kinds.setdefault(kind, {}).setdefault(metadata.namespace, {})
        old = group.get(metadata.name)
        group[metadata.name] = item
        if old is not None and _content(old, metadata) == item:
            return False
        self._bump(kind)
        return True

    def remove(self, kind: type[ClusterObject], metadata: ObjectMeta) -> bool:
        """Returns whether it was there."""
        groups = self._kinds.get(kind, {})
        group = groups.get(metadata.namespace, {})
        if group.pop(metadata.name, None) is None:
            return False
        if not group:
            del groups[metadata.namespace]
        self._bump(kind)
        return True

    def replace(self, kind: type[K], items: Iterable[K]) -> bool:
        """A complete list: what is not in it is gone. Returns whether that changes anything."""
        listed = list(items)
        names = {(item.metadata.namespace, item.metadata.name) for item in listed}
        gone = [o.metadata for o in self.all(kind) if (o.metadata.namespace, o.metadata.name) not in names]
        removed = [self.remove(kind, metadata) for metadata in gone]
        changed = [self.upsert(item) for item in listed]
        return any(removed) or any(changed)

    def _bump(self, kind: type[ClusterObject]) -> None:
        self._versions[kind] = self._versions.get(kind, 0) + 1
        self.changes += 1


def _content(old: ClusterObject, metadata: ObjectMeta) -> ClusterObject:
    """The old object with the new one's resourceVersion and generation, so that only content is compared."""
    renewed = msgspec.structs.replace(
        old.metadata, resource_version=metadata.resource_version, generation=metadata.generation
    )
    return msgspec.structs.replace(old, metadata=renewed)
