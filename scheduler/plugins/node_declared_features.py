"""NodeDeclaredFeatures: features of the kubelet that a pod can't run without.

Source: pkg/scheduler/framework/plugins/nodedeclaredfeatures (KEP-5328). What a spec needs is inferred
in `PodInfo.required_features`; a node has what its kubelet lists in `status.declaredFeatures`. Whether
a feature can be dropped because every supported kubelet has it is not asked: none of 1.37's can.
"""

from scheduler.core.labels import lookup
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, Wake, rejects
from scheduler.core.pod_info import PodInfo

REASON = "node(s) didn't match Pod's required features"


class NodeDeclaredFeatures(FilterPlugin):
    name = "NodeDeclaredFeatures"
    reads = ("required_features",)
    wakes_on = Wake.NODE_ADD | Wake.NODE_FEATURES

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.required_features)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        wanted = frozenset(pod.required_features)
        return rejects(~lookup(*nodes.declared_features, wanted.issubset), unresolvable=True)
