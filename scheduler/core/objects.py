"""Objects beside nodes and pods that decisions read: volumes, claims, services, disruption budgets, …

They are kept as they come, by kind and name; a plugin names the kinds that it reads in
`Plugin.watches` and finds them at `NodeView.cluster`. A version per kind tells caches when to look
again. It is not bumped by updates that change nothing but the resourceVersion, and controllers that
count write their status all the time: of those the structs hold no more than rules need.

A decision may *assume* that an object will soon be another: a volume that is promised to a claim is gone
for all decisions after it. What is assumed lies over what the watch said until the watch says something
new of that object, or until whoever assumed it takes it back.
Model: passiveAssumeCache (pkg/scheduler/framework/plugins/volumebinding/passive_assume_cache.go).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar, cast

import msgspec

from scheduler.api import ObjectMeta
from scheduler.api_objects import (
    ClusterObject,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    ReplicaSet,
    ReplicationController,
    Service,
    StatefulSet,
    StorageClass,
    VolumeAttachment,
)
from scheduler.core.plugin import FilterPlugin, ObjectChange, Wake
from scheduler.core.pod_info import PodInfo

K = TypeVar("K", bound=ClusterObject)

WAKES: Mapping[type[ClusterObject], Wake] = {
    PersistentVolume: Wake.VOLUME,
    PersistentVolumeClaim: Wake.VOLUME_CLAIM,
    StorageClass: Wake.STORAGE_CLASS,
    CSINode: Wake.CSI_NODE,
    CSIDriver: Wake.CSI_DRIVER,
    CSIStorageCapacity: Wake.STORAGE_CAPACITY,
    VolumeAttachment: Wake.VOLUME_ATTACHMENT,
    Service: Wake.WORKLOAD,
    ReplicationController: Wake.WORKLOAD,
    ReplicaSet: Wake.WORKLOAD,
    StatefulSet: Wake.WORKLOAD,
}
"""What a change of an object may help with; kinds that aren't here turn no rejection around."""


_CHANGES_KEPT = 256


class ObjectChanges:
    """Changes of objects since some time, to ask plugins about; of a kind with many only that there were."""

    def __init__(self) -> None:
        self._kept: dict[type[ClusterObject], list[ObjectChange] | None] = {}

    def note(self, kind: type[ClusterObject], change: ObjectChange | None) -> None:
        """None: any object of the kind may have changed."""
        kept = self._kept.setdefault(kind, [])
        if kept is not None and change is not None and len(kept) < _CHANGES_KEPT:
            kept.append(change)
        else:
            self._kept[kind] = None

    def may_help(self, plugin: FilterPlugin, pod: PodInfo) -> bool:
        """Whether any of them may turn the plugin's rejection of the pod around."""
        try:
            return any(
                changes is None or any(plugin.may_help(pod, change) for change in changes)
                for kind, changes in self._kept.items()
                if WAKES.get(kind, Wake.NOTHING) & plugin.wakes_on
            )
        except Exception:  # the pod's next decision will say what it was
            return True


ObjectKey = tuple[type[ClusterObject], str, str]
"""Kind, namespace, name."""
Listener = Callable[[ClusterObject | None, ClusterObject | None], None]
"""Is told of an object before and after a change; None: it was not, or is not, there."""


class _Assumed(NamedTuple):
    item: ClusterObject
    owner: str


