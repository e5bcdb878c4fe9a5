"""The strategy `hoarding`: members are placed as they come, their room held until the gang is complete.

What Mesos' frameworks do with offers. A gang is sure to grow, whatever else arrives; the price is memory
that nobody uses, and gangs that hold what others need. Three rules bound it. A hold has its gang's
priority and ends after `hold-timeout`. A gang one of whose members does not fit beside its own holds is
planned anew as a whole. And of gangs that block each other, each holding what the other lacks, the
senior one makes the juniors give up (wound-wait): seniority is priority, then age, so somebody always
gets on, and who gave up may not hold again until the winner has what it needs, or has given up itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.core.cycle import Cycle
from scheduler.core.filter_answers import PASSES
from scheduler.core.gangs.attempt import Attempt, MemberOutcome, Workspace
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.caps import HoldCaps, held_bytes
from scheduler.core.gangs.commit import GangCommit
from scheduler.core.gangs.gang import GangOptions, Strategy
from scheduler.core.gangs.planning import GangPlanning
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.too_large import NODE_RESOURCES_FIT
from scheduler.core.nodes import CPU, MEMORY
from scheduler.core.placement import Placement, Within
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key
from scheduler.core.queue import QueuedPod


@dataclass(frozen=True, slots=True)
class Hold:
    """A member's room on a node; it is assumed there."""

    queued: QueuedPod
    node: str
    since: float


class Holding:
    """All that one gang holds."""

    def __init__(self, gang: Gang, ends: float, strategy: Strategy) -> None:
        self.gang, self.ends, self.strategy = gang, ends, strategy.value
        self.holds: dict[str, Hold] = {}
        self.blocked = False
        """Whether members of it that exist found no room at the last attempt."""

    @property
    def seniority(self) -> tuple[int, str, str]:
        """The smaller, the more senior."""
        return seniority(self.gang)

    @property
    def memory_bytes(self) -> int:
        return sum(held_bytes(hold.queued.info) for hold in self.holds.values())


