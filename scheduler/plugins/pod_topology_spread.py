"""PodTopologySpread: pods like this one spread evenly over zones, nodes or other domains.

A constraint counts the pods of the pod's own namespace that its selector matches, those being deleted
aside, in each domain. Hard constraints (`DoNotSchedule`) bound how many more the pod's domain may
have than the one with fewest; soft ones (`ScheduleAnyway`) prefer domains with few.

Source: pkg/scheduler/framework/plugins/podtopologyspread (filtering.go, scoring.go, common.go).
Constraints that kube-scheduler adds by default to pods of Services and controllers are not built yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
    Scores,
    Wake,
)
from scheduler.core.pod_index import Query
from scheduler.core.pod_info import PodInfo
from scheduler.core.topology_rules import SpreadConstraint, Who
from scheduler.plugins.arguments import Arguments, read_arguments, require
from scheduler.plugins.domains import HOSTNAME, Domains
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.taint_toleration import TaintToleration

REASON = "node(s) didn't match pod topology spread constraints"
REASONS = (REASON, f"{REASON} (missing required label)")
_SKEWED, _UNLABELLED = np.uint64(1), np.uint64(2)
_AFFINITY, _TAINTS = NodeAffinity(), TaintToleration()


class PodTopologySpreadArgs(Arguments, frozen=True):
    """Source: PodTopologySpreadArgs (staging k8s.io/kube-scheduler/config/v1/types_pluginargs.go), where
    `System` is the default."""

    defaulting_type: Literal["List", "System"] = "List"
    default_constraints: tuple[dict[str, Any], ...] = ()


class PodTopologySpread(FilterPlugin, ScorePlugin):
    """Spreads pods by their own constraints."""

    name = "PodTopologySpread"
    reads = ("spread_rules", "node_selector", "required_node_affinity", "tolerations")
    reads_usage = True
    row_local = False
    cured_by_pods = int(_SKEWED)
    wakes_on = Wake.ASSIGNED_POD_ANY | Wake.NODE_ADD | Wake.NODE_REMOVED | Wake.NODE_LABELS | Wake.NODE_TAINTS

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for unknown arguments and for defaulting, which is not built yet."""
        given = read_arguments(args, PodTopologySpreadArgs)
        why = "not supported yet, as it depends on Services and controllers"
        require(given.defaulting_type == "List", "defaultingType", f"System is {why}; use List")
        require(not given.default_constraints, "defaultConstraints", why)

    # ---- filter

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.rules.hard_spread)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return REASONS

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        """The first constraint that a node breaks is the one that counts."""
        constraints, domains = pod.rules.hard_spread, Domains(nodes)
        included = _Included(pod, nodes, _in_all_domains(constraints, domains))
        bits = np.zeros(nodes.count, np.uint64)
        for constraint in constraints:
            ids, size = domains.of(constraint.topology_key)
            counted = included.by(constraint)
            matching = np.where(counted, _matching(constraint, pod, nodes), 0)
            per_domain = np.bincount(ids, weights=matching, minlength=size).astype(np.int64)
            per_domain[0] = 0
            existing = np.zeros(size, np.bool_)
            existing[ids[counted]] = True
            enough = int(np.count_nonzero(existing)) >= constraint.min_domains
            fewest = int(per_domain[existing].min()) if enough and existing.any() else 0
            skew = per_domain[ids] + int(constraint.self_matches) - fewest
            broken = np.where(ids == 0, _UNLABELLED, np.where(skew > constraint.max_skew, _SKEWED, 0))
            bits = np.where(bits == 0, broken, bits)
        return FilterResult(bits.astype(np.uint64), bits == _UNLABELLED)

    # ---- score

    def prefers(self, pod: PodInfo, nodes: NodeView) -> bool:
        return bool(pod.rules.soft_spread)

    def rank(self, pod: PodInfo, nodes: NodeView, feasible: Mask) -> Ranking:
        """Raw: matching pods in the node's domains, each domain weighted by how many there are of its
        sort; 0 for nodes that lack one of the labels, which are normalised to 0 too."""
        constraints, domains = pod.rules.soft_spread, Domains(nodes)
        labelled = _in_all_domains(constraints, domains)
        included = _Included(pod, nodes, labelled)
        candidates = feasible & labelled
        score = np.zeros(nodes.count, np.float64)
        for constraint in constraints:
            matching = _matching(constraint, pod, nodes)
            if constraint.topology_key == HOSTNAME:
                sort_size = int(np.count_nonzero(candidates))  # each node is taken for its own domain
            else:
                ids, _ = domains.of(constraint.topology_key)
                sort_size = int(np.count_nonzero(np.bincount(ids[candidates])))
                matching = domains.sums(
                    constraint.topology_key, np.where(included.by(constraint), matching, 0)
                )
            score += matching * math.log(sort_size + 2) + (constraint.max_skew - 1)
        raw = np.where(labelled, _rounded(score), 0)[feasible]
        return Ranking(raw, _inverted(raw, labelled[feasible]))


class _Included:
    """Which nodes a constraint counts, by its node inclusion policies."""

    def __init__(self, pod: PodInfo, nodes: NodeView, labelled: Mask) -> None:
        self._pod, self._nodes, self._labelled = pod, nodes, labelled
        self._allowed: dict[str, Mask] = {}

    def by(self, constraint: SpreadConstraint) -> Mask:
        """bool[n]."""
        mask = self._labelled
        if constraint.honors_affinity:
            mask = mask & self._passes(_AFFINITY)
        if constraint.honors_taints:
            mask = mask & self._passes(_TAINTS)
        return mask

    def _passes(self, plugin: FilterPlugin) -> Mask | bool:
        if not plugin.applies(self._pod):
            return True
        if plugin.name not in self._allowed:
            self._allowed[plugin.name] = plugin.filter(self._pod, self._nodes).reason_bits == 0
        return self._allowed[plugin.name]


def _in_all_domains(constraints: Sequence[SpreadConstraint], domains: Domains) -> Mask:
    """bool[n]: nodes that have the labels of all constraints; others count for none."""
    labelled = domains.labelled(constraints[0].topology_key)
    for constraint in constraints[1:]:
        labelled = labelled & domains.labelled(constraint.topology_key)
    return labelled


def _matching(constraint: SpreadConstraint, pod: PodInfo, nodes: NodeView) -> NDArray[np.int64]:
    """int64[n]: pods that the constraint counts; an empty selector counts none."""
    if not constraint.selector:
        return np.zeros(nodes.count, np.int64)
    who = Who((pod.namespace,), None, constraint.selector)
    return nodes.matching(Query([who], living=True))


def _rounded(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Go's math.Round of what is not negative: halves away from zero."""
    whole = np.floor(score)
    return (whole + (score - whole >= 0.5)).astype(np.int64)


def _inverted(raw: Scores, labelled: Mask) -> Scores:
    """Few is good: 100 for the best; 0 for nodes without the labels."""
    if not labelled.any():
        return np.zeros_like(raw)
    lowest, highest = int(raw[labelled].min()), int(raw[labelled].max())
    if highest == 0:
        return np.where(labelled, MAX_NODE_SCORE, 0)
    return np.where(labelled, MAX_NODE_SCORE * (highest + lowest - raw) // highest, 0)
