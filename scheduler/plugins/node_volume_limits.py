"""NodeVolumeLimits: a CSI driver attaches only so many volumes to a node.

Source: pkg/scheduler/framework/plugins/nodevolumelimits/csi.go. The limit is in the node's CSINode. What
counts against it are the volumes of the pods there, each once, and what is attached beside them; a volume
that is attached already, but not by a pod, counts twice for a pod that wants it, in kube-scheduler too.
Drivers may ask that pods with their volumes go only where they have registered
(`CSIDriver.spec.preventPodSchedulingIfMissing`, feature VolumeLimitScaling).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from functools import cached_property

import numpy as np

from scheduler.api_objects import (
    CSIDriver,
    CSINode,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, ObjectChange, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.volumes.claims import attachable_of
from scheduler.core.volumes.hints import may_help
from scheduler.core.volumes.pod_volumes import NO_VOLUMES, ClaimUse
from scheduler.core.volumes.reach import csi_nodes
from scheduler.core.volumes.sources import Attachable, UntranslatableVolume

REASON = "node(s) exceed max volume count"
_MOST_CLAIMS, _MOST_DRIVERS = 12, 32
"""That are told apart in reasons."""


class NodeVolumeLimits(FilterPlugin):
    name = "NodeVolumeLimits"
    reads = ("has_volume_rules",)
    row_local = False
    reads_usage = True
    watches = (
        *(PersistentVolumeClaim, PersistentVolume, StorageClass),
        *(CSINode, CSIDriver, VolumeAttachment),
    )
    wakes_on = (
        Wake.NODE_ADD
        | Wake.ASSIGNED_POD_REMOVED
        | Wake.VOLUME_CLAIM
        | Wake.VOLUME
        | Wake.CSI_NODE
        | Wake.CSI_DRIVER
        | Wake.VOLUME_ATTACHMENT
    )

    @cached_property
    def _drivers(self) -> dict[str, int]:
        """Drivers that were missed somewhere, numbered once and for all: a reason is a bit."""
        return {}

    def context(self, pod: PodInfo, nodes: NodeView) -> tuple[Hashable, ...]:
        volumes = pod.volumes
        if volumes is NO_VOLUMES or not (volumes.claims or volumes.attached or volumes.untranslatable):
            return ()
        return volumes.claims, volumes.attached, volumes.untranslatable

    def applies(self, pod: PodInfo) -> bool:
        return False  # the context tells

    def may_help(self, pod: PodInfo, change: ObjectChange) -> bool:
        return may_help(pod, change)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        claims = [
            text
            for use in pod.volumes.claims[:_MOST_CLAIMS]
            for text in (_not_found(use), not_owned(use, pod.name))
        ]
        return (REASON, *claims, *map(_not_installed, self._drivers))

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        """Raises UntranslatableVolume for a volume in the pod's spec that its driver has no word for, when
        there is a node that would leave it to the driver."""
        found: dict[Attachable, None] = dict.fromkeys(pod.volumes.attached)
        if pod.volumes.untranslatable and csi_nodes(nodes).known.any():
            raise UntranslatableVolume(pod.volumes.untranslatable)
        for i, use in enumerate(pod.volumes.claims):
            claim = nodes.cluster.get(PersistentVolumeClaim, use.name, use.namespace)
            if claim is None or not use.owns(claim):
                bit = 1 + 2 * min(i, _MOST_CLAIMS - 1) + (claim is not None)
                bits = np.full(nodes.count, 1 << bit, np.uint64)
                return FilterResult(bits, np.ones(nodes.count, np.bool_))
            attachable, _ = attachable_of(use, nodes.cluster)
            if attachable is not None:
                found[attachable] = None
        bits = np.zeros(nodes.count, np.uint64)
        first_driver = 1 + 2 * min(len(pod.volumes.claims), _MOST_CLAIMS)
        for driver, volumes in _by_driver(found).items():
            if _wants_itself_installed(driver, nodes):
                wanted = csi_nodes(nodes).known | any(not volume.in_tree for volume in volumes)
                missing = (bits == 0) & wanted & ~csi_nodes(nodes).installed(driver)
                bits[missing] = 1 << (first_driver + self._number(driver))
        for driver, volumes in _by_driver(found).items():
            limit = csi_nodes(nodes).limit(driver)
            if limit is None:
                continue
            distinct = {volume[:2] for volume in volumes}
            new = np.full(nodes.count, len(distinct), np.int64)
            for volume in distinct:
                for node in nodes.volumes.attached.nodes_with_pods(volume):
                    new[nodes.row_of[node]] -= 1
            count = nodes.volumes.attached.count(driver)[: nodes.count] + new
            bits[(bits == 0) & (limit >= 0) & (new > 0) & (count > limit)] = 1
        return FilterResult(bits, np.zeros(nodes.count, np.bool_))

    def _number(self, driver: str) -> int:
        if driver not in self._drivers and len(self._drivers) == _MOST_DRIVERS:
            return _MOST_DRIVERS - 1
        return self._drivers.setdefault(driver, len(self._drivers))


def not_owned(use: ClaimUse, pod: str) -> str:
    """The text of VolumeIsForPod (k8s.io/component-helpers/storage/ephemeral)."""
    return f"PVC {use.namespace}/{use.name} was not created for pod {pod} (pod is not owner)"


def _not_found(use: ClaimUse) -> str:
    return f'looking up PVC {use.namespace}/{use.name}: persistentvolumeclaim "{use.name}" not found'


def _not_installed(driver: str) -> str:
    return f"{driver} CSI driver is not installed on the node"


def _by_driver(volumes: dict[Attachable, None]) -> dict[str, list[Attachable]]:
    found: dict[str, list[Attachable]] = defaultdict(list)
    for volume in sorted(volumes):
        found[volume.driver].append(volume)
    return found


def _wants_itself_installed(driver: str, nodes: NodeView) -> bool:
    found = nodes.cluster.get(CSIDriver, driver)
    return found is not None and found.spec.prevent_pod_scheduling_if_missing is True
