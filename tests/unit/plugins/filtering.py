"""Runs one filter plugin on a few nodes."""

from __future__ import annotations

from scheduler.core.mix import ShapeMix
from scheduler.core.plugin import FilterPlugin
from scheduler.core.state import ClusterState
from tests.builders import NodeBuilder, PodBuilder


def state_of(*nodes: NodeBuilder, pods: tuple[PodBuilder, ...] = ()) -> ClusterState:
    state = ClusterState(ShapeMix().frozen)
    for node in nodes:
        state.upsert_node(node.obj())
    for pod in pods:
        state.confirm(pod.info())
    return state


def reasons(
    plugin: FilterPlugin, pod: PodBuilder, *nodes: NodeBuilder, pods: tuple[PodBuilder, ...] = ()
) -> list[list[str]]:
    """Of each node: the texts it is rejected with."""
    info, view = pod.info(), state_of(*nodes, pods=pods).nodes.view()
    if not plugin.applies(info):
        return [[] for _ in nodes]
    texts = plugin.reasons(info)
    bits = plugin.filter(info, view).reason_bits
    return [[text for k, text in enumerate(texts) if int(row) >> k & 1] for row in bits]


def fits(plugin: FilterPlugin, pod: PodBuilder, node: NodeBuilder, *pods: PodBuilder) -> bool:
    """Whether the node passes; the pods given are on it."""
    return reasons(plugin, pod, node, pods=pods) == [[]]
