"""Makes room for a gang that fits nowhere: whom to evict so that all the members it needs find places.

Nobody is evicted before there is a plan for the gang. It is made on the live state, from which possible
victims are *lifted* meanwhile; whatever the watch says of them, they are put back at the end. First member
by member: one that fits nowhere gets the node where evictions hurt least, as if it were a single pod. That
looks at few pods, however large the cluster. If it fails and another choice could do, all pods of lower
priority are lifted and the gang is planned as a whole, as kube-scheduler does.

Then victims are *reprieved*: put back one after the other, most important first and those before all whose
eviction would overdraw a disruption budget, as long as every member still fits where the plan has it. So
nobody goes who could have stayed. What is one victim (a native group with disruption mode `all`) goes, or
stays, as a whole.

Sources: PodGroupEvaluator (pkg/scheduler/framework/preemption/podgrouppreemption.go),
FilterVictimsWithPDBViolation (…/preemption/util.go).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.api_objects import PodGroup
from scheduler.core.gangs.attempt import Workspace
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.gang import GangOptions
from scheduler.core.gangs.planner import are_interchangeable
from scheduler.core.gangs.planning import GangPlanning
from scheduler.core.gangs.ref import Source
from scheduler.core.gangs.rooms import Member, Rooms
from scheduler.core.post_filters import PostFilters
from scheduler.core.preemption import CLUSTER, GangRoom, Preemption
from scheduler.core.queue import QueuedPod
from scheduler.core.state import ClusterState, PlacedPod
from scheduler.core.topology_rules import NO_RULES
from scheduler.core.victims import Victim

NEVER = "not eligible due to preemptionPolicy=Never."
NO_VICTIMS = "No preemption victims found for incoming preemptor"
_LIFTED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking for victims."""

    message: str
    """Why nobody can be evicted, or what is going to be; empty when there was nothing to look for."""
    preemption: Preemption | None = None
    fits: bool = False
    """Nobody has to leave: there is room by now."""


class GangPreemption:
    """`held_together(uid)`: uids of all pods whose room a `hoarding` gang holds with this one's; empty for
    a pod whose room is not held so."""

    def __init__(
        self,
        workspace: Workspace,
        post_filters: PostFilters,
        held_together: Callable[[str], Sequence[str]],
    ) -> None:
        self._workspace, self._post_filters = workspace, post_filters
        self._state, self._rooms = workspace.state, workspace.rooms
        self._held_together = held_together

    def look(
        self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod], need: int
    ) -> Generator[None, None, Found]:
        """Whom to evict so that at least `need` of the waiting members fit, beside those that have a node.
        None of the waiting may be assumed. Each step costs about one decision; in the end, also when it is
        closed early, everything is as it was."""
        priority = min(queued.info.priority for queued in waiting)
        self._state.condemned.settle(self._workspace.clock())
        if not self._may_preempt(gang, waiting):
            return Found(NEVER)
        if not self._state.placed.any_below(priority):
            return Found("")
        planning = self._workspace.planning(gang, options, waiting, need=need)
        search = _Search(
            self._state, self._rooms, self._post_filters, self.victim_of, gang, priority, planning
        )
        try:
            if not (yield from search.plan(need)):
                yield from search.put_all_back()
                return Found(search.why)
            victims = yield from search.reprieve()
            nodes = search.nodes
            if len(nodes) < need:
                return Found("nodes of the plan have vanished meanwhile")
            if not victims:
                return Found("", fits=True)
            pods = tuple(pod for victim in victims for pod in victim.pods)
            message = f"found a placement for podgroup, preempting {len(pods)} victims"
            room = GangRoom(*self._name_of(gang), nodes)
            return Found(message, Preemption(CLUSTER, pods, search.violations, gang=room))
        finally:
            search.undo()

    def is_under_way(self, nodes: Sequence[str], priority: int) -> bool:
        """Whether pods are leaving these nodes, to which members are nominated, for pods of this priority."""
        return any(
            placed.info.priority < priority and self._state.is_being_evicted(placed.info)
            for node in dict.fromkeys(nodes)
            for placed in self._state.pods_on(node)
        )

    def victim_of(self, placed: PlacedPod) -> Victim:
        """Whom the pod goes with."""
        return self._post_filters.victims.of(placed, self._held_together(placed.info.uid))

    # ---- internals

    def _may_preempt(self, gang: Gang, waiting: Sequence[QueuedPod]) -> bool:
        group = self._native(gang)
        if group is not None and group.spec.preemption_policy is not None:
            return group.spec.preemption_policy != "Never"
        return all(queued.info.preempts for queued in waiting)

    def _name_of(self, gang: Gang) -> tuple[str, str]:
        group = self._native(gang)
        if group is not None:
            return f"podgroup {group.metadata.uid}", "podgroup"
        return f"gang {gang.ref}", "gang"

    def _native(self, gang: Gang) -> PodGroup | None:
        if gang.ref.source is not Source.NATIVE:
            return None
        return self._state.nodes.cluster.get(PodGroup, gang.ref.name, gang.ref.namespace)


