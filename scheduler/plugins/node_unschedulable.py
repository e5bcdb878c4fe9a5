"""NodeUnschedulable: cordoned nodes take no pods but those that tolerate it.

Source: pkg/scheduler/framework/plugins/nodeunschedulable.
"""

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, Wake, rejects
from scheduler.core.pod_info import PodInfo
from scheduler.plugins.taint_toleration import tolerates

REASON = "node(s) were unschedulable"
_TAINT = ("node.kubernetes.io/unschedulable", "", "NoSchedule")


class NodeUnschedulable(FilterPlugin):
    name = "NodeUnschedulable"
    reads = ("tolerations",)
    wakes_on = Wake.NODE_ADD | Wake.NODE_SCHEDULABLE

    def applies(self, pod: PodInfo) -> bool:
        return not tolerates(pod.tolerations, _TAINT)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        return rejects(nodes.unschedulable, unresolvable=True)
