"""UnsupportedRules: a hard rule that this version cannot enforce keeps its pod waiting.

Placing such a pod and hoping would break what its author asked for; the event says which rule it is.
"""

from scheduler.core.plugin import ALL_NODES, FilterPlugin, PreFilterResult, Wake
from scheduler.core.pod_info import PodInfo


class UnsupportedRules(FilterPlugin):
    name = "UnsupportedRules"
    reads = ("unsupported_rules",)
    wakes_on = Wake.NOTHING

    def prefilter(self, pod: PodInfo) -> PreFilterResult:
        if not pod.unsupported_rules:
            return ALL_NODES
        return PreFilterResult(rejection=f"Wholepod does not support {', '.join(pod.unsupported_rules)} yet")

    def applies(self, pod: PodInfo) -> bool:
        return False  # all is said before nodes are looked at

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return ()
