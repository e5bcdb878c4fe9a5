"""NodePorts: a host port is taken once per node and address.

Sources: pkg/scheduler/framework/plugins/nodeports; HostPortInfo (kube-scheduler framework/types.go).
"""

from collections.abc import Iterable

import numpy as np

from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, Wake, rejects
from scheduler.core.pod_info import ANY_IP, HostPort, PodInfo

REASON = "node(s) didn't have free ports for the requested pod ports"


def conflict(wanted: Iterable[HostPort], in_use: Iterable[HostPort]) -> bool:
    """Same protocol and port, and either address is the wildcard or both are the same."""
    taken = set(in_use)
    return any(
        protocol == used_protocol and port == used_port and (ip == used_ip or ANY_IP in (ip, used_ip))
        for protocol, port, ip in wanted
        for used_protocol, used_port, used_ip in taken
    )


class NodePorts(FilterPlugin):
    name = "NodePorts"
    reads = ("host_ports",)
    reads_usage = True
    wakes_on = Wake.NODE_ADD | Wake.ASSIGNED_POD_REMOVED

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.host_ports)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        taken = np.zeros(nodes.count, np.bool_)
        for position, in_use in nodes.ports():
            taken[position] = conflict(pod.host_ports, in_use)
        return rejects(taken, unresolvable=False)
