"""Carries out the commits of gangs: between their owner, who plans, and the journal, the writer, the pods.

Binds go through the `Writer`, among those of single pods: its rate limit and its order hold for all.
What else there is to do is rare, takes one or a few requests, and gets a task each.

Nothing here is retried by a plan of its own: each action ends when it is certain what came of it. The one
exception is an intent, which is given up after a while. A *fenced* committer stops where it stands, since
another one has the journal and all that was under way; `run` raises it, and the process is to end.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog

from scheduler.api import Pod
from scheduler.kube.binding import BindOutcome, Refused
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.actions import (
    Action,
    Actions,
    Announce,
    Bind,
    Cancel,
    Commit,
    Condemn,
    Delete,
    Ended,
    Keep,
    Member,
    Record,
    Remove,
    Settled,
    Short,
    Touch,
    Verify,
)
from scheduler.kube.gangs.pods import Fate, PodWrites
from scheduler.kube.gangs.recovery import Recovery, Unfinished
from scheduler.kube.gangs.transaction import Transaction
from scheduler.kube.journal import Journal, LeftBehind
from scheduler.kube.journal_format import Entry, Fenced, JournalUnavailable
from scheduler.kube.payloads import BindRequest, PodEvent

log = structlog.get_logger(__name__)

INCOMPLETE = "GangIncomplete"
"""Reason of the condition of members that are deleted, and of the event of those that stay."""


Work = Callable[[], Coroutine[Any, Any, None]]


class PodWriter(Protocol):
    """What is used of `writer.Writer`; its `on_bound` must be passed on to the committer."""

    def bind(self, request: BindRequest, /) -> None: ...

    def cancel(self, uid: str, /) -> bool: ...

    def post_event(self, event: PodEvent, /) -> None: ...


class Owner(Protocol):
    """Who plans gangs. All but `announce` are called in the event loop and must not block.

    They may call the committer back at once.
    """

    def on_member(self, txn: str, member: Member, outcome: BindOutcome, /) -> None:
        """The definite end of a member's bind."""

    def on_short(self, txn: str, missing: int, /) -> None:
        """So many are missing to minCount even if all goes well: `extend` or `compensate`."""

    async def announce(self, txn: str, /) -> None:
        """minCount members are bound: write the group's condition. The entry stays until this returns, so
        that a new leader would do it again; it must return in the end, even if that can't be written."""

    def on_ended(self, txn: str, ended: Ended, /) -> None:
        """Nothing more will be done. A member without an outcome was not bound and won't be."""

    def on_unfinished(self, unfinished: Unfinished, /) -> None:
        """A former leader left this gang; its transaction goes on here, and is first in line."""


class Terms(msgspec.Struct, frozen=True):
    """What a gang has agreed to (see `actions.Commit`), and whether its condition says that it was placed:
    then it has been complete, whoever was lost since."""

    deadline_s: float
    delete_uncontrolled: bool = False
    announced: bool = False


