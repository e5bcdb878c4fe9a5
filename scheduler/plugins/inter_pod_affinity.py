"""InterPodAffinity: pods near others, or away from them.

A term names pods (namespaces and labels) and a node label; nodes with the same value of that label
are one domain. Pods on nodes without the label count for no term. What pods that already are on
nodes ask for counts as well: their required anti-affinity keeps others out of their domain, their
preferences (and, weakly, their required affinity) draw others in or push them away.

Source: pkg/scheduler/framework/plugins/interpodaffinity (filtering.go, scoring.go), with the gate
InterPodAffinityHostnameFastPath off as in 1.37; it changes the cost there, not the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, Mask, Ranking, ScorePlugin, Wake
from scheduler.core.pod_index import Role
from scheduler.core.pod_info import PodInfo
from scheduler.core.topology_rules import AffinityTerm
from scheduler.plugins.affinity_followers import AFFINITY, REASONS, AffinityFilter, AffinityRank
from scheduler.plugins.arguments import Arguments, read_arguments, require


class InterPodAffinityArgs(Arguments, frozen=True):
    """Source: InterPodAffinityArgs (staging k8s.io/kube-scheduler/config/v1/types_pluginargs.go)."""

    hard_pod_affinity_weight: int = 1
    """What the required affinity of a pod on a node is worth to the pods that it asks for."""
    ignore_preferred_terms_of_existing_pods: bool = False
    """For pods without preferences of their own."""


class InterPodAffinity(FilterPlugin, ScorePlugin):
    """Keeps pods together and apart."""

    name = "InterPodAffinity"
    reads = ("affinity_rules",)
    reads_usage = True
    row_local = False
    cured_by_pods = int(AFFINITY)
    wakes_on = (
        Wake.ASSIGNED_POD_ANY | Wake.NODE_ADD | Wake.NODE_REMOVED | Wake.NODE_LABELS | Wake.NAMESPACE_LABELS
    )

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for unknown arguments or values."""
        given = read_arguments(args, InterPodAffinityArgs)
        self.hard_weight = given.hard_pod_affinity_weight
        self.ignores_others = given.ignore_preferred_terms_of_existing_pods
        valid = 0 <= self.hard_weight <= 100
        require(valid, "hardPodAffinityWeight", f"must be 0 to 100, got {self.hard_weight}")

    def context(self, pod: PodInfo, nodes: NodeView) -> tuple[int, ...]:
        """Terms of pods on nodes, those that keep the pod out of places with a minus."""
        return tuple(
            [c.serial if c.role is not Role.ANTI_AFFINITY else -c.serial for c in nodes.concerning(pod)]
        )

    # ---- filter

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.rules.affinity or pod.rules.anti_affinity)

    def applies_in(self, context: tuple[Any, ...]) -> bool:
        return any(serial < 0 for serial in context)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return REASONS

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        follower = AffinityFilter(pod, nodes)
        return FilterResult(follower.bits, follower.unresolvable)

    def follow_filter(self, pod: PodInfo, nodes: NodeView) -> AffinityFilter:
        return AffinityFilter(pod, nodes)

    def minds(self, pod: PodInfo, other: PodInfo, nodes: NodeView) -> bool:
        return any(
            _means(term, other, nodes) for term in (*pod.rules.affinity, *pod.rules.anti_affinity)
        ) or any(_means(term, pod, nodes) for term in other.rules.anti_affinity)

    # ---- score

    def prefers(self, pod: PodInfo, nodes: NodeView) -> bool:
        if pod.rules.preferred:
            return True
        return not self.ignores_others and any(
            carried.role is Role.PREFERRED or (carried.role is Role.AFFINITY and self.hard_weight)
            for carried in nodes.concerning(pod)
        )

    def rank(self, pod: PodInfo, nodes: NodeView, feasible: Mask) -> Ranking:
        return self.follow_rank(pod, nodes).rank(np.flatnonzero(feasible))

    def follow_rank(self, pod: PodInfo, nodes: NodeView) -> AffinityRank:
        return AffinityRank(pod, nodes, hard_weight=self.hard_weight)


def _means(term: AffinityTerm, pod: PodInfo, nodes: NodeView) -> bool:
    return term.who.matches(pod.namespace, pod.labels, nodes.namespace_labels(pod.namespace))
