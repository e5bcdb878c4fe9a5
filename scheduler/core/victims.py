"""Who goes together: single pods, or all pods of a native PodGroup whose disruption mode is `all`.

Such a group is of no use in part, so it is one victim wherever its pods are: all go, or none. Its priority
is its own, as is that of a pod in any native group. (What `hoarding` gangs hold goes together as well,
since a part of it is of no use to them, and goes before anything that runs.)

Sources: newDomainForWorkloadPreemption, NewPodVictim (pkg/scheduler/framework/preemption/types.go),
MoreImportantVictim, GetPodPriority (…/preemption/util.go).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from scheduler.api_objects import PodGroup
from scheduler.core.pod_info import PodInfo
from scheduler.core.state import ClusterState, PlacedPod

_HELD, _SINGLE, _OF_GROUP = range(3)
"""What is more important at the same priority, ascending."""


@dataclass(frozen=True, slots=True)
class Victim:
    """Pods that go together, or stay together."""

    pods: tuple[PodInfo, ...]
    priority: int
    rank: int

    @property
    def order(self) -> tuple[int, int, int, tuple[bool, str], str]:
        """The smallest is the most important: by priority, then groups before single pods, then by size,
        then by when the first of the pods started."""
        started = min((not pod.started, pod.started) for pod in self.pods)
        return -self.priority, -self.rank, -len(self.pods), started, self.pods[0].uid


class Victims:
    """Reads the state as it is when asked."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    def of(self, placed: PlacedPod, held_together: Collection[str] = ()) -> Victim:
        """Whom the pod goes with. `held_together`: uids of all pods whose room is held with this one's."""
        info = placed.info
        if held_together:
            pods = [self._state.pods[uid].info for uid in held_together]
            return Victim(tuple(pods), max(pod.priority for pod in pods), _HELD)
        group = self._group(info)
        if group is None:
            return Victim((info,), info.priority, _SINGLE)
        priority = group.spec.priority if group.spec.priority is not None else info.priority
        if group.spec.disruption_mode.all is None:
            return Victim((info,), priority, _OF_GROUP)
        pods = [p.info for p in self._state.pods_in_group(info.namespace, group.metadata.name)]
        return Victim(tuple(sorted(pods, key=lambda pod: pod.uid)), priority, _OF_GROUP)

    def whole(self, victims: Iterable[PodInfo]) -> tuple[PodInfo, ...]:
        """These, each followed by those that go with it."""
        found: dict[str, PodInfo] = {}
        for info in victims:
            placed = self._state.pods.get(info.uid)
            found[info.uid] = info
            if placed is not None:
                found |= {pod.uid: pod for pod in self.of(placed).pods if pod.uid not in found}
        return tuple(found.values())

    def _group(self, info: PodInfo) -> PodGroup | None:
        named = info.pod.spec.scheduling_group
        if named is None or not named.pod_group_name:
            return None
        return self._state.nodes.cluster.get(PodGroup, named.pod_group_name, info.namespace)