class _Search:
    """One look for victims of lower `priority` than the gang has."""

    def __init__(
        self,
        state: ClusterState,
        rooms: Rooms,
        post_filters: PostFilters,
        victim_of: Callable[[PlacedPod], Victim],
        gang: Gang,
        priority: int,
        planning: GangPlanning,
    ) -> None:
        self._state, self._rooms, self._post_filters = state, rooms, post_filters
        self._victim_of, self._gang, self._priority, self._planning = victim_of, gang, priority, planning
        self._members: Mapping[str, Member] = {m.info.uid: m for m in planning.members}
        self._lifted: dict[str, Victim] = {}
        """By uid of each of its pods."""
        self.why = ""
        """Why there is no plan."""
        self._on: dict[str, list[str]] = defaultdict(list)
        """Members by node, once there is a plan,"""
        self._elsewhere: list[str] = []
        """and those to which pods on other nodes matter."""
        self.violations = 0
        """How many of the victims overdraw a disruption budget."""

    @property
    def nodes(self) -> dict[str, str]:
        """uid → node of the members that are assumed."""
        pods = self._state.pods
        return {uid: pods[uid].node for uid in self._members if uid in pods}

    def plan(self, need: int) -> Generator[None, None, bool]:
        """Lifts pods until members fit, which are then assumed."""
        members = self._planning.members
        if not self._planning.options.topology_key:
            if (yield from self._one_by_one(members, need)):
                return True
            if are_interchangeable(members):
                return False
            for uid in self._members:
                self._rooms.give_back(uid)
        yield from self._lift_all()
        if not self._lifted:
            self.why = NO_VICTIMS
            return False
        yield from self._planning.steps()
        self.why = self._planning.message(members[0].info.uid)
        return self._planning.plan.found

    def reprieve(self) -> Generator[None, None, list[Victim]]:
        """Puts back whoever can stay; returns the others, most important first. Whoever is on a member's
        node is looked at: the plan took single pods for what to evict there."""
        pods = self._state.pods
        self._elsewhere = self._looking_elsewhere()
        self._on = defaultdict(list)
        for uid, node in self.nodes.items():
            self._on[node].append(uid)
        for node in list(self._on):
            for placed in self._state.pods_on(node):
                self._lift_with_others(placed)
            yield
        yield from self._spare_bystanders()
        victims = sorted(self._victims(), key=_order)
        violating = self._violating(victims)
        for victim in sorted(victims, key=lambda victim: id(victim) not in violating):
            if any(self._state.is_being_evicted(pod) for pod in victim.pods):
                continue  # their room is as good as free
            for pod in victim.pods:
                self._state.put_back(pod.uid)
            if self._everybody_fits_beside(victim):
                for pod in victim.pods:
                    self._lifted.pop(pod.uid, None)
            else:
                for pod in victim.pods:
                    self._state.lift(pod.uid)
            yield
        left = [victim for victim in victims if victim.pods[0].uid in self._lifted]
        self.violations = sum(violating.get(id(victim), 0) for victim in left)
        there = [
            Victim(tuple(pods[p.uid].info for p in v.pods if p.uid in pods), v.priority, v.rank) for v in left
        ]
        return [victim for victim in there if victim.pods]

    def put_all_back(self) -> Generator[None, None, None]:
        """What `undo` does, in steps: they may be tens of thousands."""
        for count, uid in enumerate(self._lifted):
            self._state.put_back(uid)
            if count % _LIFTED_AT_ONCE == 0:
                yield

    def undo(self) -> None:
        """As if nothing had been tried."""
        for uid in self._members:
            self._rooms.give_back(uid)
        for uid in self._lifted:
            self._state.put_back(uid)
        self._lifted.clear()

    # ---- internals

    def _one_by_one(self, members: Sequence[Member], need: int) -> Generator[None, None, bool]:
        missing = 0
        for member in members:
            found = member.cycle.place(member.info, member.key)
            node = found.node
            if node is None:
                self.why = found.message
                node = self._evict_for(member)
            if node is not None:
                self._rooms.take(member, node)
            else:
                missing += 1
                if len(members) - missing < need:
                    return False
            yield
        return True

    def _evict_for(self, member: Member) -> str | None:
        """Lifts whoever must leave for the member to fit somewhere, and returns where."""
        result = self._post_filters.ask(member.cycle, member.info, member.key)
        if result is None:
            return None
        if result.preemption is None:
            self.why = f"{self.why} {result.message}"
            return None
        placed = [self._state.pods[victim.uid] for victim in result.preemption.victims]
        victims = [self._victim_of(each) for each in placed]
        if not all(self._may_go(victim) for victim in victims):
            return None
        for victim in victims:
            self._lift(victim)
        return result.preemption.node

    def _lift_all(self) -> Generator[None, None, None]:
        """Everybody of lower priority."""
        for count, uid in enumerate(list(self._state.pods)):
            placed = self._state.pods.get(uid)
            if placed is not None:
                self._lift_with_others(placed)
            if count % _LIFTED_AT_ONCE == 0:
                yield

    def _lift_with_others(self, placed: PlacedPod) -> None:
        """The pod, and whoever goes with it, if it may be evicted."""
        if not placed.lifted and placed.info.priority < self._priority:
            victim = self._victim_of(placed)
            if self._may_go(victim):
                self._lift(victim)

    def _may_go(self, victim: Victim) -> bool:
        return victim.priority < self._priority and not any(
            pod.uid in self._gang.members for pod in victim.pods
        )

    def _lift(self, victim: Victim) -> None:
        for pod in victim.pods:
            if pod.uid not in self._lifted:
                self._state.lift(pod.uid)
                self._lifted[pod.uid] = victim

    def _violating(self, victims: Sequence[Victim]) -> dict[int, int]:
        """id of a victim → how many of its pods' evictions overdraw a budget, all being evicted in turn."""
        budgets = self._post_filters.budgets
        if not budgets:
            return {}
        pods = [(id(victim), pod) for victim in victims for pod in victim.pods]
        everywhere = np.zeros(len(pods), np.intp)
        places = np.arange(len(pods), dtype=np.intp)
        overdrawn = budgets.violating([pod for _, pod in pods], places, everywhere)
        counts: dict[int, int] = {}
        for (victim_id, _), violates in zip(pods, overdrawn.tolist(), strict=True):
            if violates:
                counts[victim_id] = counts.get(victim_id, 0) + 1
        return counts

    def _victims(self) -> list[Victim]:
        return list({id(victim): victim for victim in self._lifted.values()}.values())

    def _spare_bystanders(self) -> Generator[None, None, None]:
        """Puts back who is in no member's way: in a large cluster nearly all, if all were lifted."""
        if self._elsewhere:
            return
        pods = self._state.pods
        for count, victim in enumerate(self._victims()):
            in_the_way = (pods[pod.uid].node in self._on for pod in victim.pods if pod.uid in pods)
            if not any(in_the_way) and all(pod.rules == NO_RULES for pod in victim.pods):
                for pod in victim.pods:
                    self._state.put_back(pod.uid)
                    self._lifted.pop(pod.uid, None)
            if count % _LIFTED_AT_ONCE == 0:
                yield

    def _everybody_fits_beside(self, victim: Victim) -> bool:
        """Whether all members that the victim may be in the way of fit beside it, and beside each other."""
        pods = self._state.pods
        concerned = [uid for pod in victim.pods if pod.uid in pods for uid in self._on[pods[pod.uid].node]]
        if any(pod.rules != NO_RULES for pod in victim.pods):
            self._elsewhere = self._looking_elsewhere()
        asked: set[object] = set()
        for uid in dict.fromkeys((*concerned, *self._elsewhere)):
            member = self._members[uid]
            # Alike members on one node get one answer.
            node = pods[uid].node if uid in pods else ""
            alike = member.key, id(member.cycle), member.info.signature, node
            if alike in asked:
                continue
            asked.add(alike)
            if not self._fits_beside_others(member):
                return False
        return True

    def _looking_elsewhere(self) -> list[str]:
        """Members to which pods on other nodes may make a difference, as things stand."""
        return [
            uid
            for uid, member in self._members.items()
            if uid in self._state.pods
            and (member.info.rules != NO_RULES or any(member.cycle.remote.filter_context(member.info)))
        ]

    def _fits_beside_others(self, member: Member) -> bool:
        node = self._rooms.give_back(member.info.uid)
        row = self._state.nodes.row_of.get(node or "")
        if node is None or row is None:
            return False
        fits = member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None
        self._rooms.take(member, node)
        return fits


def _order(victim: Victim) -> tuple[object, ...]:
    return victim.order
