"""A pod as the scheduler works with it: the API object plus what decisions ask of it again and again."""

from __future__ import annotations

from functools import cached_property
from zlib import crc32

from scheduler.api import NodeSelector, Pod, PreferredSchedulingTerm, Toleration
from scheduler.core.requests import (
    no_default_applies,
    nonzero_requests,
    pod_requests,
    pod_requests_on_node,
    scored_requests,
)
from scheduler.core.topology_rules import TopologyRules, topology_rules
from scheduler.core.volumes.pod_volumes import NO_VOLUMES, PodVolumes, pod_volumes

ANY_IP = "0.0.0.0"  # noqa: S104  (a wildcard in a comparison, nothing listens here)

HostPort = tuple[str, int, str]
"""(protocol, port, ip), with Kubernetes' defaults TCP and 0.0.0.0 filled in."""


Signature = tuple[str, frozenset[tuple[str, str]], bool]
"""(namespace, labels, whether it is being deleted)."""


Controller = tuple[str, str, str]
"""(apiVersion, kind, name)."""


class PodInfo:
    """Wraps one version of a pod. Raises QuantityError from the constructor when a request is bad."""

    pod: Pod
    uid: str
    requests: dict[str, int]
    """Effective request of the whole pod before it has a node: millicores for cpu, bytes or units
    for all others. In order of names, since pods that differ in nothing but the order their authors
    chose share one answer."""
    usage: dict[str, int]
    """What the pod takes of its node: `requests`, and what a resize has allocated meanwhile."""

    def __init__(self, pod: Pod) -> None:
        self.pod, self.uid = pod, pod.metadata.uid
        self.requests = dict(sorted(pod_requests(pod).items()))
        # Read now, as it raises too: when the pod is taken into account it is too late to refuse it.
        self.usage = pod_requests_on_node(pod)

    @cached_property
    def name(self) -> str:
        """`namespace/name`."""
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    @property
    def namespace(self) -> str:
        return self.pod.metadata.namespace

    @property
    def priority(self) -> int:
        return self.pod.spec.priority or 0

    @property
    def preempts(self) -> bool:
        """Whether the pod may have others evicted (`spec.preemptionPolicy`)."""
        return self.pod.spec.preemption_policy != "Never"

    @property
    def nominated_node(self) -> str:
        """`status.nominatedNodeName`, empty for none."""
        return self.pod.status.nominated_node_name or ""

    @property
    def started(self) -> str:
        """`status.startTime`, empty for a pod that has not started; comparable as text."""
        return self.pod.status.start_time or ""

    @property
    def preempted(self) -> bool:
        """Whether the pod is being deleted to make room for another.

        Source: PodTerminatingByPreemption (pkg/scheduler/framework/preemption/util.go).
        """
        if not self.terminating:
            return False
        for condition in self.pod.status.conditions or ():
            if condition.type == "DisruptionTarget":
                return condition.status == "True" and condition.reason == "PreemptionByScheduler"
        return False

    @property
    def labels(self) -> dict[str, str]:
        return self.pod.metadata.labels or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.pod.metadata.annotations or {}

    @property
    def node_name(self) -> str:
        """`spec.nodeName`, empty for a pod without a node."""
        return self.pod.spec.node_name or ""

    @property
    def node_selector(self) -> dict[str, str]:
        return self.pod.spec.node_selector or {}

    @property
    def required_node_affinity(self) -> NodeSelector | None:
        """`spec.affinity.nodeAffinity.requiredDuringScheduling…` or None."""
        affinity = self.pod.spec.affinity
        node_affinity = affinity.node_affinity if affinity is not None else None
        return node_affinity.required if node_affinity is not None else None

    @property
    def preferred_node_affinity(self) -> list[PreferredSchedulingTerm]:
        """`spec.affinity.nodeAffinity.preferredDuringScheduling…`."""
        affinity = self.pod.spec.affinity
        node_affinity = affinity.node_affinity if affinity is not None else None
        return (node_affinity.preferred or []) if node_affinity is not None else []

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Names of all images the pod starts from or mounts, as container runtimes write them, sorted;
        one that is used twice is there twice.

        Source: sumImageScores (pkg/scheduler/framework/plugins/imagelocality/image_locality.go).
        """
        spec = self.pod.spec
        images = [_with_tag(container.image) for container in spec.containers or ()]
        if spec.init_containers:
            images += [_with_tag(container.image) for container in spec.init_containers]
        for volume in spec.volumes or ():
            if "image" in volume:
                images.append(_with_tag(volume["image"].get("reference", "")))
        return tuple(sorted(images) if len(images) > 1 else images)

    @cached_property
    def required_features(self) -> tuple[str, ...]:
        """Features that a node must declare to run this pod, sorted.

        Source: InferForScheduling of each feature in component-helpers/nodedeclaredfeatures/features.
        """
        spec = self.pod.spec
        containers = (*(spec.containers or ()), *(spec.init_containers or ()))
        features = []
        rules = (rule for c in containers for rule in c.restart_policy_rules or ())
        if any(rule.action == "RestartAllContainers" for rule in rules):
            features.append("RestartAllContainersOnContainerExits")
        if spec.host_network and spec.host_users is False:
            features.append("UserNamespacesHostNetworkSupport")
        mounts = (m for c in (*containers, *(spec.ephemeral_containers or ())) for m in c.volume_mounts or ())
        if any(mount.bind_mount_options for mount in mounts):
            features.append("VolumeBindMountOptions")
        return tuple(features)

    @property
    def tolerations(self) -> list[Toleration]:
        return self.pod.spec.tolerations or []

    @cached_property
    def host_ports(self) -> tuple[HostPort, ...]:
        """Ports the pod takes on its node, sidecars included, deduplicated and sorted.

        Source: GetHostPorts (pkg/scheduler/util/utils.go).
        """
        spec = self.pod.spec
        sidecars = [c for c in spec.init_containers or () if c.restart_policy == "Always"]
        return tuple(
            sorted(
                {
                    (port.protocol or "TCP", port.host_port, port.host_ip or ANY_IP)
                    for container in (*(spec.containers or ()), *sidecars)
                    for port in container.ports or ()
                    if port.host_port
                }
            )
        )

    @cached_property
    def nonzero_requests(self) -> tuple[int, int]:
        """(cpu_milli, memory_bytes) with defaults for containers that ask for nothing."""
        if no_default_applies(self.pod):
            return self.usage.get("cpu", 0), self.usage.get("memory", 0)
        return nonzero_requests(self.pod)

    @cached_property
    def scored_requests(self) -> dict[str, int]:
        """What NodeResourcesFit's score counts for a pod to place: containers that ask for no cpu or
        memory with defaults, without pod-level resources; units and order as in `requests`."""
        if no_default_applies(self.pod):
            return self.requests
        return dict(sorted(scored_requests(self.pod).items()))

    @cached_property
    def uid_hash(self) -> int:
        """A stable 32-bit hash for tie-breaks, the same in every process."""
        return crc32(self.uid.encode())

    @property
    def gated(self) -> bool:
        return bool(self.pod.spec.scheduling_gates)

    @property
    def terminating(self) -> bool:
        return self.pod.metadata.deletion_timestamp is not None

    @property
    def owned_by_daemon_set(self) -> bool:
        return any(o.controller and o.kind == "DaemonSet" for o in self.pod.metadata.owner_references or ())

    @cached_property
    def controller(self) -> Controller | None:
        """The object that owns and controls the pod, in the pod's namespace."""
        for owner in self.pod.metadata.owner_references or ():
            if owner.controller:
                return owner.api_version, owner.kind, owner.name
        return None

    @cached_property
    def signature(self) -> Signature:
        """All that rules of other pods can see of this one."""
        return self.namespace, frozenset(self.labels.items()), self.terminating

    @cached_property
    def rules(self) -> TopologyRules:
        """The pod's rules about other pods."""
        return topology_rules(self.pod)

    @property
    def affinity_rules(self) -> tuple[object, ...]:
        """Affinity and anti-affinity, required and preferred; empty without any."""
        rules = self.rules
        if not (rules.affinity or rules.anti_affinity or rules.preferred):
            return ()
        return self.namespace, rules.affinity, rules.selects_itself, rules.anti_affinity, rules.preferred

    @property
    def spread_rules(self) -> tuple[object, ...]:
        """Topology spread constraints; empty without any."""
        rules = self.rules
        if not (rules.hard_spread or rules.soft_spread):
            return ()
        return self.namespace, rules.hard_spread, rules.soft_spread

    @cached_property
    def volumes(self) -> PodVolumes:
        """The volumes that rules are about; NO_VOLUMES for most pods."""
        return pod_volumes(self.pod)

    @property
    def has_volume_rules(self) -> bool:
        return self.volumes is not NO_VOLUMES

    @cached_property
    def unsupported_rules(self) -> tuple[str, ...]:
        """Hard rules in the spec that no plugin of this version enforces, in plain words."""
        spec = self.pod.spec
        rules = []
        if spec.resource_claims:
            rules.append("resource claims")
        return tuple(rules)


def _with_tag(image: str) -> str:
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"
