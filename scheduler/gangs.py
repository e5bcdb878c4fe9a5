"""Has gangs bound as their plans say: between the engine, which plans, and the committer, which binds.

The engine decides a gang's members together and hands them out one by one; here they are put together
again. Volumes come first: what can take minutes, and fail, is over before the intent to bind is written,
so that members don't wait half bound for a disk. Members that are planned while a commit of their gang is
under way join it; only those of a gang that is complete are bound as single pods.

Without a journal no gang is committed: its members give their room back, and are planned again later.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from scheduler.api import Pod
from scheduler.api_objects import ClusterObject, PodGroup
from scheduler.core.decision import Decision
from scheduler.core.engine import Engine
from scheduler.core.gangs.commit import GangCommit
from scheduler.core.gangs.gang import GangError, GangOptions, GangPolicy, Strategy
from scheduler.core.gangs.news import NotPlaced
from scheduler.core.gangs.ref import GangRef, Source, group_ref, ref_of
from scheduler.kube.binding import BindOutcome, Refused
from scheduler.kube.gangs.actions import Commit, Ended, Member
from scheduler.kube.gangs.committer import GangCommitter, Terms
from scheduler.kube.gangs.groups import INITIALLY_SCHEDULED, GroupConditions
from scheduler.kube.gangs.recovery import Unfinished, member_of
from scheduler.kube.gangs.restarts import Restarts
from scheduler.kube.volume_binder import VolumeBinder
from scheduler.kube.volume_writes import VolumeRequest
from scheduler.member_loss import MemberLoss
from scheduler.observe.metrics import Metrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """A decision whose bind is under way, or will be."""

    decision: Decision
    node: str
    started: float

    @property
    def uid(self) -> str:
        return self.decision.pod.uid


@dataclass(slots=True)
class _Batch:
    """Members of one gang that are to be bound together, and have not been handed over."""

    ref: GangRef
    commit: GangCommit | None
    members: dict[str, Placed] = field(default_factory=dict)
    unprepared: set[str] = field(default_factory=set)
    """Those whose volumes are not ready."""


class Gangs:
    """`on_outcome` is told what became of each member, `bind_single` binds one for itself."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        on_outcome: Callable[[Placed, BindOutcome], None],
        bind_single: Callable[[Placed], None],
    ) -> None:
        self._engine, self._metrics = engine, metrics
        self._on_outcome, self._bind_single = on_outcome, bind_single
        self._committer: GangCommitter | None = None
        self._why_not = "the journal of gangs is not open yet"
        self._gathering: _Batch | None = None
        self._batches: dict[GangRef, _Batch] = {}
        """Those whose volumes are being made ready."""
        self._txns: dict[GangRef, str] = {}
        self._gangs: dict[str, GangRef] = {}
        """The same the other way round."""
        self._strategies: dict[str, Strategy] = {}
        """By transaction; its gang may have no member left at the end."""
        self._binding: dict[str, tuple[str, Placed]] = {}
        """Member → the transaction it was handed over for."""
        self.losses = MemberLoss(engine, metrics, is_committing=self._may_be_committing)
        engine.gangs.book.is_committing = self._may_be_committing

    def connect(self, volumes: VolumeBinder, conditions: GroupConditions) -> None:
        """Before the first decision."""
        self._volumes, self._conditions = volumes, conditions

    def serve(self, committer: GangCommitter, restarts: Restarts) -> None:
        """Gangs can be committed from now on, and started anew."""
        self._committer = committer
        self.losses.serve(restarts)
        self._engine.gangs.groups_replaced()  # which of them are complete is known from now on

    def refuse(self, why: str) -> None:
        """They can't be, for now."""
        self._why_not = why

    def __len__(self) -> int:
        """Members that have a node and are not bound yet."""
        gathered = [self._gathering] if self._gathering is not None else []
        return len(self._binding) + sum(len(b.members) for b in (*gathered, *self._batches.values()))

    @property
    def binds_under_way(self) -> int:
        """Members whose binds the writer has."""
        return self._committer.binds_under_way if self._committer is not None else 0

    @property
    def commits_under_way(self) -> int:
        """Gangs whose intent is written, or about to be."""
        return len(self._committer) if self._committer is not None else 0

    @property
    def committing(self) -> frozenset[GangRef]:
        """Gangs that are being bound, or whose members' volumes are made ready for it."""
        return frozenset((*self._txns, *self._batches))

    def __contains__(self, uid: object) -> bool:
        return uid in self._binding or any(uid in batch.members for batch in self._unstarted())

    def key_of(self, pod: Pod) -> str | None:
        """The name of the pod's gang in the journal. Pods of other schedulers have none."""
        ref = ref_of(pod) if pod.spec.scheduler_name in self._engine.cycles else None
        return ref.key if ref is not None else None

    # ---- decisions

    def take(self, placed: Placed) -> bool:
        """Takes in a member with a node; False if it is to be bound for itself."""
        gang, commit = self._engine.gangs.book.of(placed.uid), placed.decision.commit
        ref = gang.ref if gang is not None else None
        if ref is None or (commit is None and not (ref in self._txns or ref in self._batches)):
            return False
        gathering = self._gathering
        if gathering is None or gathering.ref != ref or gathering.commit is not commit:
            self.all_taken()
            gathering = self._gathering = _Batch(ref, commit)
        gathering.members[placed.uid] = placed
        return True

    def all_taken(self) -> None:
        """Whatever is decided next, it is none of the members that were taken last."""
        batch, self._gathering = self._gathering, None
        if batch is None:
            return
        new = [placed for placed in batch.members.values() if placed.decision.volumes is not None]
        batch.unprepared.update(placed.uid for placed in new)
        earlier = self._batches.get(batch.ref)
        if earlier is not None:
            batch.members = earlier.members | batch.members
            batch.unprepared |= earlier.unprepared
            batch.commit = earlier.commit or batch.commit
        self._batches[batch.ref] = batch
        for placed in new:
            plan, metadata = placed.decision.volumes, placed.decision.pod.pod.metadata
            if plan is not None and placed.uid in batch.unprepared:
                self._volumes.bind(VolumeRequest(metadata.namespace, metadata.name, placed.uid, plan))
        self._start_if_ready(batch)

    def on_volumes_bound(self, uid: str) -> bool:
        """For `VolumeBinder`; False if the pod is none of ours."""
        batch = self._batch_of(uid)
        if batch is None:
            return False
        batch.unprepared.discard(uid)
        self._start_if_ready(batch)
        return True

    def on_volumes_failed(self, uid: str, message: str) -> bool:
        """For `VolumeBinder`: the gang is planned again; what has been written for others is found then."""
        batch = self._batch_of(uid)
        if batch is None:
            return False
        batch.unprepared.discard(uid)
        self._give_up(batch, message)
        return True

    def not_placed(self, news: NotPlaced) -> None:
        """A gang was tried in vain: its group says why."""
        if news.ref.source is Source.NATIVE:
            self._conditions.not_scheduled(lambda: self._group(news.ref), news.reason, news.message)

    # ---- what the watch says

    def pod_gone(self, pod: Pod) -> None:
        """The pod is deleted or has finished. (A bind under way finds that out itself.)"""
        self._drop(pod.metadata.uid)
        ref = ref_of(pod)
        if ref is not None and pod.spec.node_name:
            if self._committer is not None:
                self._committer.miss(pod.metadata.uid)
            self.losses.look(ref)

    def bound_elsewhere(self, uid: str) -> None:
        """It has a node, by whomsoever."""
        self._drop(uid)

    def pod_leaves(self, pod: Pod) -> None:
        """It has a node and is being deleted."""
        ref = ref_of(pod)
        if ref is not None:
            if self._committer is not None:
                self._committer.lost(pod.metadata.uid)
            self.losses.look(ref)

    def group_changed(self, item: ClusterObject) -> None:
        """What describes gangs is new, or another."""
        ref = group_ref(item)
        if ref is not None:
            self.losses.look(ref)

    def replaced(self, pods: Iterable[Pod]) -> None:
        """These are all; there was a gap in the watch."""
        if len(self):
            for uid in [uid for batch in self._unstarted() for uid in batch.members]:
                if not self._engine.knows(uid):
                    self._drop(uid)
            for pod in pods:
                if pod.spec.node_name:
                    self._drop(pod.metadata.uid)
        if self._committer is not None:
            self._committer.miss_all_but(self.is_there)
        self.losses.look_at_all()

    def on_bound(self, uid: str, outcome: BindOutcome) -> bool:
        """For `Writer`; False if the bind is none of a commit's."""
        committer = self._committer
        return committer is not None and committer.on_bound(uid, outcome, is_there=self.is_there(uid))

    def stop(self) -> None:
        """The process ends: whoever decides next goes on from what is written."""
        self._gathering = None
        self._batches.clear()

    # ---- for GangCommitter

    def on_member(self, txn: str, member: Member, outcome: BindOutcome, /) -> None:
        """The definite end of a member's bind."""
        _, placed = self._binding.pop(member.uid, (None, None))
        if placed is not None:
            self._on_outcome(placed, outcome)

    def on_short(self, txn: str, missing: int, /) -> None:
        """Members whose binds were refused back off and are planned again, beside those that are bound;
        what is found joins the transaction. If nothing is in time, its deadline ends it."""

    async def announce(self, txn: str, /) -> None:
        """minCount members are bound: the group says so."""
        ref = self._gangs.get(txn)
        group = self._group(ref) if ref is not None else None
        if group is not None:
            await self._conditions.scheduled(group)

    def on_ended(self, txn: str, ended: Ended, /) -> None:
        """Members without an outcome were not bound, and won't be."""
        ref = self._gangs.pop(txn, None)
        strategy = self._strategies.pop(txn, Strategy.ATOMIC)
        if ended.compensated:
            self._engine.gangs.cost.compensations[strategy.value] += 1
        self._metrics.gang_commits.labels("complete" if ended.complete else "given_up").inc()
        left = [placed for its_txn, placed in self._binding.values() if its_txn == txn]
        for placed in left:
            del self._binding[placed.uid]
            self._on_outcome(placed, Refused(ended.why or "the commit of its gang has ended"))
        if ref is not None:
            self._commit_ended(ref, ended)

    def on_unfinished(self, unfinished: Unfinished, /) -> None:
        """Its other members are planned like any that wait, and join the transaction."""
        ref = GangRef.parse(unfinished.entry.gang)
        if ref is not None:
            self._begins(unfinished.entry.txn, ref)
            self._engine.gangs.put_first(ref)

    def terms(self, gang: str) -> Terms:
        """What a gang that a former leader left has agreed to."""
        ref = GangRef.parse(gang)
        group = self._group(ref) if ref is not None else None
        conditions = group.status.conditions or () if group is not None else ()
        announced = any(c.type == INITIALLY_SCHEDULED and c.status == "True" for c in conditions)
        return Terms(self._deadline_s(ref), self._delete_uncontrolled(ref), announced)

    # ---- internals

    def _commit_ended(self, ref: GangRef, ended: Ended) -> None:
        # An intent that was withdrawn too late leaves a second entry of its gang, of which nothing is bound.
        other = next((txn for txn, its_ref in self._gangs.items() if its_ref == ref), None)
        if other is not None:
            self._txns[ref] = other
        else:
            del self._txns[ref]
            self._engine.gangs.book.thaw(ref)
        gang = self._engine.gangs.book.named(ref)
        if gang is not None:
            for member in ended.deleted:
                gang.leave(member.uid)
            for member in ended.stay:
                gang.keep(member.uid)
        self.losses.look(ref)
        self._engine.gangs.group_changed(ref)  # what it may do depends on whether it is complete

    def _may_be_committing(self, ref: GangRef) -> bool:
        """Whether a commit of the gang is under way, or may be one of a former leader's."""
        return self._committer is None or ref in self._txns

    def is_there(self, uid: str) -> bool:
        """Whether the watch shows the pod, and not as leaving."""
        placed = self._engine.state.pods.get(uid)
        return placed is not None and not placed.info.terminating

    def _unstarted(self) -> list[_Batch]:
        gathered = [self._gathering] if self._gathering is not None else []
        return [*gathered, *self._batches.values()]

    def _drop(self, uid: str) -> None:
        for batch in self._unstarted():
            if batch.members.pop(uid, None) is not None and uid in batch.unprepared:
                batch.unprepared.discard(uid)
                self._volumes.cancel(uid)
            if batch is not self._gathering:
                self._start_if_ready(batch)

    def _batch_of(self, uid: str) -> _Batch | None:
        return next((batch for batch in self._batches.values() if uid in batch.members), None)

    def _start_if_ready(self, batch: _Batch) -> None:
        if batch.unprepared or self._batches.get(batch.ref) is not batch:
            return
        committer, txn, commit = self._committer, self._txns.get(batch.ref), batch.commit
        if not batch.members:
            self._give_up(batch, "")
        elif committer is None:
            self._give_up(batch, self._why_not)
        elif txn is not None:
            del self._batches[batch.ref]
            self._hand_over(txn, batch.members.values())
            committer.extend(txn, self._members(batch))
        elif commit is None:
            del self._batches[batch.ref]
            for placed in batch.members.values():
                self._bind_single(placed)
        elif commit.placed_before + len(batch.members) < commit.min_count:
            self._give_up(batch, f"gang {batch.ref} has lost members that it needs")
        else:
            del self._batches[batch.ref]
            self._start(committer, commit, batch)

    def _start(self, committer: GangCommitter, commit: GangCommit, batch: _Batch) -> None:
        txn, ref = uuid.uuid4().hex, batch.ref
        group = self._group(ref)
        self._begins(txn, ref)
        self._hand_over(txn, batch.members.values())
        log.info("binding a gang", gang=str(ref), members=len(batch.members), min_count=commit.min_count)
        committer.start(
            Commit(
                txn=txn,
                gang=ref.key,
                group_uid=group.metadata.uid if group is not None else "",
                domain=self._domain(ref),
                min_count=commit.min_count,
                already_bound=self._bound_before(batch),
                members=tuple(self._members(batch)),
                deadline_s=self._deadline_s(ref),
                delete_uncontrolled=self._delete_uncontrolled(ref),
            )
        )

    def _deadline_s(self, ref: GangRef | None) -> float:
        book = self._engine.gangs.book
        gang = book.named(ref) if ref is not None else None
        return (book.policy(gang) if gang is not None else GangPolicy()).compensation_deadline_s

    def _group(self, ref: GangRef) -> PodGroup | None:
        """The native group that describes the gang."""
        if ref.source is not Source.NATIVE:
            return None
        return self._engine.state.nodes.cluster.get(PodGroup, ref.name, ref.namespace)

    def _hand_over(self, txn: str, members: Iterable[Placed]) -> None:
        self._binding.update({placed.uid: (txn, placed) for placed in members})

    def _members(self, batch: _Batch) -> list[Member]:
        """As the watch shows them now: an older version could not be bound."""
        return [member_of(self._newest(placed), placed.node) for placed in batch.members.values()]

    def _bound_before(self, batch: _Batch) -> tuple[Member, ...]:
        """The members that have a node, and not by this plan."""
        gang, pods = self._engine.gangs.book.named(batch.ref), self._engine.state.pods
        if gang is None:
            return ()
        before = [uid for uid in gang.members if uid in pods and uid not in batch.members]
        return tuple(member_of(pods[uid].info.pod, pods[uid].node) for uid in before if gang.stays(uid))

    def _newest(self, placed: Placed) -> Pod:
        queued = self._engine.queue.get(placed.uid)
        return queued.info.pod if queued is not None else placed.decision.pod.pod

    def _delete_uncontrolled(self, ref: GangRef | None) -> bool:
        options = self._options(ref) if ref is not None else None
        return options is not None and options.delete_uncontrolled

    def _begins(self, txn: str, ref: GangRef) -> None:
        self._txns[ref], self._gangs[txn] = txn, ref
        options = self._options(ref)
        if options is not None:
            self._strategies[txn] = options.strategy

    def _domain(self, ref: GangRef) -> str:
        options = self._options(ref)
        return options.topology_key if options is not None else ""

    def _options(self, ref: GangRef) -> GangOptions | None:
        gang = self._engine.gangs.book.named(ref)
        try:
            return self._engine.gangs.book.options(gang) if gang is not None else None
        except GangError:
            return None

    def _give_up(self, batch: _Batch, why: str) -> None:
        self._batches.pop(batch.ref, None)
        for uid in batch.unprepared:
            self._volumes.cancel(uid)
        for placed in batch.members.values():
            self._on_outcome(placed, Refused(why))
        if batch.ref not in self._txns:
            self._engine.gangs.commit_ended(batch.ref)
