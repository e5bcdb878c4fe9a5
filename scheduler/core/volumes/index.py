"""Volumes as the node table keeps them, beside nodes and pods: what is attached where, and what is free."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from scheduler.core.objects import ClusterObjects
from scheduler.core.recent import Recent
from scheduler.core.volumes.attached import AttachedVolumes
from scheduler.core.volumes.pools import VolumePools

ANSWERS_KEPT, SERVICES_KEPT = 256, 32


class VolumeIndex:
    """`row_of` is the node table's own map from node names to rows."""

    def __init__(self, row_of: Mapping[str, int], capacity: int, cluster: ClusterObjects) -> None:
        self.attached = AttachedVolumes(row_of, capacity, cluster)
        self.pools = VolumePools(cluster)
        self.answers: Recent[Hashable, object] = Recent(ANSWERS_KEPT)
        """What was worked out from node objects and cluster objects alone; the keys tell their versions."""
        self.services: Recent[Hashable, object] = Recent(SERVICES_KEPT)
        """The same for sets of claims, which are many."""
