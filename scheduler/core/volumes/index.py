"""Volumes as the node table keeps them, beside nodes and pods: what is attached where, and what is free."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from scheduler.core.objects import ClusterObjects
from scheduler.core.recent import Recent
from scheduler.core.volumes.attached import AttachedVolumes
from scheduler.core.volumes.pools import VolumePools

ANSWERS_KEPT, SERVICES_KEPT = 256, 32
MANY_CLAIMS = 16
"""Of sets of claims this large, which a pod's author may make as large as he likes, only one is kept."""


_Services = Recent[Hashable, tuple[Hashable, object]]
"""A set of claims → for which versions of objects it was worked out, and what came of it."""


class VolumeIndex:
    """`row_of` is the node table's own map from node names to rows."""

    def __init__(self, row_of: Mapping[str, int], capacity: int, cluster: ClusterObjects) -> None:
        self.attached = AttachedVolumes(row_of, capacity, cluster)
        self.pools = VolumePools(cluster)
        self.answers: Recent[Hashable, object] = Recent(ANSWERS_KEPT)
        """What was worked out from node objects and cluster objects alone; the keys tell their versions."""
        self._services, self._large_service = _Services(SERVICES_KEPT), _Services(1)

    def services(self, claims: int) -> _Services:
        """The same for sets of so many claims."""
        return self._services if claims < MANY_CLAIMS else self._large_service
