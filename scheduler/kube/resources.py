"""Where the API server serves the objects that plugins may read, and where each is watched from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.api_objects import (
    ClusterObject,
    CoschedulingPodGroup,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    PodDisruptionBudget,
    PodGroup,
    ReplicaSet,
    ReplicationController,
    Service,
    StatefulSet,
    StorageClass,
    VolumeAttachment,
)


@dataclass(frozen=True)
class Resource:
    """A collection of the API, over all namespaces."""

    name: str
    group: str = ""
    version: str = "v1"

    @property
    def path(self) -> str:
        root = f"/apis/{self.group}" if self.group else "/api"
        return f"{root}/{self.version}/{self.name}"


UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"
"""The pods that are listed: finished ones hold no room (as in kube-scheduler)."""

RESOURCES: Mapping[type[ClusterObject], Resource] = {
    PersistentVolume: Resource("persistentvolumes"),
    PersistentVolumeClaim: Resource("persistentvolumeclaims"),
    StorageClass: Resource("storageclasses", "storage.k8s.io"),
    CSINode: Resource("csinodes", "storage.k8s.io"),
    CSIDriver: Resource("csidrivers", "storage.k8s.io"),
    CSIStorageCapacity: Resource("csistoragecapacities", "storage.k8s.io"),
    VolumeAttachment: Resource("volumeattachments", "storage.k8s.io"),
    Service: Resource("services"),
    ReplicationController: Resource("replicationcontrollers"),
    ReplicaSet: Resource("replicasets", "apps"),
    StatefulSet: Resource("statefulsets", "apps"),
    PodDisruptionBudget: Resource("poddisruptionbudgets", "policy"),
    PodGroup: Resource("podgroups", "scheduling.k8s.io", "v1beta1"),
    CoschedulingPodGroup: Resource("podgroups", "scheduling.x-k8s.io", "v1alpha1"),
}
