"""Nodes that others' binds and ours have filled beyond their room.

A bind names no state of its node, so two schedulers that are both active may give the same last room away,
each on a picture that does not show the other's bind yet. Nothing that one of them could check before would
exclude that. What can be done is done when the news arrive: binds of ours that have not been sent are taken
back; and where it is too late for that, the pods that were bound last give way, as soon as there has been
time for a kubelet to decide the matter, and for all to hear of all binds. All schedulers of ours come to
the same verdict, since they go by what the API server shows of the pods, and each carries out its own part.

Only pods that this process bound lately are ever in question, and only for what a pod that arrived has
overfilled: a node that shrinks (a device plugin that restarts has it offer nothing for a while), or that
somebody else overfills, costs no pod its place. Nor does a resource that no filter looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.core.pod_info import PodInfo
from scheduler.core.state import ClusterState

RECENT_S = 60.0
"""A pod that was bound longer ago is not in question."""
VERDICT_AFTER_S = 3.0
"""For news of binds to arrive, and for kubelets to reject pods, which they do within a second."""


class Loser(NamedTuple):
    """A pod that was bound to a node without room for it."""

    info: PodInfo
    node: str
    ours: bool
    """Whether this process bound it."""


PODS = "pods"
"""How many a node may have is among its resources here."""


@dataclass(slots=True)
class _Crowd:
    """A node that a pod's arrival has overfilled."""

    due: float
    """When the next verdict is due."""
    room: dict[str, int] = field(default_factory=dict)
    """What was overfilled → how much of it the node had then."""


class Races:
    """Told of binds and of pods that others have bound."""

    def __init__(self, state: ClusterState, clock: Callable[[], float]) -> None:
        self._state, self._clock = state, clock
        self._bound: dict[str, float] = {}
        """Pods that we have bound → when, oldest first."""
        self.counts: Callable[[str], bool] = lambda resource: True
        """Whether binds of ours hold to a resource; set by who knows the profiles' filters."""
        self._crowded: dict[str, _Crowd] = {}
        self._told: dict[str, set[tuple[str, bool]]] = {}
        """Node → losers that were told of."""

    def bound(self, uid: str) -> None:
        """A bind of ours is done."""
        now = self._clock()
        self._bound.pop(uid, None)
        self._bound[uid] = now
        self._forget_old(now)

    def arrived(self, info: PodInfo) -> None:
        """Somebody else's pod has come to its node."""
        nodes, node = self._state.nodes, info.node_name
        if node not in nodes.row_of:
            return
        for name, amount in _takes(info).items():
            room, taken = self._room_and_taken(node, name)
            if taken - amount <= room < taken and self.counts(name):
                crowd = self._crowded.setdefault(node, _Crowd(self._clock() + VERDICT_AFTER_S))
                crowd.room[name] = max(room, crowd.room.get(name, 0))

    @property
    def crowded(self) -> list[str]:
        """Nodes that a verdict is due on sooner or later."""
        return list(self._crowded)

    def is_overfull(self, node: str) -> bool:
        """Whether pods on the node, assumed ones included, take more than it had of what was overfilled."""
        crowd = self._crowded.get(node)
        if crowd is None or node not in self._state.nodes.row_of:
            return False
        return any(taken > room for room, taken in (self._room_and_taken(node, name) for name in crowd.room))

    def must_go(self, info: PodInfo, node: str) -> bool:
        """Whether there is no room for the pod still, while any of ours is in question."""
        return self.is_overfull(node) and any(loser.info.uid == info.uid for loser in self._losers(node))

    def under_way(self, node: str) -> list[PodInfo]:
        """Pods of ours that are assumed on the node, those decided last first."""
        return [placed.info for placed in reversed(self._state.pods_on(node)) if placed.assumed]

    def verdicts(self) -> Iterator[Loser]:
        """Pods that have to give way, each once. A node is looked at again until it is in order, or no
        pod is left on it that could be ours to undo."""
        now = self._clock()
        self._forget_old(now)
        for node in [node for node, crowd in self._crowded.items() if crowd.due <= now]:
            if not (self.is_overfull(node) and self._is_ours(node)):
                del self._crowded[node]
                self._told.pop(node, None)
                continue
            self._crowded[node].due = now + VERDICT_AFTER_S
            told = self._told.setdefault(node, set())
            for loser in self._losers(node):
                if (loser.info.uid, loser.ours) not in told:
                    told.add((loser.info.uid, loser.ours))
                    yield loser

    # ---- internals

    def _is_ours(self, node: str) -> bool:
        """Whether a bind of ours on the node is under way, or was not long ago."""
        return any(placed.assumed or placed.info.uid in self._bound for placed in self._state.pods_on(node))

    def _room_and_taken(self, node: str, resource: str) -> tuple[int, int]:
        """Of one that was overfilled: as much as the node had then, if it has less now."""
        nodes = self._state.nodes
        row, crowd = nodes.row_of[node], self._crowded.get(node)
        then = crowd.room.get(resource, 0) if crowd is not None else 0
        if resource == PODS:
            return max(then, int(nodes.pod_limit[row])), int(nodes.pod_count[row])
        i = nodes.resources[resource]
        return max(then, int(nodes.allocatable[i, row])), int(nodes.requested[i, row])

    def _losers(self, node: str) -> Iterator[Loser]:
        """Pods that found no room when those on the node are taken in the order of their binds."""
        room = {name: self._room_and_taken(node, name)[0] for name in self._crowded[node].room}
        confirmed = [placed.info for placed in self._state.pods_on(node) if not placed.assumed]
        for info in sorted(confirmed, key=_bind_order):
            taken = {name: amount for name, amount in _takes(info).items() if amount and name in room}
            if all(room[name] >= amount for name, amount in taken.items()):
                for name, amount in taken.items():
                    room[name] -= amount
            else:
                yield Loser(info, node, info.uid in self._bound)

    def _forget_old(self, now: float) -> None:
        while self._bound:
            uid, at = next(iter(self._bound.items()))
            if at + RECENT_S > now:
                return
            del self._bound[uid]


def _takes(info: PodInfo) -> dict[str, int]:
    return {PODS: 1, **info.usage}


def _bind_order(info: PodInfo) -> tuple[str, str]:
    """When the pod was bound (to the second, RFC 3339 in UTC), and its uid."""
    conditions = info.pod.status.conditions or ()
    at = next(
        (c.last_transition_time for c in conditions if (c.type, c.status) == ("PodScheduled", "True")), ""
    )
    return at or info.pod.metadata.creation_timestamp or "", info.uid
