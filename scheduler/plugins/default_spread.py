"""Spreading of pods that ask for none: constraints of the profile, selectors from what owns the pods.

kube-scheduler gives pods without constraints of their own the profile's default ones. Which pods are to
be spread follows from the cluster: the selectors of all Services that mean the pod, and that of the
ReplicationController, ReplicaSet or StatefulSet that controls it, joined. A pod that none of them
selects has no constraints.

Nearly every pod of a real cluster goes through here at each decision, so what comes of one set of
labels and one controller is kept until a Service or a controller changes.

Sources, in pkg/scheduler/framework/plugins: helper/spread.go (DefaultSelector, GetPodServices),
podtopologyspread/common.go (buildDefaultConstraints), podtopologyspread/plugin.go
(systemDefaultConstraints).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

from scheduler.api import TopologySpreadConstraint
from scheduler.api_objects import (
    ClusterObject,
    ReplicaSet,
    ReplicationController,
    Service,
    StatefulSet,
)
from scheduler.core.objects import ClusterObjects
from scheduler.core.pod_info import Controller, PodInfo, Signature
from scheduler.core.recent import Recent
from scheduler.core.topology_rules import (
    Requirement,
    Selector,
    SpreadConstraint,
    in_order,
    make_selector,
    spread_constraint,
)
from scheduler.plugins.arguments import Arguments, require

WORKLOADS: tuple[type[ClusterObject], ...] = (Service, ReplicationController, ReplicaSet, StatefulSet)
"""Kinds whose selectors say which pods belong together."""
KEPT = 4096
"""Of labels and controllers, and of a namespace's labels alone."""
SYSTEM = (
    TopologySpreadConstraint(
        max_skew=3, topology_key="kubernetes.io/hostname", when_unsatisfiable="ScheduleAnyway"
    ),
    TopologySpreadConstraint(
        max_skew=5, topology_key="topology.kubernetes.io/zone", when_unsatisfiable="ScheduleAnyway"
    ),
)
"""systemDefaultConstraints: what `defaultingType: System` stands for."""

_ACTIONS = ("DoNotSchedule", "ScheduleAnyway")


class PodTopologySpreadArgs(Arguments, frozen=True):
    """Source: PodTopologySpreadArgs (staging k8s.io/kube-scheduler/config/v1/types_pluginargs.go)."""

    defaulting_type: Literal["System", "List"] = "System"
    default_constraints: tuple[DefaultConstraint, ...] = ()


class DefaultConstraint(Arguments, frozen=True):
    """One of `defaultConstraints`: a pod's topologySpreadConstraint without a selector. `matchLabelKeys`
    may be there, as in kube-scheduler, and as there it selects nothing."""

    topology_key: str
    max_skew: int
    when_unsatisfiable: str
    label_selector: dict[str, Any] | None = None
    match_label_keys: tuple[str, ...] = ()
    min_domains: int | None = None
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    node_taints_policy: Literal["Honor", "Ignore"] | None = None


class SpreadRules(NamedTuple):
    """What a pod is spread by."""

    hard: tuple[SpreadConstraint, ...] = ()
    soft: tuple[SpreadConstraint, ...] = ()
    context: tuple[Hashable, ...] = ()
    """All that pods with equal default rules agree in; empty without default rules."""


NO_SPREAD = SpreadRules()


class DefaultSpread:
    """A profile's default constraints, and which of them a pod gets in a cluster."""

    def __init__(self, args: PodTopologySpreadArgs) -> None:
        """Raises ValueError for constraints that kube-scheduler refuses, too."""
        _validate(args)
        self.is_system = args.defaulting_type == "System"
        constraints = SYSTEM if self.is_system else tuple(map(_constraint, args.default_constraints))
        self._hard, self._soft = (
            tuple(c for c in constraints if c.when_unsatisfiable == action) for action in _ACTIONS
        )
        self._cluster: ClusterObjects | None = None
        self._changes = self._services_version = self._version = -1
        self._rules: Recent[tuple[Signature, Controller | None], SpreadRules] = Recent(KEPT)
        self._services: Recent[Signature, Selector] = Recent(KEPT)

    @property
    def is_empty(self) -> bool:
        """Whether no pod gets anything."""
        return not (self._hard or self._soft)

    @property
    def is_hard(self) -> bool:
        """Whether it may keep pods from nodes."""
        return bool(self._hard)

    def rules(self, pod: PodInfo, cluster: ClusterObjects) -> SpreadRules:
        """For a pod that has no constraints of its own."""
        if self.is_empty:
            return NO_SPREAD
        self._forget_outdated(cluster)
        key = pod.signature, pod.controller
        return self._rules.get(key) or self._rules.put(key, self._new_rules(pod, cluster))

    def _forget_outdated(self, cluster: ClusterObjects) -> None:
        if cluster is self._cluster and cluster.changes == self._changes:
            return
        services, version = cluster.version(Service), cluster.version(*WORKLOADS)
        if cluster is not self._cluster or services != self._services_version:
            self._services = Recent(KEPT)
        if cluster is not self._cluster or version != self._version:
            self._rules = Recent(KEPT)
        self._cluster, self._changes = cluster, cluster.changes
        self._services_version, self._version = services, version

    def _new_rules(self, pod: PodInfo, cluster: ClusterObjects) -> SpreadRules:
        services = self._services.get(pod.signature)
        if services is None:
            services = self._services.put(pod.signature, _of_services(pod, cluster))
        selector = _with_controller(services, pod, cluster)
        if not selector:
            return NO_SPREAD
        labels = pod.labels
        hard, soft = (
            tuple(spread_constraint(c, selector, labels) for c in constraints)
            for constraints in (self._hard, self._soft)
        )
        itself = bool(hard) and hard[0].self_matches
        return SpreadRules(hard, soft, (pod.namespace, selector, itself))