class ClusterObjects:
    """By kind, namespace and name; objects without a namespace are in the namespace ""."""

    def __init__(self) -> None:
        self._kinds: dict[type[ClusterObject], dict[str, dict[str, ClusterObject]]] = {}
        self._versions: dict[type[ClusterObject], int] = {}
        self._assumed: dict[ObjectKey, _Assumed] = {}
        self._listeners: dict[type[ClusterObject], list[Listener]] = {}
        self.changes = 0
        """Bumped by every change of any kind."""

    def get(self, kind: type[K], name: str, namespace: str = "") -> K | None:
        """As decisions see it: what is assumed lies over what was observed."""
        if self._assumed:
            assumed = self._assumed.get((kind, namespace, name))
            if assumed is not None:
                return cast("K", assumed.item)
        return self.observed(kind, name, namespace)

    def observed(self, kind: type[K], name: str, namespace: str = "") -> K | None:
        """As the watch has shown it last."""
        return cast("K | None", self._kinds.get(kind, {}).get(namespace, {}).get(name))

    def all(self, kind: type[K]) -> list[K]:
        """In no particular order."""
        return [o for namespace in self._kinds.get(kind, {}) for o in self.in_namespace(kind, namespace)]

    def in_namespace(self, kind: type[K], namespace: str) -> Collection[K]:
        group = cast("dict[str, K]", self._kinds.get(kind, {}).get(namespace, {}))
        if not self._assumed:
            return group.values()
        return [cast("K", self.get(kind, name, namespace)) for name in group]

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
        seen = self._unassume((kind, metadata.namespace, metadata.name)) or old
        self._changed(kind, seen, item)
        return True

    def remove(self, kind: type[ClusterObject], metadata: ObjectMeta) -> bool:
        """Returns whether it was there."""
        groups = self._kinds.get(kind, {})
        group = groups.get(metadata.namespace, {})
        old = group.pop(metadata.name, None)
        if old is None:
            return False
        if not group:
            del groups[metadata.namespace]
        seen = self._unassume((kind, metadata.namespace, metadata.name)) or old
        self._changed(kind, seen, None)
        return True

    def replace(self, kind: type[K], items: Iterable[K]) -> bool:
        """A complete list: what is not in it is gone. Returns whether that changes anything."""
        listed = list(items)
        names = {(item.metadata.namespace, item.metadata.name) for item in listed}
        gone = [o.metadata for o in self.all(kind) if (o.metadata.namespace, o.metadata.name) not in names]
        removed = [self.remove(kind, metadata) for metadata in gone]
        changed = [self.upsert(item) for item in listed]
        return any(removed) or any(changed)

    @property
    def kinds(self) -> Collection[type[ClusterObject]]:
        """Of which there are, or have been, any."""
        return self._versions.keys()

    def mirror(self, other: ClusterObjects, kind: type[ClusterObject]) -> None:
        """From now on there are the same objects of a kind as decisions see in the other; what is assumed
        there is plain here."""
        there = {(o.metadata.namespace, o.metadata.name): o for o in other.all(kind)}
        for item in self.all(kind):
            if (item.metadata.namespace, item.metadata.name) not in there:
                self.remove(kind, item.metadata)
        for (namespace, name), item in there.items():
            if self.observed(kind, name, namespace) is not item:
                self.upsert(item)

    def listen(self, kind: type[ClusterObject], listener: Listener) -> None:
        """Calls the listener at once whenever an object of the kind comes, changes or goes, or is assumed."""
        self._listeners.setdefault(kind, []).append(listener)

    def assume(self, item: ClusterObject, *, owner: str) -> None:
        """From now on the object is seen so, for `owner`'s sake; it has to be there."""
        key = (type(item), item.metadata.namespace, item.metadata.name)
        before = self.get(*_by_name(key))
        self._assumed[key] = _Assumed(item, owner)
        self._changed(key[0], before, item)

    def restore(self, owner: str) -> frozenset[type[ClusterObject]]:
        """Takes back what was assumed for this owner's sake; returns the kinds of objects concerned."""
        keys = [key for key, assumed in self._assumed.items() if assumed.owner == owner]
        for key in keys:
            self._changed(key[0], self._unassume(key), self.get(*_by_name(key)))
        return frozenset(key[0] for key in keys)

    # ---- internals

    def _unassume(self, key: ObjectKey) -> ClusterObject | None:
        assumed = self._assumed.pop(key, None)
        return assumed.item if assumed is not None else None

    def _changed(
        self, kind: type[ClusterObject], before: ClusterObject | None, after: ClusterObject | None
    ) -> None:
        self._versions[kind] = self._versions.get(kind, 0) + 1
        self.changes += 1
        for listener in self._listeners.get(kind, ()):
            listener(before, after)


def _by_name(key: ObjectKey) -> tuple[type[ClusterObject], str, str]:
    kind, namespace, name = key
    return kind, name, namespace


def _content(old: ClusterObject, metadata: ObjectMeta) -> ClusterObject:
    """The old object with the new one's resourceVersion and generation, so that only content is compared."""
    renewed = msgspec.structs.replace(
        old.metadata, resource_version=metadata.resource_version, generation=metadata.generation
    )
    return msgspec.structs.replace(old, metadata=renewed)
