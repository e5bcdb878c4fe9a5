"""Runs one volume plugin on a few nodes and the storage around them."""

from __future__ import annotations

from scheduler.api_objects import ClusterObject
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin
from tests.builders import NodeBuilder, PodBuilder, make_node
from tests.unit.plugins.filtering import state_of
from tests.unit.storage import ZONE


def zoned(**zones: str) -> tuple[NodeBuilder, ...]:
    """Nodes by name, each in a zone; empty for none."""
    return tuple(
        make_node(name).labels({"kubernetes.io/hostname": name} | ({ZONE: zone} if zone else {}))
        for name, zone in zones.items()
    )


def view_of(
    *items: ClusterObject, nodes: tuple[NodeBuilder, ...] | None = None, pods: tuple[PodBuilder, ...] = ()
) -> NodeView:
    """Nodes a and b in zones of these names, unless others are given."""
    state = state_of(*(zoned(a="a", b="b") if nodes is None else nodes), pods=pods)
    for item in items:
        state.nodes.cluster.upsert(item)
    return state.nodes.view()


def says(plugin: FilterPlugin, pod: PodBuilder, nodes: NodeView) -> str | list[list[str]]:
    """Why the plugin refuses the pod, or the texts with which it rejects it on each node."""
    info = pod.info()
    refusal = plugin.refuses(info, nodes)
    if refusal is not None:
        return refusal
    if not plugin.context(info, nodes):
        return [[] for _ in nodes.names]
    bits = plugin.filter(info, nodes).reason_bits
    texts = plugin.reasons(info)
    return [[text for k, text in enumerate(texts) if int(row) >> k & 1] for row in bits]
