"""Volumes on nodes: which are attached where, and which claims and disks the pods there use.

A driver can attach so many volumes to a node, and a volume that two pods share counts once. So volumes
are counted by what they are to the driver, which follows from claims, volumes and classes; when one of
these changes, those that were read from it are read again, and nothing else. Counts live by node name,
since rows move; the columns that decisions ask for are kept in step with them.
Sources: plugins/nodevolumelimits/csi.go, plugins/volumerestrictions, PVCRefCounts (framework/types.go).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import (
    ClusterObject,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from scheduler.core.by_node import bump
from scheduler.core.objects import ClusterObjects
from scheduler.core.volumes.claims import Dependency, attachable_of
from scheduler.core.volumes.pod_volumes import ClaimUse, DiskKey, PodVolumes
from scheduler.core.volumes.sources import Attachable, attachable_volume

Volume = tuple[str, str]
"""(driver, handle)."""
_POD, _ATTACHMENT = 0, 1
_NOWHERE: Mapping[str, int] = {}


class _Holder:
    """A claim that pods on nodes use, or a VolumeAttachment: it holds a volume on these nodes."""

    __slots__ = ("by_node", "read", "volume")

    def __init__(self) -> None:
        self.by_node: dict[str, int] = {}
        self.volume: Volume | None = None
        self.read: tuple[Dependency, ...] = ()


_Key = ClaimUse | str
"""Of a holder: the claim's use, or the name of a VolumeAttachment."""


