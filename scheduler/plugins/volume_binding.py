"""VolumeBinding: claims that are bound must be reached, and the others get a volume where the pod goes.

Source: pkg/scheduler/framework/plugins/volumebinding. What can be had where is worked out in
`scheduler.core.volumes.serve`, for all nodes at once; the plan for the chosen node is read from the same
answer. The score favours nodes on which the volumes leave more room, or as the argument `shape` says.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from scheduler.core.nodes import NodeView
from scheduler.core.objects import ClusterObjects
from scheduler.core.plugin import (
    FilterPlugin,
    FilterResult,
    Mask,
    ObjectChange,
    Ranking,
    ScorePlugin,
    Wake,
)
from scheduler.core.pod_info import PodInfo
from scheduler.core.volumes.claims import class_of_claim, is_reserved_for, requested_storage
from scheduler.core.volumes.hints import may_help
from scheduler.core.volumes.plan import (
    BOUND_BY_CONTROLLER,
    ObjectVersion,
    Provisioning,
    StaticBinding,
    VolumePlan,
)
from scheduler.core.volumes.serve import Match, Service, serve, sort_claims
from scheduler.plugins.arguments import Arguments, read_arguments, require
from scheduler.plugins.node_volume_limits import not_owned
from scheduler.plugins.resource_strategies import UtilizationShapePoint, score_of_percent
from scheduler.quantity import value

REASONS = (
    "node(s) didn't match PersistentVolume's node affinity",
    "node(s) didn't find available persistent volumes to bind",
    "node(s) did not have enough free storage",
    "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
)
"""In the order of the bits of `Service`."""
REASON_UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
_EMPTIEST_FIRST = (
    UtilizationShapePoint(utilization=0, score=10),
    UtilizationShapePoint(utilization=100, score=0),
)

_Columns = tuple[str, NDArray[np.int64], NDArray[np.int64], Mask]
"""Storage class, bytes requested and bytes of capacity on each node, nodes for which that holds."""


class VolumeBindingArgs(Arguments, frozen=True):
    """Source: VolumeBindingArgs (staging k8s.io/kube-scheduler/config/v1/types_pluginargs.go)."""

    bind_timeout_seconds: int = 600
    shape: tuple[UtilizationShapePoint, ...] = ()


class VolumeBinding(FilterPlugin, ScorePlugin):
    """Arguments `bindTimeoutSeconds` and `shape`."""

    name = "VolumeBinding"
    reads = ("has_volume_rules",)
    row_local = False
    watches = (
        *(PersistentVolumeClaim, PersistentVolume, StorageClass),
        *(CSINode, CSIDriver, CSIStorageCapacity),
    )
    wakes_on = (
        Wake.NODE_ADD
        | Wake.NODE_LABELS
        | Wake.VOLUME_CLAIM
        | Wake.VOLUME
        | Wake.STORAGE_CLASS
        | Wake.CSI_NODE
        | Wake.CSI_DRIVER
        | Wake.STORAGE_CAPACITY
    )

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for arguments that kube-scheduler would refuse, naming the field."""
        super().__init__()
        read = read_arguments(args, VolumeBindingArgs)
        require(read.bind_timeout_seconds >= 0, "bindTimeoutSeconds", "must not be negative")
        self.bind_timeout_s = float(read.bind_timeout_seconds)
        """How long a placed pod may wait for its volumes."""
        self._score_of_percent = score_of_percent(read.shape or _EMPTIEST_FIRST, "shape")

    def context(self, pod: PodInfo, nodes: NodeView) -> tuple[Hashable, ...]:
        claims = pod.volumes.claims
        return (claims, bool(sort_claims(claims, nodes).waiting)) if claims else ()

    def applies(self, pod: PodInfo) -> bool:
        return False  # the context tells

    def may_help(self, pod: PodInfo, change: ObjectChange) -> bool:
        return may_help(pod, change)

    def refuses(self, pod: PodInfo, nodes: NodeView) -> str | None:
        """podHasPVCs, and claims that the volume controller should have bound."""
        for use in pod.volumes.claims:
            claim = nodes.cluster.get(PersistentVolumeClaim, use.name, use.namespace)
            if claim is None:
                if not use.owner:
                    return f'persistentvolumeclaim "{use.name}" not found'
                waiting = "waiting for ephemeral volume controller to create the persistentvolumeclaim"
                return f'{waiting} "{use.name}"'
            if claim.status.phase == "Lost":
                volume = claim.spec.volume_name
                return f'persistentvolumeclaim "{use.name}" bound to non-existent persistentvolume "{volume}"'
            if claim.metadata.deletion_timestamp is not None:
                return f'persistentvolumeclaim "{use.name}" is being deleted'
            if not use.owns(claim):
                return not_owned(use, pod.name)
        return REASON_UNBOUND if sort_claims(pod.volumes.claims, nodes).overdue else None

    def minds(self, pod: PodInfo, other: PodInfo, nodes: NodeView) -> bool:
        return False

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return REASONS

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        service = serve(pod.volumes.claims, nodes)
        return FilterResult(service.bits, np.ones(nodes.count, np.bool_))

    def prefers(self, pod: PodInfo, nodes: NodeView) -> bool:
        return bool(sort_claims(pod.volumes.claims, nodes).waiting)

    def rank(self, pod: PodInfo, nodes: NodeView, feasible: Mask) -> Ranking:
        """0..100: by how much of the volumes, or else of the storage pools, the claims take: the mean over
        storage classes, rounded half up."""
        service = serve(pod.volumes.claims, nodes)
        total, classes = np.zeros(nodes.count, np.int64), np.zeros(nodes.count, np.int64)
        for _, requested, capacity, where in _storage(service, nodes.count):
            whole = (capacity == 0) | (requested > capacity)
            percent = np.where(whole, 100, requested * 100 // np.maximum(capacity, 1))
            total += np.where(where, self._score_of_percent[percent.clip(0, 100)], 0)
            classes += where
        scores = ((2 * total + classes) // np.maximum(2 * classes, 1))[feasible]
        return Ranking(scores, scores)

    def plan(self, pod: PodInfo, nodes: NodeView, row: int) -> VolumePlan | None:
        service = serve(pod.volumes.claims, nodes)
        matches = [match for match in service.matches if match.choice[row] >= 0]
        bindings = [_binding(match, match.choice[row], nodes.cluster) for match in matches]
        to_make = [p.claim for p in service.provisions if p.where[row]]
        provisions = [Provisioning(_version(_latest(claim, nodes.cluster))) for claim in to_make]
        if not (bindings or provisions):
            return None
        return VolumePlan(nodes.names[row], tuple(bindings), tuple(provisions), timeout_s=self.bind_timeout_s)


def _storage(service: Service, n: int) -> Iterator[_Columns]:
    """Of the volumes that a node's claims would get if there are any, else of the pools that volumes
    would come from."""
    static = np.zeros(n, np.bool_)
    for match in service.matches:
        static |= match.choice >= 0
    sums: dict[str, _Columns] = {}
    for match in service.matches:
        wanted = _bytes_of(match)
        for class_name in sorted({v.volume.spec.storage_class_name for v in match.volumes}):
            own = [v.volume.spec.storage_class_name == class_name for v in match.volumes]
            capacities = np.array([*(v.capacity_bytes for v in match.volumes), 0], np.int64)
            here = np.array([*own, False], np.bool_)[match.choice]
            _, requested, capacity, where = _of(sums, class_name, n)
            requested += np.where(here, wanted, 0)
            capacity += np.where(here, capacities[match.choice], 0)
            where |= here
    yield from sums.values()
    sums = {}
    for provision in service.provisions:
        size = requested_storage(provision.claim)
        here = provision.where & ~static & (provision.capacity_bytes >= 0)
        _, requested, capacity, where = _of(sums, class_of_claim(provision.claim), n)
        requested += np.where(here, value(size) if size is not None else 0, 0)
        capacity[here] = provision.capacity_bytes[here]
        where |= here
    yield from sums.values()


def _of(sums: dict[str, _Columns], class_name: str, n: int) -> _Columns:
    new = (class_name, np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_))
    return sums.setdefault(class_name, new)


def _bytes_of(match: Match) -> int:
    size = requested_storage(match.claim)
    return value(size) if size is not None else 0


def _binding(match: Match, choice: int, cluster: ClusterObjects) -> StaticBinding:
    """GetBindVolumeToClaim (k8s.io/component-helpers/storage/volume/pv_helpers.go)."""
    found, claim = match.volumes[choice].volume, match.claim
    # What is only assumed, for another pod with the same claim, is not written yet, and may never be.
    volume = cluster.observed(PersistentVolume, found.metadata.name) or found
    reserved = is_reserved_for(volume, claim)
    reference, annotations = volume.spec.claim_ref, volume.metadata.annotations or {}
    return StaticBinding(
        claim=_version(_latest(claim, cluster)),
        volume=_version(volume),
        set_claim_ref=not reserved or reference is None or reference.uid != claim.metadata.uid,
        set_by_controller=not reserved and BOUND_BY_CONTROLLER not in annotations,
    )


def _latest(claim: PersistentVolumeClaim, cluster: ClusterObjects) -> PersistentVolumeClaim:
    """The claim in the version that the watch has shown last: one that differs in nothing else makes no
    other answer, but a write to the one before is refused."""
    return cluster.observed(PersistentVolumeClaim, claim.metadata.name, claim.metadata.namespace) or claim


def _version(item: PersistentVolume | PersistentVolumeClaim) -> ObjectVersion:
    metadata = item.metadata
    return ObjectVersion(metadata.name, metadata.uid, metadata.resource_version, metadata.namespace)
