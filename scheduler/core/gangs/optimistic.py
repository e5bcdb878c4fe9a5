"""The strategy `optimistic`: each member is placed as it comes, as a claim that keeps nobody out.

What Omega's schedulers do with transactions. Nothing is kept from others while members are missing; the
price is that what was planned may be gone when it comes to the commit. Then the transaction rolls back,
all claims go at once, and the gang is planned anew as the cluster is by then.

Claims are notes, not state: they are taken up again, on what is true then, whenever a member is added,
and one that does not hold any more is a conflict. Plan and commit are made in one go, so a commit is
always of claims that hold.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.core.gangs.attempt import Attempt, MemberOutcome, Workspace
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.commit import GangCommit
from scheduler.core.gangs.gang import ConflictMode, GangOptions, Strategy
from scheduler.core.gangs.planning import GangPlanning
from scheduler.core.gangs.ref import GangRef
from scheduler.core.placement import Placement
from scheduler.core.queue import QueuedPod

_NAME = Strategy.OPTIMISTIC.value


@dataclass(frozen=True, slots=True)
class Claim:
    """A member's node as planned."""

    queued: QueuedPod
    node: str
    generation: int
    """Of the node's row when the claim was last good."""


class Optimistic:
    """See the module."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._claims: dict[GangRef, dict[str, Claim]] = {}

    @property
    def claims(self) -> Mapping[GangRef, Mapping[str, Claim]]:
        """By gang and uid."""
        return self._claims

    def wants(self, existing: int, options: GangOptions) -> bool:
        return existing >= 1

    def attempt(self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod]) -> Attempt:
        claims = self._claims.pop(gang.ref, {})
        pods = {uid: claim.queued for uid, claim in claims.items()}
        pods |= {pod.info.uid: pod for pod in waiting}
        done = False
        try:
            good = self._take_up(claims, options)
            if len(good) < len(claims):
                self._workspace.cost.conflicts[_NAME] += 1
            planning = yield from self._plan(gang, options, pods, good)
            outcomes = self._conclude(gang, options, pods, good, planning)
            done = True
        finally:
            if not done:  # the attempt is made again
                self._lift(pods)
                self._claims[gang.ref] = {uid: c for uid, c in claims.items() if uid in gang.members}
        return outcomes

    def drop(self, uid: str) -> None:
        for ref, claims in list(self._claims.items()):
            if claims.pop(uid, None) is not None and not claims:
                del self._claims[ref]

    def give_up_all(self, ref: GangRef, why: str) -> list[MemberOutcome]:
        """Ends the gang's claims; empty if it has none."""
        claims = self._claims.pop(ref, None)
        if claims is None:
            return []
        self._workspace.cost.rollbacks[_NAME] += 1
        message = f"gang {ref} gave up its claims: {why}"
        return [
            MemberOutcome(claim.queued, Placement(None, message), retry=True) for claim in claims.values()
        ]

    # ---- internals

    def _take_up(self, claims: dict[str, Claim], options: GangOptions) -> dict[str, str]:
        """Assumes the members whose claims still hold, in order; uid → node."""
        state = self._workspace.state
        good: dict[str, str] = {}
        for uid, claim in claims.items():
            row = state.nodes.row_of.get(claim.node)
            if row is None:
                continue
            if options.conflict_mode is ConflictMode.SEQUENCE and (
                int(state.nodes.row_generation[row]) != claim.generation and claim.node not in good.values()
            ):
                continue
            member = self._workspace.member(claim.queued)
            if member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None:
                self._workspace.rooms.take(member, claim.node)
                good[uid] = claim.node
        return good

    def _plan(
        self, gang: Gang, options: GangOptions, pods: dict[str, QueuedPod], good: dict[str, str]
    ) -> Generator[None, None, GangPlanning]:
        """The members without a claim beside those with one; if none of them finds a place so, all
        of them anew. `good` is emptied then."""
        rest = [pod for uid, pod in pods.items() if uid not in good]
        planning = self._workspace.planning(gang, options, rest, need=1)
        yield from planning.steps()
        if planning.plan.found or not good:
            return planning
        self._lift(good)
        anew = self._workspace.planning(gang, options, list(pods.values()), need=len(good) + 1)
        yield from anew.steps()
        if not anew.plan.found:
            for uid, node in list(good.items()):
                del good[uid]
                member, row = self._workspace.member(pods[uid]), self._workspace.state.nodes.row_of.get(node)
                if row is not None and (
                    member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None
                ):
                    self._workspace.rooms.take(member, node)
                    good[uid] = node
            return planning
        good.clear()
        self._workspace.cost.rollbacks[_NAME] += 1
        return anew

    def _conclude(
        self,
        gang: Gang,
        options: GangOptions,
        pods: dict[str, QueuedPod],
        good: dict[str, str],
        planning: GangPlanning,
    ) -> list[MemberOutcome]:
        plan = planning.plan
        nodes = good | plan.nodes
        refused = [
            self._workspace.refused(pods[member.info.uid], planning)
            for member in planning.members
            if member.info.uid not in nodes
        ]
        if not plan.found:
            self._workspace.infeasible(Strategy.OPTIMISTIC, planning)
        bound = len(self._workspace.nodes_of(gang)) - len(nodes)
        if nodes and bound + len(nodes) >= options.min_count:
            commit = None
            if bound < options.min_count:
                commit = GangCommit(gang.ref, options.min_count, bound, nodes)
                self._workspace.cost.commits[_NAME] += 1
            return refused + [
                MemberOutcome(pods[uid], Placement(node), commit=commit) for uid, node in nodes.items()
            ]
        self._lift(nodes)
        table = self._workspace.state.nodes
        if nodes:
            self._claims[gang.ref] = {
                uid: Claim(pods[uid], node, int(table.row_generation[table.row_of[node]]))
                for uid, node in nodes.items()
            }
        return refused + [
            MemberOutcome(pods[uid], Placement(node), tentative=True) for uid, node in plan.nodes.items()
        ]

    def _lift(self, uids: dict[str, QueuedPod] | dict[str, str]) -> None:
        for uid in uids:
            self._workspace.rooms.give_back(uid)
