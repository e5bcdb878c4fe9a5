"""TaintToleration: rejects nodes whose NoSchedule and NoExecute taints the pod does not tolerate, and
avoids those whose PreferNoSchedule taints it does not tolerate, the more of them the more.

Sources: pkg/scheduler/framework/plugins/tainttoleration; ToleratesTaint
(staging api/core/v1/toleration.go). The numeric operators Gt and Lt are behind the gate
TaintTolerationComparisonOperators, off in 1.37, so they match nothing.
"""

from collections.abc import Sequence

from scheduler.api import Toleration
from scheduler.core.labels import lookup, lookup_counts
from scheduler.core.nodes import NodeTaint, NodeView
from scheduler.core.plugin import (
    FilterPlugin,
    FilterResult,
    ScorePlugin,
    Scores,
    Wake,
    rejects,
    scaled_to_highest,
)
from scheduler.core.pod_info import PodInfo

REASON = "node(s) had untolerated taint(s)"
_REPELLING = ("NoSchedule", "NoExecute")
_UNWELCOMING = "PreferNoSchedule"


def tolerates(tolerations: Sequence[Toleration], taint: NodeTaint) -> bool:
    """Whether any toleration matches the taint (key, value, effect)."""
    key, value, effect = taint
    return any(
        (not t.effect or t.effect == effect)
        and (not t.key or t.key == key)
        and (t.operator == "Exists" or (t.operator in (None, "", "Equal") and (t.value or "") == value))
        for t in tolerations
    )


class TaintToleration(FilterPlugin, ScorePlugin):
    name = "TaintToleration"
    reads = ("tolerations",)
    normalized = False
    wakes_on = Wake.NODE_ADD | Wake.NODE_TAINTS

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        tolerations = pod.tolerations

        def repels(taints: tuple[NodeTaint, ...]) -> bool:
            return any(taint[2] in _REPELLING and not tolerates(tolerations, taint) for taint in taints)

        return rejects(lookup(*nodes.taints, repels), unresolvable=True)

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        """How many PreferNoSchedule taints the pod does not tolerate; `normalize` turns it round."""
        tolerations = pod.tolerations

        def intolerable(taints: tuple[NodeTaint, ...]) -> int:
            return sum(taint[2] == _UNWELCOMING and not tolerates(tolerations, taint) for taint in taints)

        return lookup_counts(*nodes.taints, intolerable)

    def normalize(self, raw: Scores) -> Scores:
        return scaled_to_highest(raw, reverse=True)
