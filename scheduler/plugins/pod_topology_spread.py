"""PodTopologySpread: pods like this one spread evenly over zones, nodes or other domains.

A constraint counts the pods of the pod's own namespace that its selector matches, those being deleted
aside, in each domain. Hard constraints (`DoNotSchedule`) bound how many more the pod's domain may
have than the one with fewest; soft ones (`ScheduleAnyway`) prefer domains with few.

Source: pkg/scheduler/framework/plugins/podtopologyspread (filtering.go, scoring.go, common.go).
Pods that have no constraints get the profile's: see `scheduler.plugins.default_spread`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, Mask, Ranking, ScorePlugin, Wake, passes
from scheduler.core.pod_info import PodInfo
from scheduler.core.topology_rules import selects
from scheduler.plugins.arguments import read_arguments
from scheduler.plugins.default_spread import WORKLOADS, DefaultSpread, PodTopologySpreadArgs, SpreadRules
from scheduler.plugins.spread_followers import REASONS, SKEWED, SpreadFilter, SpreadRank


class PodTopologySpread(FilterPlugin, ScorePlugin):
    """Spreads pods by their own constraints, or by the profile's."""

    name = "PodTopologySpread"
    reads = ("spread_rules", "node_selector", "required_node_affinity", "tolerations")
    reads_usage = True
    row_local = False
    cured_by_pods = int(SKEWED)
    wakes_on = Wake.ASSIGNED_POD_ANY | Wake.NODE_ADD | Wake.NODE_REMOVED | Wake.NODE_LABELS | Wake.NODE_TAINTS

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for unknown arguments or values."""
        self._default = DefaultSpread(read_arguments(args, PodTopologySpreadArgs))
        if not self._default.is_empty:
            self.watches = WORKLOADS
        if self._default.is_hard:
            self.wakes_on |= Wake.WORKLOAD

    def context(self, pod: PodInfo, nodes: NodeView) -> tuple[Hashable, ...]:
        return () if _has_own(pod) else self._default.rules(pod, nodes.cluster).context

    # ---- filter

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.rules.hard_spread)

    def applies_in(self, context: tuple[Hashable, ...]) -> bool:
        return self._default.is_hard

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return REASONS

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        if not self._rules(pod, nodes).hard:
            return passes(nodes.count)
        follower = self.follow_filter(pod, nodes)
        return FilterResult(follower.bits, follower.unresolvable)

    def follow_filter(self, pod: PodInfo, nodes: NodeView) -> SpreadFilter:
        return SpreadFilter(pod, nodes, self._rules(pod, nodes).hard)

    def minds(self, pod: PodInfo, other: PodInfo, nodes: NodeView) -> bool:
        return other.namespace == pod.namespace and any(
            selects(constraint.selector, other.labels) for constraint in self._rules(pod, nodes).hard
        )

    # ---- score

    def prefers(self, pod: PodInfo, nodes: NodeView) -> bool:
        return bool(self._rules(pod, nodes).soft)

    def rank(self, pod: PodInfo, nodes: NodeView, feasible: Mask) -> Ranking:
        return self.follow_rank(pod, nodes).rank(np.flatnonzero(feasible))

    def follow_rank(self, pod: PodInfo, nodes: NodeView) -> SpreadRank:
        lenient = self._default.is_system and not _has_own(pod)
        return SpreadRank(pod, nodes, self._rules(pod, nodes).soft, lenient=lenient)

    def _rules(self, pod: PodInfo, nodes: NodeView) -> SpreadRules:
        if _has_own(pod):
            return SpreadRules(pod.rules.hard_spread, pod.rules.soft_spread)
        return self._default.rules(pod, nodes.cluster)


def _has_own(pod: PodInfo) -> bool:
    return bool(pod.rules.hard_spread or pod.rules.soft_spread)