class GangCommitter:
    """`recover` first, then `start` as many as there are plans; `run` must be going on meanwhile.

    `clock` counts seconds and serves deadlines, `wall` is Unix time.
    """

    def __init__(
        self,
        client: KubeClient,
        journal: Journal,
        writer: PodWriter,
        owner: Owner,
        *,
        scheduler_name: str,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._writer, self._owner = journal, writer, owner
        self._scheduler_name = scheduler_name
        self._clock, self._wall = clock, wall
        self._pods = PodWrites(client, rng=rng or random.Random(), clock=clock)
        self._transactions: dict[str, Transaction] = {}
        self._binding: dict[str, Transaction] = {}  # by member's uid
        self._todo: deque[tuple[Transaction, Action]] = deque()
        self._acting = False
        self._group: asyncio.TaskGroup | None = None
        self._early: list[Work] = []  # asked for before `run` was there
        self._next_deadline = math.inf
        self._earlier = asyncio.Event()  # a deadline before that one has appeared
        self._closed = ""

    def __contains__(self, gang: object) -> bool:
        """Whether a commit of this gang is under way."""
        return any(transaction.commit.gang == gang for transaction in self._transactions.values())

    def __len__(self) -> int:
        return len(self._transactions)

    @property
    def binds_under_way(self) -> int:
        """Members whose binds the writer has."""
        return len(self._binding)

    def start(self, commit: Commit) -> None:
        """Raises ValueError if the gang or the transaction is being committed already."""
        if commit.txn in self._transactions or commit.gang in self:
            raise ValueError(f"{commit.gang} is being committed already")
        if self._closed:
            self._owner.on_ended(commit.txn, Ended(False, self._closed))
            return
        transaction = self._add(commit)
        self._act(transaction, transaction.begin())

    def extend(self, txn: str, members: Iterable[Member]) -> None:
        """Bind these members as well; what has no transaction any more is refused."""
        members = tuple(members)
        if txn in self._transactions:
            self._act(self._transactions[txn], self._transactions[txn].extend(members))
            return
        for member in members:
            self._owner.on_member(txn, member, Refused("the commit of its gang has ended"))

    def compensate(self, txn: str, why: str) -> None:
        """Give the gang up; nothing happens if it is complete or ended."""
        if txn in self._transactions:
            self._act(self._transactions[txn], self._transactions[txn].compensate(why))

    def lost(self, uid: str) -> None:
        """The watch shows that a bound pod is terminating, whosever it is."""
        for transaction in list(self._transactions.values()):
            self._act(transaction, transaction.lost(uid))

    def miss(self, uid: str) -> None:
        """The watch shows a pod no more that was bound: it may be gone, or finished, which looks the same."""
        for transaction in list(self._transactions.values()):
            member = transaction.losable(uid)
            if member is not None:
                transaction.doubt(uid)
                self._spawn(partial(self._look_at, transaction, member))

    def miss_all_but(self, is_there: Callable[[str], bool]) -> None:
        """After a gap, the watch shows these bound pods alone."""
        for transaction in list(self._transactions.values()):
            for uid in transaction.counted:
                if not is_there(uid):
                    self.miss(uid)

    def on_bound(self, uid: str, outcome: BindOutcome, *, is_there: bool = True) -> bool:
        """From the writer. False if the bind is none of ours. `is_there`: unless the watch has shown already
        that the pod is gone, or about to."""
        transaction = self._binding.pop(uid, None)
        if transaction is None:
            return False
        self._act(transaction, transaction.settled(uid, outcome, in_doubt=not is_there))
        member = transaction.losable(uid)
        if member is not None and not is_there:
            self._spawn(partial(self._look_at, transaction, member))
        return True

    def close(self, why: str) -> None:
        """Start no more commits; those under way go on."""
        self._closed = why

    async def recover(
        self,
        left: LeftBehind,
        pods: Iterable[Pod],
        *,
        gang_of: Callable[[Pod], str | None],
        terms: Callable[[str], Terms],
        is_there: Callable[[str], bool],
    ) -> None:
        """Take over what a former leader left (see `recovery`). `pods` were listed after the journal was
        opened; `is_there` says whether the watch shows one of them still, when all have been touched.
        Returns when no late bind is possible and the owner knows all gangs."""
        recovery = Recovery(left.entries, pods, gang_of=gang_of)
        mark = f"epoch {self._journal.epoch} of {self._journal.owner}"

        async def touch(member: Member) -> None:
            recovery.touched(member.uid, await self._pods.touch(member, mark))

        async with asyncio.TaskGroup() as touches:
            for member in recovery.to_touch():
                touches.create_task(touch(member))
        for unfinished in recovery.unfinished(self._wall() + left.server_ahead_s):
            self._take_over(unfinished, terms(unfinished.entry.gang), is_there)

    async def run(self) -> None:
        """Until cancelled. Raises Fenced."""
        fenced: Fenced | None = None
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for work in self._early:
                    group.create_task(work())
                self._early.clear()
                await self._watch_deadlines()
        except* Fenced as several:
            fenced = next(error for error in several.exceptions if isinstance(error, Fenced))
        finally:
            self._group = None
        if fenced is not None:
            raise fenced

    async def _watch_deadlines(self) -> None:
        while True:
            self._earlier.clear()
            transactions = list(self._transactions.values())
            for transaction in transactions:
                self._act(transaction, transaction.expire())
            self._next_deadline = min((t.deadline for t in transactions), default=math.inf)
            wait_s = self._next_deadline - self._clock()
            try:
                async with asyncio.timeout(None if wait_s == math.inf else max(0.0, wait_s)):
                    await self._earlier.wait()
            except TimeoutError:
                pass

    def _add(self, commit: Commit) -> Transaction:
        transaction = Transaction(
            commit, epoch=self._journal.epoch, started=int(self._wall()), clock=self._clock
        )
        self._transactions[commit.txn] = transaction
        return transaction

    def _take_over(self, unfinished: Unfinished, terms: Terms, is_there: Callable[[str], bool]) -> None:
        entry = unfinished.entry
        counted = (*unfinished.bound, *unfinished.others)
        in_doubt = [member for member in counted if not is_there(member.uid)]
        commit = Commit(
            txn=entry.txn,
            gang=entry.gang,
            group_uid=entry.uid,
            domain=entry.domain,
            min_count=entry.min_count,
            already_bound=unfinished.others,
            members=(),
            deadline_s=terms.deadline_s,
            delete_uncontrolled=terms.delete_uncontrolled,
        )
        log.info(
            "took over a gang that was being bound",
            gang=entry.gang,
            state=entry.state,
            bound=len(unfinished.bound) + len(unfinished.others),
            min_count=entry.min_count,
        )
        transaction = self._add(commit)
        self._owner.on_unfinished(unfinished)
        self._act(
            transaction,
            transaction.resume(
                entry,
                unfinished.bound,
                bound_for_s=unfinished.bound_for_s,
                announced=terms.announced,
                in_doubt=[member.uid for member in in_doubt],
            ),
        )
        for member in in_doubt:
            self._spawn(partial(self._look_at, transaction, member))

    # Actions.

    def _act(self, transaction: Transaction, actions: Actions) -> None:
        """In order, also when one of them leads to others."""
        self._todo.extend((transaction, action) for action in actions)
        if self._acting:
            return
        self._acting = True
        try:
            while self._todo:
                self._perform(*self._todo.popleft())
        finally:
            self._acting = False
        if transaction.deadline < self._next_deadline:
            self._earlier.set()

    def _perform(self, transaction: Transaction, action: Action) -> None:
        txn = transaction.commit.txn
        match action:
            case Record(entry):
                self._spawn(partial(self._record, transaction, entry))
            case Verify():
                self._spawn_then(transaction, self._journal.verify, transaction.verified)
            case Bind(member):
                self._bind(transaction, member)
            case Announce():
                log.info("gang is bound", gang=transaction.commit.gang, bound=transaction.bound)
                self._spawn_then(transaction, partial(self._owner.announce, txn), transaction.announced)
            case Condemn(entry):
                self._spawn_then(transaction, partial(self._journal.update, entry), transaction.condemned)
            case Cancel(member):
                self._binding.pop(member.uid, None)
                self._writer.cancel(member.uid)
            case Touch(member):
                self._spawn(partial(self._touch, transaction, member))
            case Delete(member):
                self._spawn(partial(self._delete, transaction, member))
            case Keep(member):
                self._spawn(partial(self._keep, transaction, member))
            case Remove():
                self._spawn_then(transaction, partial(self._journal.remove, txn), transaction.removed)
            case Settled(member, outcome):
                self._owner.on_member(txn, member, outcome)
            case Short(missing):
                log.info("gang is short of members", gang=transaction.commit.gang, missing=missing)
                self._owner.on_short(txn, missing)
            case Ended() as ended:
                del self._transactions[txn]
                if not ended.complete:
                    log.warning("gang is not bound", gang=transaction.commit.gang, why=ended.why)
                self._owner.on_ended(txn, ended)

    def _spawn(self, work: Work) -> None:
        if self._group is None:
            self._early.append(work)
        else:
            self._group.create_task(work())

    def _spawn_then(self, transaction: Transaction, work: Work, done: Callable[[], Actions]) -> None:
        async def both() -> None:
            await work()
            self._act(transaction, done())

        self._spawn(both)

    async def _record(self, transaction: Transaction, entry: Entry) -> None:
        try:
            await self._journal.record(entry)
        except JournalUnavailable as error:
            self._act(transaction, transaction.not_recorded(str(error)))
        else:
            self._act(transaction, transaction.recorded())

    def _bind(self, transaction: Transaction, member: Member) -> None:
        try:
            self._writer.bind(member.to_bind(transaction.commit.txn))
        except ValueError as error:
            self._act(transaction, transaction.settled(member.uid, Refused(str(error))))
        except RuntimeError:
            log.info("not bound at shutdown", pod=f"{member.namespace}/{member.name}")  # our heir will
        else:
            self._binding[member.uid] = transaction

    async def _touch(self, transaction: Transaction, member: Member) -> None:
        mark = f"epoch {self._journal.epoch} of {self._journal.owner}: {transaction.commit.txn} was given up"
        found = await self._pods.touch(member, mark)
        self._act(transaction, transaction.touched(member.uid, None if found is None else found.node))

    async def _delete(self, transaction: Transaction, member: Member) -> None:
        message = f"{self._scheduler_name}: its gang can't be completed"
        await self._pods.delete(member, reason=INCOMPLETE, message=message)
        log.info(
            "deleted a member of a gang that can't be completed", pod=f"{member.namespace}/{member.name}"
        )
        self._act(transaction, transaction.deleted(member.uid))

    async def _look_at(self, transaction: Transaction, member: Member) -> None:
        match await self._pods.fate(member):
            case Fate.LOST:
                self._act(transaction, transaction.lost(member.uid))
            case Fate.FINISHED:
                self._act(transaction, transaction.finished(member.uid))
            case Fate.BOUND:
                self._act(transaction, transaction.still_bound(member.uid))  # the watch is behind

    async def _keep(self, transaction: Transaction, member: Member) -> None:
        note = (
            f"Its gang can't be completed, but the pod stays on {member.node}: it has no controller that "
            "would create it again. Delete it to free its room"
        )
        self._writer.post_event(
            member.warning(
                reason=INCOMPLETE,
                action="Compensating",
                note=note,
                scheduler_name=self._scheduler_name,
            )
        )
        log.warning(
            "kept a member of a gang that can't be completed", gang=transaction.commit.gang, note=note
        )
        await self._pods.keep(member, reason=INCOMPLETE, message=note)
        self._act(transaction, transaction.kept(member.uid))
