"""Which nodes reach a volume or a storage pool: selectors over labels, as rows of the node table.

Storage near a node comes with a selector of its own for each node, by the thousand, and each of them
names one value of one label. So nodes are looked up by the label's value once, and not per selector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.api import LabelSelector, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from scheduler.api_objects import CSINode, TopologySelectorTerm
from scheduler.core.node_selector import selects
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import Mask
from scheduler.core.volumes.bound import migrated_plugins
from scheduler.core.volumes.pools import FreeVolume, affinity_key

Rows = NDArray[np.intp]
_NO_ROWS = np.empty(0, np.intp)


def all_rows(nodes: NodeView) -> Rows:
    return np.arange(nodes.count, dtype=np.intp)


def rows_of(affinity: NodeSelector | None, nodes: NodeView) -> Rows:
    """Rows of the nodes that reach what has this affinity, in order; `nodes` are all nodes."""
    if affinity is None:
        return all_rows(nodes)
    single = _single_choice(affinity)
    if single is None:
        return np.flatnonzero(reached(affinity, nodes))
    by_value = _rows_by_value(single.key, nodes)
    found = [by_value[value] for value in dict.fromkeys(single.values or ()) if value in by_value]
    if not found:
        return _NO_ROWS
    return found[0] if len(found) == 1 else np.sort(np.concatenate(found))


def rows_of_volume(volume: FreeVolume, nodes: NodeView) -> Rows:
    """The same of a free volume, kept with it: there may be thousands to choose from."""
    if volume.reached is None or volume.reached[0] != nodes.object_version:
        volume.reached = nodes.object_version, rows_of(volume.affinity, nodes)
    return volume.reached[1]


def reached(affinity: NodeSelector | None, nodes: NodeView) -> Mask:
    """bool[n]: the nodes that reach what has this affinity (CheckNodeAffinity)."""
    if affinity is None:
        return np.ones(nodes.count, np.bool_)
    answers = nodes.volumes.answers
    key = ("reached", affinity_key(affinity), nodes.object_version)
    found = answers.get(key)
    if not isinstance(found, np.ndarray):
        found = answers.put(key, selects(affinity, nodes, nameless=True))
    return np.asarray(found, np.bool_)


def selector_of(labels: LabelSelector) -> NodeSelector | None:
    """A selector of labels as one of nodes; None for the one that selects all."""
    expressions = [NodeSelectorRequirement(k, "In", [v]) for k, v in (labels.match_labels or {}).items()]
    expressions += labels.match_expressions or ()
    return NodeSelector([NodeSelectorTerm(expressions)]) if expressions else None


def allowed(terms: Sequence[TopologySelectorTerm] | None, nodes: NodeView) -> Mask:
    """bool[n]: nodes in a storage class' allowedTopologies (MatchTopologySelectorTerms)."""
    if not terms:
        return np.ones(nodes.count, np.bool_)
    return reached(
        NodeSelector(
            [
                NodeSelectorTerm(
                    [
                        NodeSelectorRequirement(e.key, "In", e.values)
                        for e in term.match_label_expressions or ()
                    ]
                )
                for term in terms
            ]
        ),
        nodes,
    )


class CsiNodes:
    """What the nodes' CSINodes say, by row."""

    def __init__(self, nodes: NodeView) -> None:
        n = nodes.count
        self._n = n
        self.known: Mask = np.zeros(n, np.bool_)
        """bool[n]: nodes that have a CSINode."""
        self._installed: dict[str, Mask] = {}
        self._limits: dict[str, NDArray[np.int64]] = {}
        self._migrated: dict[str, Mask] = {}
        for csi_node in nodes.cluster.all(CSINode):
            row = nodes.row_of.get(csi_node.metadata.name)
            if row is None:
                continue
            self.known[row] = True
            for driver in csi_node.spec.drivers or ():
                self._installed.setdefault(driver.name, np.zeros(n, np.bool_))[row] = True
                if driver.allocatable is not None and driver.allocatable.count is not None:
                    limits = self._limits.setdefault(driver.name, np.full(n, -1, np.int64))
                    limits[row] = driver.allocatable.count
            for plugin in migrated_plugins(csi_node):
                self._migrated.setdefault(plugin, np.zeros(n, np.bool_))[row] = True

    def installed(self, driver: str) -> Mask:
        """bool[n]: nodes on which the driver has registered."""
        return self._installed.get(driver, np.zeros(self._n, np.bool_))

    def limit(self, driver: str) -> NDArray[np.int64] | None:
        """int64[n]: volumes of the driver that a node can have, -1 for no limit; None: no node has one."""
        return self._limits.get(driver)

    def migrated(self, plugin: str) -> Mask | None:
        """bool[n]: nodes where CSI has taken over from the old provisioner; None: nowhere."""
        return self._migrated.get(plugin)


def csi_nodes(nodes: NodeView) -> CsiNodes:
    """Of all nodes, made anew when a node or a CSINode has changed."""
    answers = nodes.volumes.answers
    key = ("csi nodes", nodes.cluster.version(CSINode), nodes.object_version)
    found = answers.get(key)
    if not isinstance(found, CsiNodes):
        found = CsiNodes(nodes)
        answers.put(key, found)
    return found


def _single_choice(affinity: NodeSelector) -> NodeSelectorRequirement | None:
    """The one requirement of an affinity that is no more than `key in values`."""
    terms = affinity.node_selector_terms or ()
    if len(terms) != 1 or terms[0].match_fields:
        return None
    expressions = terms[0].match_expressions or ()
    if len(expressions) != 1 or expressions[0].operator != "In":
        return None
    return expressions[0]


def _rows_by_value(key: str, nodes: NodeView) -> Mapping[str, Rows]:
    """Label value → rows."""
    answers, cached = nodes.volumes.answers, ("rows", key, nodes.object_version)
    found = answers.get(cached)
    if isinstance(found, dict):
        return found
    column, ids = nodes.label(key)
    order = np.argsort(ids, kind="stable").astype(np.intp)
    values, starts = np.unique(ids[order], return_index=True)
    groups = np.split(order, starts[1:]) if len(values) else []
    by_value = {
        value: rows
        for k, rows in zip(values.tolist(), groups, strict=True)
        if (value := column.values[k]) is not None
    }
    answers.put(cached, by_value)
    return by_value
