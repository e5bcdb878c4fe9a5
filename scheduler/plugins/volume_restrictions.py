"""VolumeRestrictions: disks that pods can't share, and claims that one pod at a time may use.

Source: pkg/scheduler/framework/plugins/volumerestrictions. A disk is in the way on its node only. A claim
of access mode ReadWriteOncePod is in the way everywhere, until the pod that uses it is gone; so it is
asked who uses it at each decision.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np

from scheduler.api_objects import PersistentVolumeClaim
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, ObjectChange, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.volumes.claims import READ_WRITE_ONCE_POD
from scheduler.core.volumes.hints import may_help
from scheduler.core.volumes.pod_volumes import NO_VOLUMES, ClaimUse, Disk

REASON_DISK = "node(s) had no available disk"
REASON_IN_USE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use "
    "by another pod"
)


class VolumeRestrictions(FilterPlugin):
    name = "VolumeRestrictions"
    reads = ("has_volume_rules",)
    row_local = False
    reads_usage = True
    watches = (PersistentVolumeClaim,)
    wakes_on = Wake.NODE_ADD | Wake.NODE_REMOVED | Wake.ASSIGNED_POD_REMOVED | Wake.VOLUME_CLAIM
    """Of pods on a node that is gone nobody counts the claims any more, nor says so when they go too."""

    def context(self, pod: PodInfo, nodes: NodeView) -> tuple[Hashable, ...]:
        if pod.volumes is NO_VOLUMES:
            return ()
        claims, disks = pod.volumes.shared_claims, pod.volumes.disks
        return (claims, disks) if claims or disks else ()

    def applies(self, pod: PodInfo) -> bool:
        return False  # the context tells

    def may_help(self, pod: PodInfo, change: ObjectChange) -> bool:
        return may_help(pod, change)

    def refuses(self, pod: PodInfo, nodes: NodeView) -> str | None:
        for use in pod.volumes.shared_claims:
            if nodes.cluster.get(PersistentVolumeClaim, use.name, use.namespace) is None:
                return f'persistentvolumeclaim "{use.name}" not found'
        return None

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON_DISK, REASON_IN_USE)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        in_use = any(nodes.volumes.attached.users(use) for use in _exclusive(pod, nodes))
        bits = np.full(nodes.count, 2 if in_use else 0, np.uint64)
        for disk in pod.volumes.disks:
            for node in _nodes_that_keep_out(disk, nodes):
                bits[nodes.row_of[node]] = 1
        return FilterResult(bits, np.zeros(nodes.count, np.bool_))


def _exclusive(pod: PodInfo, nodes: NodeView) -> Iterator[ClaimUse]:
    for use in pod.volumes.shared_claims:
        claim = nodes.cluster.get(PersistentVolumeClaim, use.name, use.namespace)
        if claim is not None and READ_WRITE_ONCE_POD in (claim.spec.access_modes or ()):
            yield use


def _nodes_that_keep_out(disk: Disk, nodes: NodeView) -> Iterator[str]:
    attached = nodes.volumes.attached
    for key in disk.keys:
        yield from attached.disk_users(key, read_only=False)
        if not disk.read_only:
            yield from attached.disk_users(key, read_only=True)
