"""The one interface of the strategies: an attempt to find places for a gang's waiting members.

A strategy is asked when members wait that could be placed. It works in steps, since a large gang takes
longer than a turn of the loop may, and ends with an outcome for each of the members it was given, and for
those it placed tentatively before. What members it keeps in the state meanwhile, and until when, is what
tells the strategies apart.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from scheduler.core.cycle import Cycle
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.commit import GangCommit
from scheduler.core.gangs.cost import GangCost
from scheduler.core.gangs.gang import GangOptions, GangPolicy, Strategy
from scheduler.core.gangs.planning import GangPlanning
from scheduler.core.gangs.ref import GangRef, Source
from scheduler.core.gangs.rooms import Member, Rooms
from scheduler.core.placement import Placement
from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption
from scheduler.core.queue import QueuedPod
from scheduler.core.state import ClusterState
from scheduler.core.volumes.plan import VolumePlan


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a plan came to nothing."""

    reached: int
    """So many members have places, or would have."""
    why: str
    """What keeps the next one off, as of a single pod."""


@dataclass(frozen=True, slots=True)
class MemberOutcome:
    """What was decided for one member: placed for good (assumed), kept in mind, or nothing found."""

    queued: QueuedPod
    placement: Placement
    tentative: bool = False
    """It has a node only as long as the strategy wants: there is nothing to bind yet."""
    retry: bool = False
    """It has none, and is tried again after its backoff, whatever happens meanwhile."""
    again: bool = False
    """It has none, and is tried again at once: there is nothing to tell."""
    volumes: VolumePlan | None = None
    """Of a placed member: what has to be written before its bind."""
    commit: GangCommit | None = None
    """Of a placed member whose gang did not have all it needs before."""
    preemption: Preemption | None = None
    """Of a member that there is going to be room for, when others have left: it waits for that."""
    keeps_nomination: bool = False
    """Of a member without a place: whether it stays nominated to the node that it is nominated to."""
    refusal: Refusal | None = None
    """Of a member for which there was no place in a plan."""


Attempt = Generator[bool | None, None, list[MemberOutcome]]
"""Yields after each step: whether others' pods may be decided before it goes on. If not, which is the rule,
only the cluster's events are taken in, since decisions would shake what has been found so far."""


class GangStrategy(Protocol):
    """One instance serves all gangs of the strategy."""

    beside: bool
    """Whether its attempts begin beside others' decisions."""

    def wants(self, existing: int, options: GangOptions) -> bool:
        """Whether it is time to try, with so many members in existence."""

    def attempt(self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod]) -> Attempt:
        """Tries the waiting members; closed early when one of them changes, it must leave nothing
        assumed that it does not know to release."""

    def drop(self, uid: str) -> None:
        """A member is gone."""


@dataclass(frozen=True)
class Workspace:
    """What strategies work on."""

    state: ClusterState
    rooms: Rooms
    cycles: Mapping[str, Cycle]
    clock: Callable[[], float]
    cost: GangCost
    policy: Callable[[Gang], GangPolicy]
    """Of the gang's profile."""
    exists: Callable[[GangRef], bool]
    """Whether a gang has members."""
    on_released: Callable[[str, PodInfo], None]
    """Called with the name of a node, when others may use again what was held there for this pod."""
    kept_from: Callable[[PodInfo], frozenset[str]]
    """Nodes of which the pod may not take any room."""

    def member(self, queued: QueuedPod) -> Member:
        name, key = queued.kind
        return Member(queued.info, key, self.cycles[name])

    def nodes_of(self, gang: Gang) -> list[str]:
        """Of its members that are assumed or bound, and not leaving."""
        pods = self.state.pods
        return [pods[uid].node for uid in gang.members if uid in pods and gang.stays(uid)]

    def needs(self, gang: Gang, options: GangOptions) -> list[int]:
        """How many waiting members to find places for: all that it lacks, if they exist, or else any."""
        lacking = options.min_count - len(self.nodes_of(gang))
        return [lacking, 1] if lacking > 1 and gang.existing >= options.min_count else [1]

    def planning(
        self,
        gang: Gang,
        options: GangOptions,
        pods: Sequence[QueuedPod],
        *,
        need: int,
        kept: frozenset[str] = frozenset(),
    ) -> GangPlanning:
        """A plan for these pods, `need` of them at least, beside the members that have a node. `kept`: nodes
        that are none of theirs.

        The largest come first: what is left for the last must take only the small ones. Native groups'
        members keep kube-scheduler's order where the profile decides as kube-scheduler does
        (PodGroupMemberPodsOrderingFunc in pkg/scheduler/framework/types.go)."""
        if gang.ref.source is Source.NATIVE and not self.policy(gang).largest_first:
            ordered = sorted(pods, key=lambda pod: (-pod.info.priority, -pod.attempts, pod.sequence))
        else:
            ordered = sorted(pods, key=self._size, reverse=True)
        members = [self.member(pod) for pod in ordered]
        placed = self.nodes_of(gang)
        return GangPlanning(
            gang.ref,
            options,
            members,
            self.state,
            self.rooms,
            placed=placed,
            need=need,
            kept=lambda: self.kept_from(gang.oldest) | kept,
        )

    def _size(self, pod: QueuedPod) -> float:
        """The largest share of the cluster that the pod asks for, of any resource."""
        nodes = self.state.nodes
        shares = [
            amount / int(nodes.capacity[nodes.resources[name]])
            for name, amount in pod.info.requests.items()
            if name in nodes.resources and nodes.capacity[nodes.resources[name]]
        ]
        return max(shares, default=0.0)

    def refused(self, pod: QueuedPod, planning: GangPlanning) -> MemberOutcome:
        """The outcome of a member without a place, and what would have to change."""
        plan = planning.plan
        own = plan.failures.get(pod.info.uid)
        message = own.message if plan.found and own is not None else planning.message(pod.info.uid)
        rejected_by = frozenset[str]().union(*(f.rejected_by for f in plan.failures.values()))
        refusal = Refusal(planning.reached, planning.failure(pod.info.uid).message)
        return replace(self.turned_away(pod, message, rejected_by), refusal=refusal)

    def turned_away(
        self, pod: QueuedPod, message: str, rejected_by: frozenset[str] = frozenset()
    ) -> MemberOutcome:
        """The same, if it was these plugins that rejected it; without any, whatever happens may help."""
        everybody = frozenset(f.name for f in self.cycles[pod.kind[0]].profile.filters)
        return MemberOutcome(pod, Placement(None, message, rejected_by or everybody))

    def infeasible(self, strategy: Strategy, planning: GangPlanning) -> None:
        """Counts a plan that was not found."""
        self.cost.infeasible[strategy.value] += 1
        self.cost.searches_given_up[strategy.value] += planning.plan.budget_spent
