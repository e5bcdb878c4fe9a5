"""Which gang a pod says it belongs to.

Three sources, one meaning. A pod names its gang in its spec (Kubernetes' own PodGroup), by a label
(the PodGroup of the scheduler-plugins project, which training operators create), or by an annotation,
which needs no object at all. If it does several of these, the first in this order counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from scheduler.api import Pod
from scheduler.api_objects import ClusterObject, CoschedulingPodGroup, PodGroup
from scheduler.core.objects import ClusterObjects
from scheduler.core.pod_info import PodInfo

POD_GROUP_LABEL = "scheduling.x-k8s.io/pod-group"
GANG = "wholepod.io/gang"


class Source(Enum):
    """Where a gang is described."""

    NATIVE = "podgroups.scheduling.k8s.io"
    COSCHEDULING = "podgroups.scheduling.x-k8s.io"
    ANNOTATIONS = "annotations"

    __hash__ = object.__hash__
    """Gangs are looked up by their source among others, many times for each pod; Enum's own is slow."""


class GangRef(NamedTuple):
    """Names a gang."""

    source: Source
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def key(self) -> str:
        """Names it among gangs of all sources."""
        return f"{self.source.value}/{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, key: str) -> GangRef | None:
        """The other way round; None for what is no key."""
        source, _, rest = key.partition("/")
        namespace, _, name = rest.partition("/")
        known = {each.value: each for each in Source}
        return cls(known[source], namespace, name) if source in known and namespace and name else None


def gang_ref(info: PodInfo) -> GangRef | None:
    """The gang that a pod says it belongs to."""
    return ref_of(info.pod)


def ref_of(pod: Pod) -> GangRef | None:
    """The same."""
    metadata, group = pod.metadata, pod.spec.scheduling_group
    if group is not None and group.pod_group_name:
        return GangRef(Source.NATIVE, metadata.namespace, group.pod_group_name)
    name = (metadata.labels or {}).get(POD_GROUP_LABEL)
    if name:
        return GangRef(Source.COSCHEDULING, metadata.namespace, name)
    name = (metadata.annotations or {}).get(GANG)
    if name:
        return GangRef(Source.ANNOTATIONS, metadata.namespace, name)
    return None


GROUPS: Mapping[type[ClusterObject], Source] = {
    PodGroup: Source.NATIVE,
    CoschedulingPodGroup: Source.COSCHEDULING,
}
"""Kinds of objects that describe gangs."""
_KINDS = {source: kind for kind, source in GROUPS.items()}


def group_ref(item: ClusterObject) -> GangRef | None:
    """The gang that an object describes."""
    source = GROUPS.get(type(item))
    return None if source is None else GangRef(source, item.metadata.namespace, item.metadata.name)


def group_of(ref: GangRef, cluster: ClusterObjects) -> ClusterObject | None:
    """The object that describes the gang, if there is one."""
    kind = _KINDS.get(ref.source)
    return None if kind is None else cluster.get(kind, ref.name, ref.namespace)


def same_options(one: ClusterObject, other: ClusterObject) -> bool:
    """Whether two states of a group's object ask for the same; most changes are of its status."""
    annotations = [item.metadata.annotations or {} for item in (one, other)]
    return annotations[0] == annotations[1] and getattr(one, "spec", None) == getattr(other, "spec", None)
