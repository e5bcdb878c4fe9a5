"""The strategy `optimistic`: each member is placed as it comes, as a claim that keeps nobody out.

What Omega's schedulers do with transactions. Nothing is kept from others while members are missing, nor
while a plan is made: it is made on a snapshot (`scheduler.core.shadow`), beside others' decisions. The
price is that what was planned may be gone when it comes to the commit. All members are then validated on the
live state, by every filter or by whether their nodes have changed at all; if one can't go where it was
planned, the transaction rolls back. What of it holds is claimed, and the rest is planned again as the
cluster is by then. A gang that has met with so many conflicts in a row is planned once on the live state,
with nobody beside it, where there is none.

Claims are notes, not state: they are taken up again, on what is true then, whenever a member is added,
and one that does not hold any more is a conflict, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.core.gangs.attempt import Attempt, MemberOutcome, Workspace
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.commit import GangCommit
from scheduler.core.gangs.gang import ConflictMode, GangOptions, Strategy, TransactionMode
from scheduler.core.gangs.hoarding import Hoarding
from scheduler.core.gangs.planning import GangPlanning
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.rooms import Rooms
from scheduler.core.gangs.validation import Validation, has_changed, in_one_domain
from scheduler.core.placement import Placement
from scheduler.core.queue import QueuedPod
from scheduler.core.shadow import Shadow
from scheduler.core.state import ClusterState

CONFLICTS_TOLERATED = 5
"""After so many in a row at the commit, a gang is planned where there can be none."""
_NAME = Strategy.OPTIMISTIC.value


@dataclass(frozen=True, slots=True)
class Claim:
    """A member's node as planned."""

    queued: QueuedPod
    node: str
    generation: int
    """The node table's when the claim was last good."""


@dataclass(slots=True)
class _Transaction:
    """What is being put together for a gang."""

    gang: Gang
    options: GangOptions
    pods: dict[str, QueuedPod]
    claims: dict[str, Claim]
    waiting: Collection[str]
    """Those of the pods that had no claim at the beginning."""
    live: ClusterState
    lost: bool = False
    """Whether others have taken the room of any of the claims that there were at the beginning."""
    rolled_back: bool = False
    """Claims are by now what a conflict has left."""


