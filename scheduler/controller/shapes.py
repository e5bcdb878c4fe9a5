"""The objects that the controller reads, trimmed like those of `scheduler.api`."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from scheduler.api import ApiStruct, ObjectMeta

GROUP_API = "scheduling.x-k8s.io/v1alpha1"
COLLECTION = "/apis/scheduling.x-k8s.io/v1alpha1"


class Key(NamedTuple):
    """Names an object of a kind that is implied."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class MemberSpec(ApiStruct):
    node_name: str | None = None
    scheduler_name: str | None = None


class MemberStatus(ApiStruct):
    phase: str = ""


class MemberPod(ApiStruct):
    """A pod that carries a group's label."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: MemberSpec = msgspec.field(default_factory=MemberSpec)
    status: MemberStatus = msgspec.field(default_factory=MemberStatus)


class Port(ApiStruct):
    container_port: int = 0
    protocol: str | None = None


class PortedContainer(ApiStruct):
    name: str = ""
    ports: list[Port] | None = None
    restart_policy: str | None = None


class PortedSpec(ApiStruct):
    containers: list[PortedContainer] | None = None
    init_containers: list[PortedContainer] | None = None


class PortedPod(ApiStruct):
    """A pod, or a template of pods, as far as it says who listens where."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: PortedSpec = msgspec.field(default_factory=PortedSpec)


class GroupSpec(ApiStruct):
    min_member: int = 1
    schedule_timeout_seconds: int | None = None


class GroupStatus(ApiStruct):
    """Counts are absent as long as nobody has written them. `conditions` stay as they came: some of them may
    be another's."""

    phase: str = ""
    occupied_by: str = ""
    scheduled: int | None = None
    running: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    schedule_start_time: str | None = None
    conditions: list[dict[str, Any]] | None = None


class GroupObject(ApiStruct):
    """A PodGroup of scheduling.x-k8s.io."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: GroupSpec = msgspec.field(default_factory=GroupSpec)
    status: GroupStatus = msgspec.field(default_factory=GroupStatus)

    @property
    def key(self) -> Key:
        return Key(self.metadata.namespace, self.metadata.name)
