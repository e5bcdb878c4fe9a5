"""NodeName: a pod that names its node fits that node alone.

Source: pkg/scheduler/framework/plugins/nodename.
"""

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import ALL_NODES, FilterPlugin, FilterResult, PreFilterResult, Wake, rejects
from scheduler.core.pod_info import PodInfo

REASON = "node(s) didn't match the requested node name"


class NodeName(FilterPlugin):
    name = "NodeName"
    reads = ("node_name",)
    wakes_on = Wake.NODE_ADD

    def prefilter(self, pod: PodInfo) -> PreFilterResult:
        if not pod.node_name:
            return ALL_NODES
        return PreFilterResult(node_names=frozenset([pod.node_name]))

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.node_name)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        return rejects(~nodes.named(pod.node_name), unresolvable=True)