class Optimistic:
    """See the module."""

    beside = True

    def __init__(self, workspace: Workspace, hoarding: Hoarding) -> None:
        """`hoarding`: holds what mode `incremental` keeps."""
        self._live, self._hoarding = workspace, hoarding
        self._claims: dict[GangRef, dict[str, Claim]] = {}
        self._begun: dict[GangRef, dict[str, Claim]] = {}
        """Of an attempt under way: claims as they were at its beginning, and are again if it is dropped."""
        self._conflicts: Counter[GangRef] = Counter()
        """In a row, at the commit."""
        self._shadow: tuple[Shadow, Rooms, list[str]] | None = None
        """Made when it is first needed; and pods that may be left in it from the plan before."""

    @property
    def claims(self) -> Mapping[GangRef, Mapping[str, Claim]]:
        """By gang and uid."""
        return self._claims

    def wants(self, existing: int, options: GangOptions) -> bool:
        return existing >= 1

    def attempt(self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod]) -> Attempt:
        if self._hoarding.holds_for(gang.ref):
            return (yield from self._hoarding.attempt(gang, options, waiting))
        new = {pod.info.uid: pod for pod in waiting}
        claims = {u: claim for u, claim in self._claims.pop(gang.ref, {}).items() if u not in new}
        pods = {uid: claim.queued for uid, claim in claims.items()} | new
        self._begun[gang.ref] = dict(claims)
        transaction = _Transaction(gang, options, pods, claims, new.keys(), self._live.state)
        done = False
        try:
            outcomes = None
            while outcomes is None and self._conflicts[gang.ref] < CONFLICTS_TOLERATED:
                outcomes = yield from self._beside(transaction)
            if outcomes is None:
                outcomes = yield from self._alone(transaction)
            done = True
        finally:
            kept = self._begun.pop(gang.ref)
            if kept and not done:  # the attempt is made again
                self._claims[gang.ref] = kept
            if not self._conflicts[gang.ref]:
                del self._conflicts[gang.ref]
        if transaction.lost:
            self._live.cost.conflicts[_NAME] += 1
        return outcomes

    def drop(self, uid: str) -> None:
        for claims_of in (self._claims, self._begun):
            for claims in claims_of.values():
                claims.pop(uid, None)
        for ref in [ref for ref, claims in self._claims.items() if not claims]:
            del self._claims[ref]
        for ref in [ref for ref in self._conflicts if not self._live.exists(ref)]:
            del self._conflicts[ref]

    def give_up_all(self, ref: GangRef, why: str) -> list[MemberOutcome]:
        """Ends the gang's claims; empty if it has none."""
        claims = self._claims.pop(ref, None)
        if claims is None:
            return []
        self._live.cost.rollbacks[_NAME] += 1
        message = f"gang {ref} gave up its claims: {why}"
        return [
            MemberOutcome(claim.queued, Placement(None, message), retry=True) for claim in claims.values()
        ]

    # ---- internals

    def _beside(self, transaction: _Transaction) -> Generator[bool, None, list[MemberOutcome] | None]:
        """On a snapshot; None after a conflict at the commit."""
        if self._shadow is None:
            shadow = Shadow(self._live.state, self._live.cycles)
            self._shadow = shadow, Rooms(shadow.state), []
        shadow, rooms, left_over = self._shadow
        placing = _Placing(
            replace(self._live, state=shadow.state, rooms=rooms, cycles=shadow.cycles), transaction
        )
        try:
            # After a conflict members stay in the shadow, on nodes that have not changed meanwhile. (Those
            # that are nominated somewhere would count twice.)
            keeps = transaction.rolled_back and not self._live.state.nominations
            while left_over and not keeps:
                rooms.give_back(left_over.pop())
                yield True
            for _ in shadow.catch_up():
                yield True
            generation = shadow.generation
            if not left_over:
                left_over += transaction.pods
            for _ in placing.steps():
                yield True
        except Exception:
            self._shadow = None  # whatever it was may have left something behind
            raise
        complete = self._is_complete(transaction, placing.nodes)
        if not complete and not (transaction.lost and self._is_incremental(transaction)):
            return self._claim(transaction, placing, generation)
        if complete and (yield from self._validate(transaction, placing.nodes, generation)):
            return self._commit(transaction, placing)
        if self._is_incremental(transaction):
            outcomes = yield from self._hold_what_holds(transaction, placing.nodes, generation)
            if outcomes is not None:
                self._live.cost.conflicts[_NAME] += complete
                return outcomes
            if not complete:
                return self._claim(transaction, placing, generation)
        transaction.claims = self._claims_of(transaction, placing.nodes, generation)
        transaction.rolled_back = True
        self._conflicts[transaction.gang.ref] += 1
        self._live.cost.conflicts[_NAME] += 1
        self._live.cost.rollbacks[_NAME] += 1
        return None

    def _validate(
        self, transaction: _Transaction, nodes: Mapping[str, str], generation: int
    ) -> Generator[bool, None, bool]:
        """Takes up all members on the live state, if the plan that was made at this generation holds."""
        gang, options, live = transaction.gang, transaction.options, self._live
        strict = options.conflict_mode is ConflictMode.SEQUENCE
        validation = Validation(live.state, live.rooms, live.state.nodes, generation, strict=strict)
        holds = False
        try:
            planned = [(live.member(transaction.pods[uid]), node) for uid, node in nodes.items()]
            for _ in validation.steps(planned, all_or_none=True):
                yield True
            holds = (
                len(validation.taken) == len(planned)
                and validation.still_holds()
                and self._is_complete(transaction, nodes)
                and in_one_domain(live.state, options.topology_key, live.nodes_of(gang))
            )
        finally:
            if not holds:
                validation.give_back(live.on_released)
        return holds

    def _alone(self, transaction: _Transaction) -> Generator[None, None, list[MemberOutcome]]:
        """On the live state, with nobody beside."""
        placing = _Placing(self._live, transaction)
        committed = False
        try:
            yield from placing.steps()
            committed = self._is_complete(transaction, placing.nodes)
        finally:
            if not committed:
                placing.give_back()
        self._conflicts[transaction.gang.ref] = 0
        if committed:
            return self._commit(transaction, placing)
        return self._claim(transaction, placing, self._live.state.nodes.generation)

    def _is_complete(self, transaction: _Transaction, nodes: Mapping[str, str]) -> bool:
        bound = self._bound(transaction, nodes)
        return bool(nodes) and bound + len(nodes) >= transaction.options.min_count

    def _bound(self, transaction: _Transaction, nodes: Mapping[str, str]) -> int:
        pods, gang = self._live.state.pods, transaction.gang
        return sum(uid in pods and uid not in nodes and gang.stays(uid) for uid in gang.members)

    def _is_incremental(self, transaction: _Transaction) -> bool:
        """Whether members may be held: it is that kind of gang, and none is missing."""
        gang, options = transaction.gang, transaction.options
        return (
            options.transaction is TransactionMode.INCREMENTAL
            and gang.existing >= options.min_count
            and self._hoarding.may_hold(gang.ref)
        )

    def _hold_what_holds(
        self, transaction: _Transaction, nodes: Mapping[str, str], generation: int
    ) -> Generator[bool, None, list[MemberOutcome] | None]:
        """Members without a conflict are held, and the others tried again at once, by `hoarding`; None if
        there are none."""
        gang, options, pods, live = transaction.gang, transaction.options, transaction.pods, self._live
        if options.conflict_mode is ConflictMode.SEQUENCE:
            table = live.state.nodes
            nodes = {uid: node for uid, node in nodes.items() if not has_changed(table, node, generation)}
        validation = Validation(live.state, live.rooms, live.state.nodes, generation)
        outcomes: list[MemberOutcome] | None = None
        try:
            planned = [(live.member(pods[uid]), node) for uid, node in nodes.items()]
            for _ in validation.steps(planned, all_or_none=False):
                yield True
            if (
                validation.taken
                and validation.still_holds()
                and in_one_domain(live.state, options.topology_key, live.nodes_of(gang))
            ):
                outcomes = self._hoarding.hold(gang, options, validation.taken, pods)
        finally:
            if outcomes is None:
                validation.give_back(live.on_released)
        if outcomes is None:
            return None
        rest = [pod for uid, pod in pods.items() if uid not in validation.taken]
        return outcomes + [MemberOutcome(pod, Placement(None), again=True) for pod in rest]

    def _commit(self, transaction: _Transaction, placing: _Placing) -> list[MemberOutcome]:
        """The members are assumed on the live state."""
        gang, options, nodes = transaction.gang, transaction.options, placing.nodes
        bound, commit = self._bound(transaction, nodes), None
        if bound < options.min_count:
            commit = GangCommit(gang.ref, options.min_count, bound, nodes)
            self._live.cost.commits[_NAME] += 1
        self._conflicts[gang.ref] = 0
        return self._refused(transaction, placing) + [
            MemberOutcome(transaction.pods[uid], Placement(node), commit=commit)
            for uid, node in nodes.items()
        ]

    def _claim(self, transaction: _Transaction, placing: _Placing, generation: int) -> list[MemberOutcome]:
        """Members are missing, or have no place: what was found is noted, and left to everybody."""
        pods, found = transaction.pods, placing.planning.plan.nodes
        if placing.nodes:
            claims = self._claims_of(transaction, placing.nodes, generation)
            self._claims[transaction.gang.ref] = claims
        return self._refused(transaction, placing) + [
            MemberOutcome(pods[uid], Placement(node), tentative=True)
            for uid, node in placing.nodes.items()
            if uid in found or uid in transaction.waiting
        ]

    @staticmethod
    def _claims_of(transaction: _Transaction, nodes: Mapping[str, str], generation: int) -> dict[str, Claim]:
        pods = transaction.pods
        return {uid: Claim(pods[uid], node, generation) for uid, node in nodes.items()}

    def _refused(self, transaction: _Transaction, placing: _Placing) -> list[MemberOutcome]:
        if not placing.planning.plan.found:
            self._live.infeasible(Strategy.OPTIMISTIC, placing.planning)
        return [
            self._live.refused(transaction.pods[member.info.uid], placing.planning)
            for member in placing.planning.members
            if member.info.uid not in placing.nodes
        ]


