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
from numpy.typing import NDArray

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import (
    MAX_NODE_SCORE,
    FilterPlugin,
    FilterResult,
    Mask,
    Ranking,
    ScorePlugin,
    Wake,
)
from scheduler.core.pod_index import Query, Role
from scheduler.core.pod_info import PodInfo
from scheduler.plugins.arguments import Arguments, read_arguments, require
from scheduler.plugins.domains import Domains

REASONS = (
    "node(s) didn't match pod affinity rules",
    "node(s) didn't match pod anti-affinity rules",
    "node(s) didn't satisfy existing pods anti-affinity rules",
)
_AFFINITY, _ANTI_AFFINITY, _EXISTING = (np.uint64(1 << k) for k in range(len(REASONS)))


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
    cured_by_pods = int(_AFFINITY)
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
        return tuple([carried.serial for carried in nodes.concerning(pod)])

    # ---- filter

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.rules.affinity or pod.rules.anti_affinity)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return REASONS

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        rules, domains = pod.rules, Domains(nodes)
        bits = np.zeros(nodes.count, np.uint64)
        for carried in nodes.concerning(pod):
            if carried.role is Role.ANTI_AFFINITY:
                near = domains.sums(carried.term.topology_key, nodes.carrying(carried)) > 0
                bits[near] = _EXISTING
        for term in rules.anti_affinity:
            near = domains.sums(term.topology_key, nodes.matching(Query([term.who]))) > 0
            bits[near] = _ANTI_AFFINITY
        if rules.affinity:
            bits[~_near_wanted(pod, nodes, domains)] = _AFFINITY
        return FilterResult(bits, bits == _AFFINITY)

    # ---- score

    def prefers(self, pod: PodInfo, nodes: NodeView) -> bool:
        if pod.rules.preferred:
            return True
        return not self.ignores_others and any(
            carried.role is Role.PREFERRED or (carried.role is Role.AFFINITY and self.hard_weight)
            for carried in nodes.concerning(pod)
        )

    def rank(self, pod: PodInfo, nodes: NodeView, feasible: Mask) -> Ranking:
        """Raw: the sum of weights of all that is near."""
        near: dict[str, NDArray[np.int64]] = {}

        def add(topology_key: str, weights: NDArray[np.int64]) -> None:
            near[topology_key] = near[topology_key] + weights if topology_key in near else weights

        for preferred in pod.rules.preferred:
            term = preferred.term
            add(term.topology_key, nodes.matching(Query([term.who])) * preferred.weight)
        for carried in nodes.concerning(pod):
            if carried.role is not Role.ANTI_AFFINITY:
                weight = 1 if carried.role is Role.PREFERRED else self.hard_weight
                add(carried.term.topology_key, nodes.carrying(carried) * weight)
        domains = Domains(nodes)
        raw = np.zeros(int(np.count_nonzero(feasible)), np.int64)
        for topology_key, weights in near.items():
            raw += domains.sums(topology_key, weights)[feasible]
        return Ranking(raw, _stretched(raw))


def _near_wanted(pod: PodInfo, nodes: NodeView, domains: Domains) -> Mask:
    """bool[n]: each term's domain holds a pod that *all* terms mean. If there is none in any domain,
    a pod that all of its own terms mean may be the first, wherever the labels are."""
    terms = pod.rules.affinity
    matching = nodes.matching(Query([term.who for term in terms]))
    labelled = near = np.ones(nodes.count, np.bool_)
    anywhere = False
    for term in terms:
        sums = domains.sums(term.topology_key, matching)
        anywhere = anywhere or bool(sums.any())
        near = near & (sums > 0)
        labelled = labelled & domains.labelled(term.topology_key)
    return labelled if not anywhere and _means_itself(pod, nodes) else near


def _means_itself(pod: PodInfo, nodes: NodeView) -> bool:
    labels = nodes.namespace_labels(pod.namespace)
    return pod.rules.selects_itself and all(
        term.who.matches(pod.namespace, pod.labels, labels) for term in pod.rules.affinity
    )


def _stretched(raw: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lowest to highest over 0 … 100; all 0 when they are equal."""
    lowest, span = raw.min(), raw.max() - raw.min()
    if not span:
        return np.zeros_like(raw)
    # As the original computes it: in floating point, cut off.
    return np.asarray(MAX_NODE_SCORE * ((raw - lowest) / span), np.int64)
