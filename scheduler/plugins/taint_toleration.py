"""TaintToleration: nodes whose NoSchedule and NoExecute taints the pod does not tolerate.

Sources: pkg/scheduler/framework/plugins/tainttoleration; ToleratesTaint
(staging api/core/v1/toleration.go). The numeric operators Gt and Lt are behind the gate
TaintTolerationComparisonOperators, off in 1.37, so they match nothing.
"""

from collections.abc import Sequence

from scheduler.api import Toleration
from scheduler.core.labels import lookup
from scheduler.core.nodes import NodeTaint, NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, Wake, rejects
from scheduler.core.pod_info import PodInfo

REASON = "node(s) had untolerated taint(s)"
_REPELLING = ("NoSchedule", "NoExecute")


def tolerates(tolerations: Sequence[Toleration], taint: NodeTaint) -> bool:
    """Whether any toleration matches the taint (key, value, effect)."""
    key, value, effect = taint
    return any(
        (not t.effect or t.effect == effect)
        and (not t.key or t.key == key)
        and (t.operator == "Exists" or (t.operator in (None, "", "Equal") and (t.value or "") == value))
        for t in tolerations
    )


class TaintToleration(FilterPlugin):
    name = "TaintToleration"
    reads = ("tolerations",)
    wakes_on = Wake.NODE_ADD | Wake.NODE_TAINTS

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        tolerations = pod.tolerations

        def repels(taints: tuple[NodeTaint, ...]) -> bool:
            return any(taint[2] in _REPELLING and not tolerates(tolerations, taint) for taint in taints)

        return rejects(lookup(*nodes.taints, repels), unresolvable=True)