class _Placing:
    """Finds places for a gang's members: claims that still hold, and a plan for the others beside them, or if
    there is none, for all anew. They are assumed in the workspace's state until `give_back`."""

    planning: GangPlanning

    def __init__(self, workspace: Workspace, transaction: _Transaction) -> None:
        self._workspace, self._transaction = workspace, transaction
        self.nodes: dict[str, str] = {}
        """uid → node, of all that have a place at the end."""

    def steps(self) -> Generator[None, None, None]:
        workspace, transaction = self._workspace, self._transaction
        gang, options, pods = transaction.gang, transaction.options, transaction.pods
        good = yield from self._take_up()
        if not transaction.rolled_back:
            transaction.lost |= len(good) < len(transaction.claims)
        transaction.claims = {uid: claim for uid, claim in transaction.claims.items() if uid in good}
        for need in workspace.needs(gang, options):
            rest = [pod for uid, pod in pods.items() if uid not in good]
            self.planning = workspace.planning(gang, options, rest, need=need)
            yield from self.planning.steps()
            if not self.planning.plan.found and good:
                yield from self._give_back()
                anew = workspace.planning(gang, options, list(pods.values()), need=len(good) + need)
                yield from anew.steps()
                if anew.plan.found:
                    workspace.cost.rollbacks[_NAME] += 1
                    self.planning, good = anew, {}
                else:
                    good = yield from self._take_up()
            if self.planning.plan.found:
                break
        self.nodes = good | self.planning.plan.nodes

    def give_back(self) -> None:
        for _ in self._give_back():
            pass

    def _give_back(self) -> Generator[None, None, None]:
        for uid in self._transaction.pods:
            self._workspace.rooms.give_back(uid)
            yield

    def _take_up(self) -> Generator[None, None, dict[str, str]]:
        """Claims that still hold; uid → node."""
        workspace, transaction = self._workspace, self._transaction
        options, claims = transaction.options, transaction.claims
        live = transaction.live
        kept = {
            uid: claim
            for uid, claim in claims.items()
            if options.conflict_mode is ConflictMode.FIT
            or not has_changed(live.nodes, claim.node, claim.generation)
        }
        places = [*workspace.nodes_of(transaction.gang), *(claim.node for claim in kept.values())]
        if not in_one_domain(workspace.state, options.topology_key, places):
            kept = {}
        still_there = kept.keys() & workspace.state.pods.keys()
        for uid in transaction.pods.keys() - still_there:
            workspace.rooms.give_back(uid)
        good = {uid: claim.node for uid, claim in kept.items() if uid in still_there}
        since = min((claim.generation for claim in kept.values()), default=0)
        validation = Validation(workspace.state, workspace.rooms, live.nodes, since)
        claimed = [
            (workspace.member(claim.queued), claim.node) for uid, claim in kept.items() if uid not in good
        ]
        yield from validation.steps(claimed, all_or_none=False)
        return good | validation.taken
