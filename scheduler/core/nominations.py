"""Room that is promised: waiting pods that are nominated to a node (`status.nominatedNodeName`).

A pod that preempts others has to wait until they are gone, and until then its room must not go to
somebody else. So its node counts it, for pods of the same or lower priority, as if it were there. A
nomination is a promise of the scheduler's to itself: it reserves nothing in the API, and a pod that
finds a place elsewhere in the meantime takes that.

The rows of nodes with nominations are kept a second time, in a small table of their own, with the
nominated pods on them; so filters are asked about all of them at once, and only what changed is redone.
Source: pkg/scheduler/backend/queue/nominator.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

import numpy as np

from scheduler.core.nodes import NodeTable
from scheduler.core.pod_info import PodInfo, Signature
from scheduler.core.recent import Recent
from scheduler.core.topology_rules import TopologyRules

_LEVELS_KEPT = 4
_LOG_KEPT = 4096

Look = tuple[Signature, TopologyRules]
"""All of a pod that makes a difference to rules about other pods."""


class Nominations:
    """By pod and by node. Nodes may be unknown (yet)."""

    def __init__(self, nodes: NodeTable, pods_on: Callable[[str], Iterable[PodInfo]]) -> None:
        self._nodes, self._pods_on = nodes, pods_on
        self._node_of: dict[str, str] = {}
        self._on_node: dict[str, dict[str, PodInfo]] = {}
        self._priorities: Counter[int] = Counter()
        self._looks: dict[Look, dict[str, PodInfo]] = {}
        """Nominated pods by what they look like to rules of others."""
        self._levels: Recent[int, NominatedRows] = Recent(_LEVELS_KEPT)
        self.version = 0
        self._log: list[str] = []
        """Node of each of the last versions."""

    def __len__(self) -> int:
        return len(self._node_of)

    def node_of(self, uid: str) -> str | None:
        """Where the pod is nominated to."""
        return self._node_of.get(uid)

    def on(self, node: str) -> Collection[PodInfo]:
        """Pods nominated to the node."""
        return self._on_node.get(node, {}).values()

    def counted(self, node: str, pod: PodInfo) -> list[PodInfo]:
        """Those that the pod has to make way for: of its priority or higher, and not itself."""
        return [other for other in self.on(node) if other.priority >= pod.priority and other.uid != pod.uid]

    def nominate(self, pod: PodInfo, node: str) -> str | None:
        """Nominates the pod to the node, in place of any other, or renews what is known of the pod;
        returns the node that has lost it."""
        before = self.drop(pod.uid)
        self._node_of[pod.uid] = node
        self._on_node.setdefault(node, {})[pod.uid] = pod
        self._priorities[pod.priority] += 1
        self._looks.setdefault(_look(pod), {})[pod.uid] = pod
        self._note(node)
        return before if before != node else None

    def drop(self, uid: str) -> str | None:
        """Returns the node that the pod was nominated to, if any."""
        node = self._node_of.pop(uid, None)
        if node is None:
            return None
        on_node = self._on_node[node]
        pod = on_node.pop(uid)
        if not on_node:
            del self._on_node[node]
        self._priorities[pod.priority] -= 1
        if not self._priorities[pod.priority]:
            del self._priorities[pod.priority]
        alike = self._looks[_look(pod)]
        del alike[uid]
        if not alike:
            del self._looks[_look(pod)]
        self._note(node)
        return node

    def drop_all(self, node: str) -> None:
        """The node is gone."""
        for pod in list(self.on(node)):
            self.drop(pod.uid)

    def mirror(self, other: Nominations) -> None:
        """From now on the same pods are nominated as in the other."""
        there = {pod.uid: (pod, node) for node in other.nodes for pod in other.on(node)}
        for uid in [uid for uid in self._node_of if uid not in there]:
            self.drop(uid)
        for uid, (pod, node) in there.items():
            if self._on_node.get(node, {}).get(uid) is not pod:
                self.nominate(pod, node)

    def nodes_of_those(self, matter: Callable[[PodInfo], bool]) -> set[str]:
        """Names of the nodes of pods that matter to rules about other pods; asked once for all pods that
        look the same."""
        found: set[str] = set()
        for alike in self._looks.values():
            if matter(next(iter(alike.values()))):
                found.update(self._node_of[uid] for uid in alike)
        return found

    def rows_for(self, priority: int) -> NominatedRows | None:
        """What a pod of this priority has to make way for, itself included; None for nothing."""
        level = min((p for p in self._priorities if p >= priority), default=None)
        if level is None:
            return None
        rows = self._levels.get(level)
        if rows is None:
            rows = self._levels.put(level, NominatedRows(level, self, self._nodes, self._pods_on))
        rows.update()
        return rows

    @property
    def nodes(self) -> Collection[str]:
        """Names of the nodes that somebody is nominated to."""
        return self._on_node.keys()

    def changed_since(self, version: int) -> Collection[str] | None:
        """Names of nodes whose nominations have changed since; None when that is too long ago."""
        new = self.version - version
        return None if new > len(self._log) else set(self._log[len(self._log) - new :])

    def _note(self, node: str) -> None:
        self.version += 1
        self._log.append(node)
        if len(self._log) > _LOG_KEPT:
            del self._log[: _LOG_KEPT // 2]


def _look(pod: PodInfo) -> Look:
    return pod.signature, pod.rules


class NominatedRows:
    """Nodes with nominations of at least one priority, as if the nominated pods were on them."""

    def __init__(
        self,
        level: int,
        nominations: Nominations,
        nodes: NodeTable,
        pods_on: Callable[[str], Iterable[PodInfo]],
    ) -> None:
        self._level, self._nominations, self._nodes, self._pods_on = level, nominations, nodes, pods_on
        self.table = nodes.sketch()
        self.rows = np.empty(0, np.intp)
        """Rows in the table of all nodes, in the order of `table`'s."""
        self._generation, self._seen = -1, -1
        self._accounted: dict[str, dict[int, PodInfo]] = {}
        """Node name → id of each pod that is on its row → that pod."""

    def update(self) -> None:
        """Brings the rows up to date with the table of all nodes and the nominations."""
        nodes, nominations = self._nodes, self._nominations
        if (self._generation, self._seen) == (nodes.generation, nominations.version):
            return
        changed = nominations.changed_since(self._seen)
        stale = {*nominations.nodes, *self._accounted} if changed is None else set(changed)
        names = (nodes.names[row] for row in nodes.changed_since(self._generation).tolist())
        stale.update(name for name in names if name in nominations.nodes)
        moved = nodes.last_object_change > self._generation
        if moved:
            stale.update(name for name in self._accounted if name not in nodes.row_of)
        self._generation, self._seen = nodes.generation, nominations.version
        for name in stale:
            self._redo(name)
        if moved or stale:
            self.rows = np.array([nodes.row_of[name] for name in self.table.names], np.intp)

    def _redo(self, name: str) -> None:
        nominated = [pod for pod in self._nominations.on(name) if pod.priority >= self._level]
        main = self._nodes.row_of.get(name)
        if not nominated or main is None:
            if self._accounted.pop(name, None) is not None:
                self.table.remove(name)
            return
        self.table.upsert(self._nodes.objects[main])
        row = self.table.row_of[name]
        before = self._accounted.get(name, {})
        now = {id(pod): pod for pod in (*self._pods_on(name), *nominated)}
        for key, pod in before.items():
            if key not in now:
                self.table.add_pod(row, pod, -1)
        for key, pod in now.items():
            if key not in before:
                self.table.add_pod(row, pod)
        self._accounted[name] = now
