"""Rules of a pod about other pods: affinity, anti-affinity and spreading, in a form that is compared,
hashed and matched without another look at the API object.

Two pods of one Deployment carry equal rules, and so do most pods of a cluster, so that counts are kept
once per rule and not per pod. Selectors are put in order for this: `{a: 1, b: 2}` is `{b: 2, a: 1}`.
Sources: framework.AffinityTerm (kube-scheduler framework/types.go), filterTopologySpreadConstraints
(plugins/podtopologyspread/common.go), LabelSelectorAsSelector (apimachinery meta/v1/helpers.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from scheduler.api import LabelSelector, Pod, PodAffinity, PodAffinityTerm, TopologySpreadConstraint

Requirement = tuple[str, str, tuple[str, ...]]
"""(label key, operator, values in order)."""
Selector = tuple[Requirement, ...]
"""All of them must hold; the empty one selects everything. Where None is allowed it selects nothing."""


class Who(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Pods by namespace and labels."""

    namespaces: tuple[str, ...]
    namespace_selector: Selector | None
    selector: Selector | None

    def matches(self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
        """Whether a pod of this namespace and with these labels is meant."""
        return (
            namespace in self.namespaces or selects(self.namespace_selector, namespace_labels)
        ) and selects(self.selector, labels)


class AffinityTerm(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Pods, and the label of nodes that says what is near them."""

    topology_key: str
    who: Who


class WeightedTerm(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A preference; to keep away has a negative weight."""

    weight: int
    term: AffinityTerm


class SpreadConstraint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One topology spread constraint; counts pods of the pod's own namespace."""

    topology_key: str
    max_skew: int
    selector: Selector | None
    self_matches: bool
    """Whether the pod is among those that it counts."""
    min_domains: int
    honors_affinity: bool
    """Nodes that the pod's node selector or affinity excludes are no part of any domain."""
    honors_taints: bool


class TopologyRules(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All the rules of one pod about others."""

    affinity: tuple[AffinityTerm, ...] = ()
    selects_itself: bool = False
    """Whether all selectors of `affinity` match the pod's own labels; namespaces are another matter."""
    anti_affinity: tuple[AffinityTerm, ...] = ()
    preferred: tuple[WeightedTerm, ...] = ()
    hard_spread: tuple[SpreadConstraint, ...] = ()
    soft_spread: tuple[SpreadConstraint, ...] = ()


NO_RULES = TopologyRules()


def topology_rules(pod: Pod) -> TopologyRules:
    """The rules in a pod's spec."""
    affinity, constraints = pod.spec.affinity, pod.spec.topology_spread_constraints
    near = affinity.pod_affinity if affinity is not None else None
    apart = affinity.pod_anti_affinity if affinity is not None else None
    if near is None and apart is None and not constraints:
        return NO_RULES
    labels, required = pod.metadata.labels or {}, _required(near, pod)
    return TopologyRules(
        affinity=required,
        selects_itself=all(selects(term.who.selector, labels) for term in required),
        anti_affinity=_required(apart, pod),
        preferred=(*_preferred(near, pod, 1), *_preferred(apart, pod, -1)),
        hard_spread=_spread(constraints or (), pod, "DoNotSchedule"),
        soft_spread=_spread(constraints or (), pod, "ScheduleAnyway"),
    )


def selects(selector: Selector | None, labels: Mapping[str, str]) -> bool:
    """labels.Selector.Matches; None selects nothing, and so does an operator that does not exist."""
    if selector is None:
        return False
    for key, operator, values in selector:
        value = labels.get(key)
        match operator:
            case "In":
                holds = value in values
            case "NotIn":
                holds = value not in values
            case "Exists":
                holds = value is not None
            case "DoesNotExist":
                holds = value is None
            case _:
                holds = False
        if not holds:
            return False
    return True


def make_selector(selector: LabelSelector | None) -> Selector | None:
    """An API selector in order; None, which selects nothing, stays None."""
    if selector is None:
        return None
    return in_order(
        [(key, "In", (value,)) for key, value in (selector.match_labels or {}).items()]
        + [(r.key, r.operator, tuple(sorted(r.values or ()))) for r in selector.match_expressions or ()]
    )


def in_order(requirements: Iterable[Requirement]) -> Selector:
    """A selector that is the same whoever wrote it down in which order."""
    return tuple(sorted(set(requirements)))


def spread_constraint(
    constraint: TopologySpreadConstraint, selector: Selector | None, labels: Mapping[str, str]
) -> SpreadConstraint:
    """The constraint with this selector, for a pod with these labels; defaults as in
    filterTopologySpreadConstraints."""
    return SpreadConstraint(
        topology_key=constraint.topology_key,
        max_skew=constraint.max_skew,
        selector=selector,
        self_matches=selects(selector, labels),
        min_domains=1 if constraint.min_domains is None else constraint.min_domains,
        honors_affinity=constraint.node_affinity_policy != "Ignore",
        honors_taints=constraint.node_taints_policy == "Honor",
    )


def _term(term: PodAffinityTerm, pod: Pod) -> AffinityTerm:
    namespaces = term.namespaces or []
    if not namespaces and term.namespace_selector is None:
        namespaces = [pod.metadata.namespace]
    who = Who(
        tuple(sorted(set(namespaces))),
        make_selector(term.namespace_selector),
        make_selector(term.label_selector),
    )
    return AffinityTerm(term.topology_key, who)


def _required(rules: PodAffinity | None, pod: Pod) -> tuple[AffinityTerm, ...]:
    terms = rules.required or () if rules is not None else ()
    return tuple(_term(term, pod) for term in terms)


def _preferred(rules: PodAffinity | None, pod: Pod, sign: int) -> tuple[WeightedTerm, ...]:
    terms = rules.preferred or () if rules is not None else ()
    return tuple(WeightedTerm(sign * t.weight, _term(t.pod_affinity_term, pod)) for t in terms)


def _spread(
    constraints: list[TopologySpreadConstraint] | tuple[()], pod: Pod, action: str
) -> tuple[SpreadConstraint, ...]:
    labels = pod.metadata.labels or {}
    found = []
    for constraint in constraints:
        if constraint.when_unsatisfiable != action:
            continue
        selector = make_selector(constraint.label_selector)
        if selector is not None:
            # API servers before 1.34 leave this to the scheduler; after them it changes nothing.
            own = [(key, "In", (labels[key],)) for key in constraint.match_label_keys or () if key in labels]
            selector = in_order([*selector, *own])
        found.append(spread_constraint(constraint, selector, labels))
    return tuple(found)
