"""The other objects that a decision may read, trimmed like the pods and nodes of `scheduler.api`.

Which of them are watched at all depends on the plugins in use: see `Plugin.watches`.
"""

from typing import Any

import msgspec

from scheduler.api import (
    ApiStruct,
    LabelSelector,
    NodeSelector,
    ObjectMeta,
    ResourceList,
    ResourceRequirements,
)


class ClusterObject(ApiStruct):
    """Base of all kinds here."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


class TypedReference(ApiStruct):
    """To an object by name; `namespace` is empty where it is implied or there is none."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class VolumeNodeAffinity(ApiStruct):
    required: NodeSelector | None = None


class PersistentVolumeSpec(ApiStruct):
    """Of the volume's source, only those are here that are, or stand for, volumes of a CSI driver."""

    capacity: ResourceList | None = None
    access_modes: list[str] | None = None
    claim_ref: TypedReference | None = None
    storage_class_name: str = ""
    volume_mode: str | None = None
    node_affinity: VolumeNodeAffinity | None = None
    volume_attributes_class_name: str | None = None
    csi: dict[str, Any] | None = None
    aws_elastic_block_store: dict[str, Any] | None = None
    azure_disk: dict[str, Any] | None = None
    cinder: dict[str, Any] | None = None
    gce_persistent_disk: dict[str, Any] | None = None
    portworx_volume: dict[str, Any] | None = None


class PhaseStatus(ApiStruct):
    phase: str = ""


class PersistentVolume(ClusterObject):
    spec: PersistentVolumeSpec = msgspec.field(default_factory=PersistentVolumeSpec)
    status: PhaseStatus = msgspec.field(default_factory=PhaseStatus)


class PersistentVolumeClaimSpec(ApiStruct):
    access_modes: list[str] | None = None
    selector: LabelSelector | None = None
    resources: ResourceRequirements | None = None
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str | None = None
    volume_attributes_class_name: str | None = None


class PersistentVolumeClaim(ClusterObject):
    spec: PersistentVolumeClaimSpec = msgspec.field(default_factory=PersistentVolumeClaimSpec)
    status: PhaseStatus = msgspec.field(default_factory=PhaseStatus)


class TopologySelectorLabelRequirement(ApiStruct):
    key: str = ""
    values: list[str] | None = None


class TopologySelectorTerm(ApiStruct):
    match_label_expressions: list[TopologySelectorLabelRequirement] | None = None


class StorageClass(ClusterObject):
    provisioner: str = ""
    volume_binding_mode: str | None = None
    allowed_topologies: list[TopologySelectorTerm] | None = None


class VolumeNodeResources(ApiStruct):
    count: int | None = None


class CSINodeDriver(ApiStruct):
    name: str = ""
    node_id: str = msgspec.field(name="nodeID", default="")
    topology_keys: list[str] | None = None
    allocatable: VolumeNodeResources | None = None


class CSINodeSpec(ApiStruct):
    drivers: list[CSINodeDriver] | None = None


class CSINode(ClusterObject):
    spec: CSINodeSpec = msgspec.field(default_factory=CSINodeSpec)


class CSIDriverSpec(ApiStruct):
    storage_capacity: bool | None = None
    prevent_pod_scheduling_if_missing: bool | None = None


class CSIDriver(ClusterObject):
    spec: CSIDriverSpec = msgspec.field(default_factory=CSIDriverSpec)


class CSIStorageCapacity(ClusterObject):
    node_topology: LabelSelector | None = None
    storage_class_name: str = ""
    capacity: str | None = None
    maximum_volume_size: str | None = None


class VolumeAttachmentSource(ApiStruct):
    persistent_volume_name: str | None = None


class VolumeAttachmentSpec(ApiStruct):
    attacher: str = ""
    node_name: str = ""
    source: VolumeAttachmentSource = msgspec.field(default_factory=VolumeAttachmentSource)


class VolumeAttachment(ClusterObject):
    spec: VolumeAttachmentSpec = msgspec.field(default_factory=VolumeAttachmentSpec)


class MapSelectorSpec(ApiStruct):
    """Of objects whose selector is a plain map of labels."""

    selector: dict[str, str] | None = None


class Service(ClusterObject):
    spec: MapSelectorSpec = msgspec.field(default_factory=MapSelectorSpec)


class ReplicationController(ClusterObject):
    spec: MapSelectorSpec = msgspec.field(default_factory=MapSelectorSpec)


class LabelSelectorSpec(ApiStruct):
    selector: LabelSelector | None = None


class ReplicaSet(ClusterObject):
    spec: LabelSelectorSpec = msgspec.field(default_factory=LabelSelectorSpec)


class StatefulSet(ClusterObject):
    spec: LabelSelectorSpec = msgspec.field(default_factory=LabelSelectorSpec)


class PodDisruptionBudgetStatus(ApiStruct):
    disruptions_allowed: int = 0
    disrupted_pods: dict[str, str] | None = None
    """Names of pods whose eviction has been accepted, with the time of that."""


class PodDisruptionBudget(ClusterObject):
    spec: LabelSelectorSpec = msgspec.field(default_factory=LabelSelectorSpec)
    status: PodDisruptionBudgetStatus = msgspec.field(default_factory=PodDisruptionBudgetStatus)


class GangPolicy(ApiStruct):
    min_count: int = 1


class SchedulingPolicy(ApiStruct):
    """`basic` when there is no `gang`."""

    gang: GangPolicy | None = None


class TopologyConstraint(ApiStruct):
    key: str = ""


class SchedulingConstraints(ApiStruct):
    topology: list[TopologyConstraint] | None = None


class AllDisruptionMode(ApiStruct):
    """Has no fields."""


class DisruptionMode(ApiStruct):
    """`single` when there is no `all`."""

    all: AllDisruptionMode | None = None


class PodGroupSpec(ApiStruct):
    scheduling_policy: SchedulingPolicy = msgspec.field(default_factory=SchedulingPolicy)
    scheduling_constraints: SchedulingConstraints = msgspec.field(default_factory=SchedulingConstraints)
    disruption_mode: DisruptionMode = msgspec.field(default_factory=DisruptionMode)
    priority: int | None = None
    """Set by the API server from `priorityClassName`."""
    preemption_policy: str | None = None


class GroupCondition(ApiStruct):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0


class PodGroupStatus(ApiStruct):
    conditions: list[GroupCondition] | None = None


class PodGroup(ClusterObject):
    """Kubernetes' own, of the group scheduling.k8s.io."""

    spec: PodGroupSpec = msgspec.field(default_factory=PodGroupSpec)
    status: PodGroupStatus = msgspec.field(default_factory=PodGroupStatus)


class CoschedulingPodGroupSpec(ApiStruct):
    min_member: int = 1
    min_resources: dict[str, str | int] | None = None
    """Nobody normalises the quantities of a custom resource: some are numbers."""
    schedule_timeout_seconds: int | None = None


class CoschedulingPodGroup(ClusterObject):
    """Of the group scheduling.x-k8s.io, defined by the scheduler-plugins project."""

    spec: CoschedulingPodGroupSpec = msgspec.field(default_factory=CoschedulingPodGroupSpec)
