"""Members, and the room that they take while a plan is being made: on nodes, and of volumes.

A member with claims that are not bound takes its volumes with its node, so that no two members of a plan
find the same one free.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.cycle import Cycle
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key
from scheduler.core.state import ClusterState
from scheduler.core.volumes.assume import assume_plan
from scheduler.core.volumes.plan import VolumePlan


@dataclass(frozen=True, slots=True)
class Member:
    """A pod to place, and what decides for it."""

    info: PodInfo
    key: Key
    cycle: Cycle


class Rooms:
    """Takes room in the state, and gives it back."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._plans: dict[str, VolumePlan] = {}
        self._nominated: dict[str, tuple[PodInfo, str]] = {}
        """Pods that have room here, and the node that they are nominated to: they must not count twice."""

    def take(self, member: Member, node: str, *, silent: bool = False) -> None:
        """On a node that exists. `silent`: nothing beyond nodes concerns the member, so it has no volumes
        to plan."""
        uid, plan = member.info.uid, None if silent else member.cycle.plan(member.info, node)
        nominated = self._state.nominations.drop(uid)
        if nominated is not None:
            self._nominated[uid] = member.info, nominated
        if plan is not None:
            assume_plan(plan, self._state.nodes.cluster, owner=uid)
            self._plans[uid] = plan
        self._state.assume(member.info, node)

    def give_back(self, uid: str) -> str | None:
        """Returns the node, or None when the pod had none that was assumed."""
        if self._plans.pop(uid, None) is not None:
            self._state.nodes.cluster.restore(uid)
        if uid in self._nominated:
            self._state.nominations.nominate(*self._nominated.pop(uid))
        return self._state.forget(uid)

    def hand_over(self, uid: str) -> VolumePlan | None:
        """The room is somebody else's business now; returns what has to be written for its volumes."""
        self._nominated.pop(uid, None)
        return self._plans.pop(uid, None)

    def nominated(self, uid: str) -> str | None:
        """Which node a pod that has room here was nominated to."""
        return self._nominated[uid][1] if uid in self._nominated else None