class Hoarding:
    """See the module."""

    beside = False

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._holdings: dict[GangRef, Holding] = {}
        self._losers: dict[GangRef, GangRef] = {}
        """Gangs that gave up their holds → the gang they wait for."""
        self._freed: list[GangRef] = []
        """Gangs whose winner has what it needs, or is gone."""

    @property
    def holdings(self) -> Iterable[Holding]:
        return self._holdings.values()

    def wants(self, existing: int, options: GangOptions) -> bool:
        return existing >= 1

    def attempt(self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod]) -> Attempt:
        winner = self._losers.get(gang.ref)
        if winner is not None:
            why = f"gang {gang.ref} gave up what it held for gang {winner}, and waits until that is complete"
            return [MemberOutcome(pod, Placement(None, why), retry=True) for pod in waiting]
        holding = self._holdings.get(gang.ref)
        pods = {h.queued.info.uid: h.queued for h in holding.holds.values()} if holding is not None else {}
        pods |= {pod.info.uid: pod for pod in waiting}
        planning = yield from self._plan(gang, options, waiting)
        wounded: list[MemberOutcome] = []
        if not planning.plan.found:
            planning, wounded = yield from self._plan_without_juniors(gang, options, waiting, planning)
        return self._conclude(gang, options, pods, planning) + wounded

    def holds_for(self, ref: GangRef) -> bool:
        return ref in self._holdings

    def may_hold(self, ref: GangRef) -> bool:
        """Not while it waits for the gang that it gave up its holds for."""
        return ref not in self._losers

    def hold(
        self, gang: Gang, options: GangOptions, nodes: Mapping[str, str], pods: Mapping[str, QueuedPod]
    ) -> list[MemberOutcome]:
        """Holds members that are assumed already, for a gang that holds nothing."""
        now = self._workspace.clock()
        holding = Holding(gang, now + options.hold_timeout_s, options.strategy)
        return self._add(holding, {uid: Hold(pods[uid], node, now) for uid, node in nodes.items()})

    def drop(self, uid: str) -> None:
        for ref, holding in list(self._holdings.items()):
            hold = holding.holds.pop(uid, None)
            if hold is not None:
                self._count(holding, hold, "wasted")
                self._workspace.on_released(hold.node, hold.queued.info)
                if not holding.holds:
                    del self._holdings[ref]
                    self._let_losers_go(ref)
        self._forget_winners(lambda winner: not self._workspace.exists(winner))

    def yielding_to(self, senior: tuple[int, str, str]) -> Iterable[tuple[str, PodInfo]]:
        """(node, pod) of all that gangs hold which would have to give it up for one of this seniority."""
        for holding in self._holdings.values():
            if holding.blocked and holding.seniority > senior:
                yield from ((hold.node, hold.queued.info) for hold in holding.holds.values())

    def take_freed(self) -> Sequence[GangRef]:
        """Gangs that had to wait for another one, and need not any more, each once."""
        freed, self._freed = self._freed, []
        return freed

    def next_due(self) -> float | None:
        """When the next hold ends."""
        return min((holding.ends for holding in self._holdings.values()), default=None)

    def expired(self) -> list[MemberOutcome]:
        """Ends holds whose time is up."""
        now = self._workspace.clock()
        due = [holding for holding in self._holdings.values() if holding.ends <= now]
        return [outcome for holding in due for outcome in self._release(holding, "its hold timed out")]

    def broken_on(self, node: str) -> list[MemberOutcome]:
        """Gives up holds on a node where others have taken more than there was, the junior gangs' first;
        all on a node that is gone."""
        nodes, outcomes = self._workspace.state.nodes, []
        for holding in sorted(self._on(node), key=lambda h: h.seniority, reverse=True):
            row = nodes.row_of.get(node)
            if row is not None and not (
                (nodes.requested[:, row] > nodes.allocatable[:, row]).any()
                or nodes.pod_count[row] > nodes.pod_limit[row]
            ):
                break
            outcomes += self._release(holding, f"others took its place on node {node}")
        return outcomes

    def give_up(self, uid: str, why: str) -> list[MemberOutcome]:
        """Ends the hold of this pod, and its gang's; empty if it has none."""
        holding = next((h for h in self._holdings.values() if uid in h.holds), None)
        return self._release(holding, why) if holding is not None else []

    def give_up_all(self, ref: GangRef, why: str) -> list[MemberOutcome]:
        """The same for a gang."""
        holding = self._holdings.get(ref)
        return self._release(holding, why) if holding is not None else []

    def give_way(
        self, info: PodInfo, key: Key, name: str, within: Within | None
    ) -> tuple[Placement | None, list[MemberOutcome]]:
        """Room for a pod that found none: what gangs of lower priority hold is its own if it needs it,
        and all is for a DaemonSet's pod, which has only the one node. (None, []) if that would not help."""
        daemon = info.owned_by_daemon_set
        weaker = [h for h in self._holdings.values() if daemon or h.gang.priority < info.priority]
        if not weaker or not self._might_help(info, self._workspace.cycles[name], weaker):
            return None, []
        weaker.sort(key=lambda holding: holding.seniority)  # in this order they may take their rooms again
        state = self._workspace.state
        for holding in weaker:
            self._lift(holding)
        node: str | None = None
        try:
            placement = self._workspace.cycles[name].place(info, key, within=within)
            node = placement.node
        finally:
            if node is None:
                for holding in weaker:
                    self._put_back(holding)
        if node is None:
            return None, []
        state.assume(info, node)  # so that only holds that can stay beside it are put back
        broken = [h for h in weaker if not self._put_back(h)]
        state.forget(info.uid)
        why = f"its place went to {info.name}"
        return placement, [outcome for holding in broken for outcome in self._release(holding, why)]

    def held_with(self, uid: str) -> Sequence[str]:
        """All pods whose room is held together with this one's; empty if its room is not held."""
        holding = next((h for h in self._holdings.values() if uid in h.holds), None)
        return tuple(holding.holds) if holding is not None else ()

    def lift(self, ref: GangRef) -> None:
        """What if the gang held nothing?"""
        if ref in self._holdings:
            self._lift(self._holdings[ref])

    def put_back(self, ref: GangRef) -> None:
        """Ends that."""
        if ref in self._holdings:
            self._put_back(self._holdings[ref])

    def served(self, ref: GangRef) -> None:
        """The gang has what it needs, by whatever strategy, or is gone."""
        self._losers.pop(ref, None)
        self._let_losers_go(ref)

    # ---- internals

    def _might_help(self, info: PodInfo, cycle: Cycle, weaker: Sequence[Holding]) -> bool:
        """Whether some node that may take the pod would have room for it without these holds: every pod of
        some priority that finds no node is asked for, and it takes long to lift very many holds."""
        if not any(plugin.name == NODE_RESOURCES_FIT for plugin in cycle.profile.filters):
            return True
        nodes, n = self._workspace.state.nodes, len(self._workspace.state.nodes)
        static, *_ = cycle.explain(info)[0]
        might = static.first[:n] == PASSES
        for name, row in (("cpu", CPU), ("memory", MEMORY)):
            room = nodes.allocatable[row, :n] - nodes.requested[row, :n]
            for hold in (hold for holding in weaker for hold in holding.holds.values()):
                if hold.node in nodes.row_of:
                    room[nodes.row_of[hold.node]] += hold.queued.info.usage.get(name, 0)
            if name in info.requests:
                might &= room >= info.requests[name]
        return bool(might.any())

    def _plan(
        self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod]
    ) -> Generator[None, None, GangPlanning]:
        """Beside what the gang holds or, if there is no room for that, the whole gang anew."""
        for need in self._workspace.needs(gang, options):
            planning = self._workspace.planning(gang, options, waiting, need=need)
            yield from planning.steps()
            if not planning.plan.found and gang.ref in self._holdings:
                planning = (yield from self._plan_anew(gang, options, waiting, need)) or planning
            if planning.plan.found:
                break
        return planning

    def _plan_anew(
        self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod], need: int
    ) -> Generator[None, None, GangPlanning | None]:
        """The whole gang, as if it held nothing; None, with all holds as they were, if it can't grow so."""
        holding = self._holdings[gang.ref]
        everybody = [*(hold.queued for hold in holding.holds.values()), *waiting]
        self._lift(holding)
        found = False
        try:
            planning = self._workspace.planning(gang, options, everybody, need=len(holding.holds) + need)
            yield from planning.steps()
            found = planning.plan.found
        finally:
            if not found:
                self._put_back(holding)
        if not found:
            return None
        for hold in holding.holds.values():
            self._count(holding, hold, "wasted")
            self._workspace.on_released(hold.node, hold.queued.info)
        self._workspace.cost.rollbacks[holding.strategy] += 1
        holding.holds.clear()
        return planning

    def _plan_without_juniors(
        self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod], failed: GangPlanning
    ) -> Generator[None, None, tuple[GangPlanning, list[MemberOutcome]]]:
        """Once more, without the holds of junior gangs that are themselves in want of room."""
        juniors = [
            h
            for h in self._holdings.values()
            if h.blocked and h.gang is not gang and h.seniority > seniority(gang)
        ]
        if not juniors:
            return failed, []
        for junior in juniors:
            self._lift(junior)
        planning, found = failed, False
        try:
            planning = yield from self._plan(gang, options, waiting)
            found = planning.plan.found
        finally:
            wounded = [junior for junior in juniors if not self._put_back(junior)] if found else []
            if not found:
                for junior in juniors:
                    self._put_back(junior)
        if not found:
            return failed, []
        outcomes = []
        for junior in wounded:
            self._workspace.cost.deadlocks += 1
            self._losers[junior.gang.ref] = gang.ref
            outcomes += self._release(junior, f"its place went to gang {gang.ref}, its senior")
        return planning, outcomes

    def _conclude(
        self, gang: Gang, options: GangOptions, pods: Mapping[str, QueuedPod], planning: GangPlanning
    ) -> list[MemberOutcome]:
        plan, now = planning.plan, self._workspace.clock()
        outcomes = [
            self._workspace.refused(pods[member.info.uid], planning)
            for member in planning.members
            if member.info.uid not in plan.nodes
        ]
        holding = self._holdings.get(gang.ref)
        holding = holding or Holding(gang, now + options.hold_timeout_s, options.strategy)
        holding.blocked = bool(outcomes)
        if not plan.found:
            self._workspace.infeasible(options.strategy, planning)
            return outcomes
        new = {uid: Hold(pods[uid], node, now) for uid, node in plan.nodes.items()}
        bound = len(self._workspace.nodes_of(gang)) - len(holding.holds) - len(new)
        if bound + len(holding.holds) + len(new) >= options.min_count:
            holding.holds |= new
            return outcomes + self._commit(holding, options, bound)
        return outcomes + self._add(holding, new)

    def _add(self, holding: Holding, new: Mapping[str, Hold]) -> list[MemberOutcome]:
        """As far as the caps allow; the others get their rooms back."""
        gang, outcomes = holding.gang, []
        caps = HoldCaps(self._workspace.state.nodes, self._workspace.policy(gang), self._holdings.values())
        for uid, hold in new.items():
            why = caps.refuse(gang.ref, hold.queued.info)
            if why:
                self._workspace.rooms.give_back(uid)
                outcomes.append(MemberOutcome(hold.queued, Placement(None, why), retry=True))
            else:
                holding.holds[uid] = hold
                outcomes.append(MemberOutcome(hold.queued, Placement(hold.node), tentative=True))
        self._holdings.pop(gang.ref, None)
        if holding.holds:
            self._holdings[gang.ref] = holding
        else:
            self._let_losers_go(gang.ref)
        return outcomes

    def _commit(self, holding: Holding, options: GangOptions, bound: int) -> list[MemberOutcome]:
        nodes = {uid: hold.node for uid, hold in holding.holds.items()}
        commit = None
        if bound < options.min_count:
            commit = GangCommit(holding.gang.ref, options.min_count, bound, nodes)
            self._workspace.cost.commits[holding.strategy] += 1
        for hold in holding.holds.values():
            self._count(holding, hold, "used")
        self._holdings.pop(holding.gang.ref, None)
        self._let_losers_go(holding.gang.ref)
        return [
            MemberOutcome(hold.queued, Placement(hold.node), commit=commit) for hold in holding.holds.values()
        ]

    def _release(self, holding: Holding, why: str) -> list[MemberOutcome]:
        """Ends all the gang's holds: a part of them is of no use to it. Whoever gave way to it need not wait
        any longer, as its other members may never come."""
        del self._holdings[holding.gang.ref]
        self._let_losers_go(holding.gang.ref)
        self._lift(holding)
        self._workspace.cost.rollbacks[holding.strategy] += 1
        # Whoever has lifted it for the time being finds nothing to put back.
        holds, holding.holds = holding.holds.values(), {}
        for hold in holds:
            self._count(holding, hold, "wasted")
            self._workspace.on_released(hold.node, hold.queued.info)
        message = f"gang {holding.gang.ref} gave up what it held: {why}"
        return [MemberOutcome(hold.queued, Placement(None, message), retry=True) for hold in holds]

    def _lift(self, holding: Holding) -> None:
        for uid in holding.holds:
            self._workspace.rooms.give_back(uid)

    def _put_back(self, holding: Holding) -> bool:
        """Assumes the members again if all pass their filters; if not, the gang's holds end soon."""
        state = self._workspace.state
        for uid, hold in holding.holds.items():
            member, row = self._workspace.member(hold.queued), state.nodes.row_of.get(hold.node)
            fits = row is not None and (
                member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None
            )
            if not fits:
                self._lift(holding)
                holding.ends = -math.inf
                return False
            if uid not in state.pods:
                self._workspace.rooms.take(member, hold.node)
        return True

    def _on(self, node: str) -> list[Holding]:
        return [h for h in self._holdings.values() if any(hold.node == node for hold in h.holds.values())]

    def _count(self, holding: Holding, hold: Hold, outcome: str) -> None:
        seconds = self._workspace.clock() - hold.since
        held = int(held_bytes(hold.queued.info) * seconds)
        self._workspace.cost.held_byte_seconds[holding.strategy, outcome] += held

    def _let_losers_go(self, winner: GangRef) -> None:
        self._forget_winners(lambda other: other == winner)

    def _forget_winners(self, done: Callable[[GangRef], bool]) -> None:
        """Who has waited for these may hold again."""
        self._freed += [loser for loser, winner in self._losers.items() if done(winner)]
        self._losers = {loser: winner for loser, winner in self._losers.items() if not done(winner)}


def seniority(gang: Gang) -> tuple[int, str, str]:
    """(priority, age, name) such that the smallest is the most senior."""
    oldest = gang.oldest
    return -gang.priority, oldest.pod.metadata.creation_timestamp or "", oldest.uid
