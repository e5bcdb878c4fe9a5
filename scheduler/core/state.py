"""What the scheduler believes of the cluster: the only mutable truth, and the place of assumed pods.

A pod that has been placed is *assumed* on its node at once, before the API server knows, so that the
next decision sees its room as taken. The watch *confirms* it; a refused bind *forgets* it. Pods may
name nodes that are not known (yet): they are kept, and count as soon as the node appears.
Model: pkg/scheduler/backend/cache/cache.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.api import Node
from scheduler.core.condemned import Condemned
from scheduler.core.mix import FrozenMix
from scheduler.core.nodes import NodeTable
from scheduler.core.nominations import Nominations
from scheduler.core.placed_pods import PlacedPods
from scheduler.core.plugin import Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption


@dataclass(slots=True)
class PlacedPod:
    """A pod on a node; assumed until the watch has shown it there."""

    info: PodInfo
    node: str
    assumed: bool
    lifted: bool = False
    """Whether its room counts as free for the time being."""


class ClusterState:
    """Nodes and the pods on them. `nodes` is the table that decisions read."""

    def __init__(self, mix: FrozenMix) -> None:
        self.nodes = NodeTable(mix)
        self.pods: dict[str, PlacedPod] = {}
        self._on_node: dict[str, dict[str, PlacedPod]] = {}
        self.assumed_count = 0
        self.nominations = Nominations(self.nodes, self._infos_on)
        self._in_group: dict[tuple[str, str], dict[str, PlacedPod]] = {}
        """(namespace, name) of a native PodGroup → its pods here, by uid."""
        self._renewed: set[str] = set()
        self._priorities: Counter[int] = Counter()
        self.condemned = Condemned(self.nodes.cluster)
        self.placed = PlacedPods(self.nodes, self._infos_on, self._renewed, self._priorities, self.condemned)

    # ---- nodes

    def upsert_node(self, node: Node) -> Wake:
        """Adds or updates; returns what about the change may help a waiting pod."""
        change = self.nodes.upsert(node)
        if change is Wake.NODE_ADD:
            row = self.nodes.row_of[node.metadata.name]
            for info in self._infos_on(node.metadata.name):
                self.nodes.add_pod(row, info)
        return change

    def remove_node(self, name: str) -> None:
        """Its pods stay known until they are deleted: the node may come back with them."""
        row = self.nodes.row_of.get(name)
        if row is not None:
            for info in self._infos_on(name):
                self.nodes.add_pod(row, info, -1)
            self.nodes.remove(name)

    def pods_on(self, node: str) -> list[PlacedPod]:
        return list(self._on_node.get(node, {}).values())

    def pods_in_group(self, namespace: str, name: str) -> list[PlacedPod]:
        """Pods on nodes that name this native PodGroup."""
        return list(self._in_group.get((namespace, name), {}).values())

    # ---- pods

    def confirm(self, info: PodInfo) -> Wake:
        """Takes over what the watch says of a pod that has a node.

        Returns what about that may help a waiting pod: the pod is new, shrank, looks different to
        rules of others, or is elsewhere than assumed.
        """
        return self.put(info, info.node_name)

    def put(self, info: PodInfo, node: str) -> Wake:
        """The same of a pod that is on this node, whatever its spec says yet."""
        old = self.pods.get(info.uid)
        if old is None:
            self._place(PlacedPod(info, node, assumed=False))
            return Wake.ASSIGNED_POD_ADDED
        if old.node == node and _takes(old.info) == _takes(info):
            if old.info.started != info.started:
                self._renewed.add(node)
            self.assumed_count -= old.assumed
            old.info, old.assumed = info, False
            return Wake.NOTHING
        self._displace(old)
        self._place(PlacedPod(info, node, assumed=False, lifted=old.lifted))
        change = Wake.NOTHING
        if old.node != node:
            change |= Wake.ASSIGNED_POD_ADDED | Wake.ASSIGNED_POD_REMOVED
        if old.info.signature != info.signature:
            change |= Wake.ASSIGNED_POD_CHANGED
        if any(amount > info.usage.get(name, 0) for name, amount in old.info.usage.items()) or not (
            set(old.info.host_ports) <= set(info.host_ports)
        ):
            change |= Wake.ASSIGNED_POD_REMOVED
        return change

    def remove_pod(self, uid: str) -> PlacedPod | None:
        """The pod is deleted or finished: its room is free at once."""
        placed = self.pods.get(uid)
        if placed is not None:
            self._displace(placed)
        return placed

    def condemn(self, preemption: Preemption) -> None:
        """Its victims are leaving from now on."""
        for victim in preemption.victims:
            self.condemned.add(victim)
            self._renew(victim.uid)

    def spare(self, preemption: Preemption) -> None:
        """It was given up: of its victims those stay that are not terminating."""
        for victim in preemption.victims:
            placed = self.pods.get(victim.uid)
            if placed is not None and not placed.info.terminating:
                self.condemned.spare(victim.uid)
                self._renew(victim.uid)

    def is_being_evicted(self, info: PodInfo) -> bool:
        """Whether the pod leaves to make room for another, by our decision or a former leader's."""
        return info.uid in self.condemned or info.preempted

    def assume(self, info: PodInfo, node: str) -> None:
        """Takes room for a pod whose bind is about to be sent."""
        self._place(PlacedPod(info, node, assumed=True))

    def forget(self, uid: str) -> str | None:
        """Gives an assumed pod's room back; returns the node, or None when it was not assumed."""
        placed = self.pods.get(uid)
        if placed is None or not placed.assumed:
            return None
        self._displace(placed)
        return placed.node

    def lift(self, uid: str) -> None:
        """What if the pod were not there? It stays known, and may be put back, deleted or moved."""
        placed = self.pods.get(uid)
        if placed is not None and not placed.lifted:
            self._count(placed, -1)
            placed.lifted = True

    def put_back(self, uid: str) -> None:
        """Ends that, if the pod is there still."""
        placed = self.pods.get(uid)
        if placed is not None and placed.lifted:
            placed.lifted = False
            self._count(placed, 1)

    # ---- internals

    def _infos_on(self, node: str) -> Iterable[PodInfo]:
        return (placed.info for placed in self._on_node.get(node, {}).values() if not placed.lifted)

    def _renew(self, uid: str) -> None:
        placed = self.pods.get(uid)
        if placed is not None:
            self._renewed.add(placed.node)

    def _count(self, placed: PlacedPod, sign: int) -> None:
        row = self.nodes.row_of.get(placed.node)
        if row is not None and not placed.lifted:
            self.nodes.add_pod(row, placed.info, sign)

    def _place(self, placed: PlacedPod) -> None:
        self.pods[placed.info.uid] = placed
        self._on_node.setdefault(placed.node, {})[placed.info.uid] = placed
        group = _group_of(placed.info)
        if group is not None:
            self._in_group.setdefault(group, {})[placed.info.uid] = placed
        self.assumed_count += placed.assumed
        self._priorities[placed.info.priority] += 1
        self._count(placed, 1)

    def _displace(self, placed: PlacedPod) -> None:
        del self.pods[placed.info.uid]
        on_node = self._on_node[placed.node]
        del on_node[placed.info.uid]
        if not on_node:
            del self._on_node[placed.node]
        group = _group_of(placed.info)
        if group is not None:
            in_group = self._in_group[group]
            del in_group[placed.info.uid]
            if not in_group:
                del self._in_group[group]
        self.assumed_count -= placed.assumed
        self._priorities[placed.info.priority] -= 1
        if not self._priorities[placed.info.priority]:
            del self._priorities[placed.info.priority]
        self._count(placed, -1)


def _group_of(info: PodInfo) -> tuple[str, str] | None:
    group = info.pod.spec.scheduling_group
    return None if group is None or not group.pod_group_name else (info.namespace, group.pod_group_name)


def _takes(info: PodInfo) -> tuple[object, ...]:
    """Everything of a pod that the node table accounts for."""
    return info.usage, info.nonzero_requests, info.host_ports, info.signature, info.priority, info.rules
