"""`minResources` of a `scheduling.x-k8s.io` PodGroup: before the cluster has so much room, no try is made.

A sum over all nodes says little about whether the members fit, but that they can't is known at once from
it, which spares a large gang many plans in vain. As in scheduler-plugins the gang's own room counts as
free, and `minMember` pods are asked for beside the resources (PreFilter and CheckClusterResource in
pkg/coscheduling/core/core.go). Here the room of pods that the gang may evict counts, too: it would never
be tried otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.gang import GangOptions
from scheduler.core.state import ClusterState

PODS = "pods"
_MIB = 1 << 20


def shortage(gang: Gang, options: GangOptions, state: ClusterState) -> str:
    """What the gang's PodGroup asks for and the cluster has not; empty if there is room for it, or all
    members that it needs have places."""
    if not options.min_resources or sum(uid in state.pods for uid in gang.members) >= options.min_count:
        return ""
    wanted = {**options.min_resources, PODS: options.min_count}
    lacking = _lacking(wanted, _free(state, wanted))
    if lacking:
        freeable = _held_by_others(gang, state, wanted)
        lacking = _lacking(lacking, freeable)
    if not lacking:
        return ""
    texts = [
        f"{_text(name, wanted[name])} {name} ({_text(name, wanted[name] - amount)} to be had)"
        for name, amount in sorted(lacking.items())
    ]
    return (
        f"gang {gang.ref} is not tried before the cluster has room for what minResources and minMember of "
        f"its PodGroup ask for: {', '.join(texts)}"
    )


def _lacking(wanted: Mapping[str, int], there: Mapping[str, int]) -> dict[str, int]:
    rest = {name: amount - there.get(name, 0) for name, amount in wanted.items()}
    return {name: amount for name, amount in rest.items() if amount > 0}


def _free(state: ClusterState, wanted: Mapping[str, int]) -> dict[str, int]:
    """On nodes that are overcommitted there is none, rather than less than none."""
    nodes, n = state.nodes, len(state.nodes)
    free = {PODS: int(np.maximum(nodes.pod_limit[:n] - nodes.pod_count[:n], 0).sum())}
    for name in wanted:
        row = nodes.resources.get(name)
        if row is not None:
            free[name] = int(np.maximum(nodes.allocatable[row, :n] - nodes.requested[row, :n], 0).sum())
    return free


def _held_by_others(gang: Gang, state: ClusterState, wanted: Mapping[str, int]) -> dict[str, int]:
    """Room of the gang's own members on nodes, and of pods that it may evict."""
    evicts = gang.oldest.preempts
    total = dict.fromkeys(wanted, 0)
    for uid, placed in state.pods.items():
        if uid in gang.members or (evicts and placed.info.priority < gang.priority):
            total[PODS] += 1
            for name in wanted:
                total[name] += placed.info.usage.get(name, 0)
    return total


def _text(name: str, amount: int) -> str:
    """As people write it: cpu in thousandths, memory in mebibytes."""
    if name == "cpu":
        return f"{amount}m"
    return f"{amount // _MIB}Mi" if name == "memory" else str(amount)
