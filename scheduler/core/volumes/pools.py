"""Volumes that claims may still get: by class, smallest first, and those reserved for a claim by its name.

A cluster has as many volumes as pods, and nearly all of them are taken; to look through the free ones is
what keeps a decision cheap. What matching asks of a volume again and again is read once.
Source: FindMatchingVolume (k8s.io/component-helpers/storage/volume/pv_helpers.go).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.api import NodeSelector
from scheduler.api_objects import ClusterObject, PersistentVolume
from scheduler.core.objects import ClusterObjects
from scheduler.core.volumes.claims import class_of_volume
from scheduler.quantity import QuantityError, nanos, value

FILESYSTEM = "Filesystem"


class FreeVolume:
    """A volume that belongs to no claim yet, or is reserved for one."""

    def __init__(self, volume: PersistentVolume) -> None:
        self.volume = volume
        spec = volume.spec
        self.name = volume.metadata.name
        self.class_name = class_of_volume(volume)
        text = (spec.capacity or {}).get("storage", "0")
        try:
            self.capacity_nanos, self.capacity_bytes = nanos(text), value(text)
        except QuantityError:  # fits no claim
            self.capacity_nanos, self.capacity_bytes = -1, 0
        self.access_modes = frozenset(spec.access_modes or ())
        self.volume_mode = spec.volume_mode or FILESYSTEM
        self.attributes_class = spec.volume_attributes_class_name or ""
        self.terminating = volume.metadata.deletion_timestamp is not None
        self.available = volume.status.phase == "Available"
        self.labels = volume.metadata.labels or {}
        self.affinity: NodeSelector | None = None
        if spec.node_affinity is not None:
            self.affinity = spec.node_affinity.required
        self.affinity_key = affinity_key(self.affinity)
        self.reached: tuple[int, NDArray[np.intp]] | None = None
        """Rows of the nodes that reach it, and the version of node objects for which that holds."""


def affinity_key(affinity: NodeSelector | None) -> bytes:
    """Equal for selectors that are written alike; empty for none."""
    return msgspec.json.encode(affinity) if affinity is not None else b""


class VolumePools:
    """Kept up to date by the cluster's objects themselves."""

    def __init__(self, cluster: ClusterObjects) -> None:
        self._free: dict[str, dict[str, FreeVolume]] = {}
        """Class → name → volumes without a claimRef."""
        self._sorted: dict[str, list[FreeVolume]] = {}
        self._reserved: dict[tuple[str, str], dict[str, FreeVolume]] = {}
        """Namespace and name of a claim → volumes whose claimRef names it."""
        cluster.listen(PersistentVolume, self._changed)

    def free(self, class_name: str) -> Sequence[FreeVolume]:
        """Without a claimRef; in order of capacity, then of name."""
        found = self._sorted.get(class_name)
        if found is None:
            found = sorted(self._free.get(class_name, {}).values(), key=_smallest_first)
            if found:
                self._sorted[class_name] = found
        return found

    def reserved(self, namespace: str, name: str) -> Collection[FreeVolume]:
        """Whose claimRef names this claim."""
        return self._reserved.get((namespace, name), {}).values()

    def _changed(self, before: ClusterObject | None, after: ClusterObject | None) -> None:
        if isinstance(before, PersistentVolume):
            self._remove(before)
        if isinstance(after, PersistentVolume):
            self._add(FreeVolume(after))

    def _add(self, volume: FreeVolume) -> None:
        reference = volume.volume.spec.claim_ref
        if reference is not None:
            reserved = self._reserved.setdefault((reference.namespace, reference.name), {})
            reserved[volume.name] = volume
        else:
            self._free.setdefault(volume.class_name, {})[volume.name] = volume
            if volume.class_name in self._sorted:
                insort(self._sorted[volume.class_name], volume, key=_smallest_first)

    def _remove(self, volume: PersistentVolume) -> None:
        reference, name = volume.spec.claim_ref, volume.metadata.name
        if reference is not None:
            key = reference.namespace, reference.name
            reserved = self._reserved.get(key, {})
            if reserved.pop(name, None) is not None and not reserved:
                del self._reserved[key]
        else:
            class_name = class_of_volume(volume)
            volumes = self._free.get(class_name, {})
            found = volumes.pop(name, None)
            if found is not None and class_name in self._sorted:
                self._sorted[class_name].remove(found)
            if found is not None and not volumes:
                del self._free[class_name]
                self._sorted.pop(class_name, None)


def _smallest_first(volume: FreeVolume) -> tuple[int, str]:
    return volume.capacity_nanos, volume.name