def _of_services(pod: PodInfo, cluster: ClusterObjects) -> Selector:
    """The selectors of all Services that mean the pod, as one; one without a selector means none."""
    labels, requirements = pod.labels, set[Requirement]()
    for service in cluster.in_namespace(Service, pod.namespace):
        wanted = service.spec.selector
        if wanted and all(labels.get(key) == value for key, value in wanted.items()):
            requirements.update(_equals(wanted))
    return in_order(requirements)


def _with_controller(services: Selector, pod: PodInfo, cluster: ClusterObjects) -> Selector:
    """Whether the controller's selector means the pod does not matter, nor does its uid."""
    if pod.controller is None:
        return services
    api_version, kind, name = pod.controller
    match api_version, kind:
        case "v1", "ReplicationController":
            found = cluster.get(ReplicationController, name, pod.namespace)
            wanted = (found.spec.selector if found is not None else None) or {}
            # Maps are merged, and the controller's has the last word.
            others = [requirement for requirement in services if requirement[0] not in wanted]
            return in_order([*others, *_equals(wanted)])
        case "apps/v1", "ReplicaSet" | "StatefulSet":
            owner: ReplicaSet | StatefulSet | None = (
                cluster.get(ReplicaSet, name, pod.namespace)
                if kind == "ReplicaSet"
                else cluster.get(StatefulSet, name, pod.namespace)
            )
            own = make_selector(owner.spec.selector) if owner is not None else None
            return in_order([*services, *(own or ())])
        case _:
            return services


def _equals(labels: dict[str, str]) -> Sequence[Requirement]:
    return [(key, "In", (value,)) for key, value in labels.items()]


def _constraint(given: DefaultConstraint) -> TopologySpreadConstraint:
    return TopologySpreadConstraint(
        max_skew=given.max_skew,
        topology_key=given.topology_key,
        when_unsatisfiable=given.when_unsatisfiable,
        min_domains=given.min_domains,
        node_affinity_policy=given.node_affinity_policy,
        node_taints_policy=given.node_taints_policy,
    )


def _validate(args: PodTopologySpreadArgs) -> None:
    """ValidatePodTopologySpreadArgs (pkg/scheduler/apis/config/validation/validation_pluginargs.go)."""
    given = args.default_constraints
    require(
        args.defaulting_type == "List" or not given,
        "defaultingType",
        "System brings its own constraints; with defaultConstraints it must be List",
    )
    seen = set()
    for i, constraint in enumerate(given):
        at = f"defaultConstraints[{i}]"
        key, action = constraint.topology_key, constraint.when_unsatisfiable
        require(constraint.max_skew > 0, f"{at}.maxSkew", f"must be 1 or more, got {constraint.max_skew}")
        require(bool(key), f"{at}.topologyKey", "is required")
        require(_is_label_name(key), f"{at}.topologyKey", f"{key!r} is no name of a label")
        require(
            action in _ACTIONS,
            f"{at}.whenUnsatisfiable",
            f"must be {' or '.join(_ACTIONS)}, got {action!r}",
        )
        require(
            constraint.label_selector is None,
            f"{at}.labelSelector",
            "must not be there, as selectors follow from what owns each pod",
        )
        require((key, action) not in seen, at, f"there is another one with {key} and {action}")
        seen.add((key, action))


_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _is_label_name(key: str) -> bool:
    """IsQualifiedName (apimachinery pkg/util/validation)."""
    prefix, slash, name = key.rpartition("/")
    prefixed = not slash or (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix) is not None)
    return prefixed and _NAME.fullmatch(name) is not None