class AttachedVolumes:
    """`row_of` is the node table's own map from node names to rows; pods on other nodes don't count."""

    def __init__(self, row_of: Mapping[str, int], capacity: int, cluster: ClusterObjects) -> None:
        self._row_of, self._capacity, self._cluster = row_of, capacity, cluster
        self._users: Counter[tuple[str, str]] = Counter()
        self._disks: dict[tuple[DiskKey, bool], dict[str, int]] = {}
        self._holders: dict[_Key, _Holder] = {}
        self._readers: dict[Dependency, dict[_Key, None]] = {}
        self._stale: dict[_Key, None] = {}
        """Holders whose volume has to be looked up (again)."""
        self._on_node: dict[str, dict[Volume, list[int]]] = {}
        """Node → volume → [uses by pods, by attachments]."""
        self._with_pods: dict[Volume, dict[str, int]] = {}
        """Volume → node → uses by pods."""
        self._columns: dict[str, NDArray[np.int64]] = {}
        """Driver → volumes on each node."""
        for kind in (PersistentVolumeClaim, PersistentVolume, StorageClass):
            cluster.listen(kind, self._object_changed)
        cluster.listen(VolumeAttachment, self._attachment_changed)

    # ---- what the node table does

    def columns(self) -> Iterator[NDArray[np.int64]]:
        """All that is kept per row."""
        yield from self._columns.values()

    def grow(self, capacity: int) -> None:
        """Rows up to `capacity` exist from now on; columns are made again when they are asked for."""
        self._capacity = capacity
        self._columns.clear()

    def add_node(self, name: str, row: int) -> None:
        """A node is there, without pods: what is attached to it counts."""
        for driver, _ in self._on_node.get(name, ()):
            column = self._columns.get(driver)
            if column is not None:
                column[row] += 1

    def add(self, node: str, volumes: PodVolumes, sign: int = 1) -> None:
        """A pod with these volumes is on the node (`sign` -1: no longer)."""
        for claim in volumes.claims:
            if not claim.owner:
                used = claim.namespace, claim.name
                self._users[used] += sign
                if not self._users[used]:
                    del self._users[used]
            self._hold(claim, node, sign)
        for disk in volumes.disks:
            for key in disk.keys:
                by_node = self._disks.setdefault((key, disk.read_only), {})
                if not bump(by_node, node, sign) and not by_node:
                    del self._disks[key, disk.read_only]
        for attachable in volumes.attached:
            self._count(attachable[:2], node, _POD, sign)

    # ---- questions

    def users(self, claim: ClaimUse) -> int:
        """Pods on nodes that name the claim, each as often as it does."""
        return self._users[claim.namespace, claim.name]

    def disk_users(self, key: DiskKey, *, read_only: bool) -> Mapping[str, int]:
        """Node → uses of the disk by pods that only read it, or by the others."""
        return self._disks.get((key, read_only), _NOWHERE)

    def count(self, driver: str) -> NDArray[np.int64]:
        """int64[rows and more]: volumes of the driver on each node, of pods or just attached."""
        self._settle()
        column = self._columns.get(driver)
        if column is None:
            column = self._columns[driver] = np.zeros(self._capacity, np.int64)
            for node, volumes in self._on_node.items():
                row = self._row_of.get(node)
                if row is not None:
                    column[row] = sum(volume[0] == driver for volume in volumes)
        return column

    def nodes_with_pods(self, volume: Volume) -> Mapping[str, int]:
        """Nodes with a pod that uses the volume."""
        self._settle()
        return self._with_pods.get(volume, _NOWHERE)

    # ---- internals

    def _hold(self, key: _Key, node: str, sign: int) -> None:
        holder = self._holders.get(key)
        if holder is None:
            holder = self._holders[key] = _Holder()
            self._stale[key] = None
        left = bump(holder.by_node, node, sign)
        if holder.volume is not None:
            self._count(holder.volume, node, _slot(key), sign)
        if not left and not holder.by_node:
            self._unread(key, holder)
            del self._holders[key]
            self._stale.pop(key, None)

    def _count(self, volume: Volume, node: str, slot: int, amount: int) -> None:
        volumes = self._on_node.setdefault(node, {})
        uses = volumes.setdefault(volume, [0, 0])
        before = any(uses)
        uses[slot] += amount
        if slot == _POD:
            with_pods = self._with_pods.setdefault(volume, {})
            if not bump(with_pods, node, amount) and not with_pods:
                del self._with_pods[volume]
        after = any(uses)
        if before != after:
            column, row = self._columns.get(volume[0]), self._row_of.get(node)
            if column is not None and row is not None:
                column[row] += 1 if after else -1
        if not after:
            del volumes[volume]
            if not volumes:
                del self._on_node[node]

    def _settle(self) -> None:
        """Looks up the volumes of holders that are new, or whose objects have changed."""
        while self._stale:
            key, _ = self._stale.popitem()
            holder = self._holders[key]
            found, read = self._look_up(key)
            volume = found[:2] if found is not None else None
            if volume != holder.volume:
                for node, uses in holder.by_node.items():
                    if holder.volume is not None:
                        self._count(holder.volume, node, _slot(key), -uses)
                    if volume is not None:
                        self._count(volume, node, _slot(key), uses)
                holder.volume = volume
            self._unread(key, holder)
            holder.read = read
            for dependency in read:
                self._readers.setdefault(dependency, {})[key] = None

    def _look_up(self, key: _Key) -> tuple[Attachable | None, tuple[Dependency, ...]]:
        if isinstance(key, ClaimUse):
            return attachable_of(key, self._cluster)
        attachment = self._cluster.get(VolumeAttachment, key)
        if attachment is None:
            return None, ()
        name = attachment.spec.source.persistent_volume_name or ""
        read: tuple[Dependency, ...] = ((PersistentVolume, "", name),)
        volume = self._cluster.get(PersistentVolume, name)
        found = attachable_volume(volume) if volume is not None and volume.spec.csi is not None else None
        if found is None or not attachment.spec.attacher:
            return None, read
        return Attachable(attachment.spec.attacher, found.handle), read

    def _unread(self, key: _Key, holder: _Holder) -> None:
        for dependency in holder.read:
            readers = self._readers[dependency]
            readers.pop(key, None)
            if not readers:
                del self._readers[dependency]
        holder.read = ()

    def _object_changed(self, before: ClusterObject | None, after: ClusterObject | None) -> None:
        item = after or before
        if item is not None:
            metadata = item.metadata
            self._stale |= self._readers.get((type(item), metadata.namespace, metadata.name), {})

    def _attachment_changed(self, before: ClusterObject | None, after: ClusterObject | None) -> None:
        for item, sign in ((after, 1), (before, -1)):  # it may stay on its node: never let go of it between
            if isinstance(item, VolumeAttachment):
                self._hold(item.metadata.name, item.spec.node_name, sign)
        if after is not None:
            self._stale[after.metadata.name] = None


def _slot(key: _Key) -> int:
    return _POD if isinstance(key, ClaimUse) else _ATTACHMENT
