"""VolumeZone: a volume labelled with zones or regions is used on nodes of these.

Source: pkg/scheduler/framework/plugins/volumezone. Volumes of today say where they are with a node
affinity, which is VolumeBinding's; labels are what older ones have. Ephemeral volumes are left alone, and
so are nodes with none of the labels.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from scheduler.api_objects import PersistentVolume, PersistentVolumeClaim, StorageClass
from scheduler.core.labels import lookup, lookup_in
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, Mask, ObjectChange, Wake, passes, rejects
from scheduler.core.pod_info import PodInfo
from scheduler.core.volumes.claims import WAIT_FOR_FIRST_CONSUMER, class_of_claim
from scheduler.core.volumes.hints import may_help
from scheduler.core.volumes.pod_volumes import NO_VOLUMES
from scheduler.core.volumes.sources import OLD_REGION, OLD_ZONE, REGION, ZONE, ZONES_DELIMITER

REASON = "node(s) had no available volume zone"
_KEYS = (OLD_ZONE, OLD_REGION, ZONE, REGION)
_PRESENT_KEY: Mapping[str, str] = {OLD_ZONE: ZONE, OLD_REGION: REGION}


class Topology(NamedTuple):
    """One label of a volume."""

    key: str
    values: frozenset[str]


class VolumeZone(FilterPlugin):
    name = "VolumeZone"
    reads = ("has_volume_rules",)
    row_local = False
    watches = (PersistentVolumeClaim, PersistentVolume, StorageClass)
    wakes_on = Wake.NODE_ADD | Wake.NODE_LABELS | Wake.VOLUME_CLAIM | Wake.VOLUME | Wake.STORAGE_CLASS

    def context(self, pod: PodInfo, nodes: NodeView) -> tuple[Hashable, ...]:
        return () if pod.volumes is NO_VOLUMES else pod.volumes.shared_claims

    def applies(self, pod: PodInfo) -> bool:
        return False  # the context tells

    def may_help(self, pod: PodInfo, change: ObjectChange) -> bool:
        return may_help(pod, change)

    def refuses(self, pod: PodInfo, nodes: NodeView) -> str | None:
        """getPVbyPod: a claim must have a volume, or wait for a consumer."""
        for use in pod.volumes.shared_claims:
            if not use.name:
                return "PersistentVolumeClaim had no name"
            claim = nodes.cluster.get(PersistentVolumeClaim, use.name, use.namespace)
            if claim is None:
                return f'persistentvolumeclaim "{use.name}" not found'
            text = _refuses(claim, nodes)
            if text is not None:
                return text
        return None

    def minds(self, pod: PodInfo, other: PodInfo, nodes: NodeView) -> bool:
        return False

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        topologies = list(_topologies(pod, nodes))
        if not topologies:
            return passes(nodes.count)
        matches = np.ones(nodes.count, np.bool_)
        for key, values in topologies:
            matches &= _has(key, values, nodes)
        labelled = np.zeros(nodes.count, np.bool_)
        for key in _KEYS:
            labelled |= lookup(*nodes.label(key), _is_there)
        return rejects(labelled & ~matches, unresolvable=True)


def _refuses(claim: PersistentVolumeClaim, nodes: NodeView) -> str | None:
    if claim.spec.volume_name:
        if nodes.cluster.get(PersistentVolume, claim.spec.volume_name) is None:
            return f'persistentvolume "{claim.spec.volume_name}" not found'
        return None
    class_name = class_of_claim(claim)
    if not class_name:
        return "PersistentVolumeClaim had no pv name and storageClass name"
    found = nodes.cluster.get(StorageClass, class_name)
    if found is None:
        return f'storageclass.storage.k8s.io "{class_name}" not found'
    if found.volume_binding_mode is None:
        return f'VolumeBindingMode not set for StorageClass "{class_name}"'
    return None if found.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER else "PersistentVolume had no name"


def _topologies(pod: PodInfo, nodes: NodeView) -> Iterator[Topology]:
    for use in pod.volumes.shared_claims:
        claim = nodes.cluster.get(PersistentVolumeClaim, use.name, use.namespace)
        if claim is None or not claim.spec.volume_name:
            continue
        volume = nodes.cluster.get(PersistentVolume, claim.spec.volume_name)
        labels = volume.metadata.labels if volume is not None else None
        if not labels:
            continue
        for key in _KEYS:
            # A list with an empty part is none (LabelZonesToSet).
            parts = [part.strip() for part in labels[key].split(ZONES_DELIMITER)] if key in labels else [""]
            if all(parts):
                yield Topology(key, frozenset(parts))


def _has(key: str, values: frozenset[str], nodes: NodeView) -> Mask:
    """bool[n]: whether the label, or the one that has replaced it where it is missing, has such a value."""
    column, ids = nodes.label(key)
    found = lookup_in(column, ids, values)
    if key in _PRESENT_KEY:
        found |= lookup_in(*nodes.label(_PRESENT_KEY[key]), values) & ~lookup(column, ids, _is_there)
    return found


def _is_there(value: str | None) -> bool:
    return value is not None
