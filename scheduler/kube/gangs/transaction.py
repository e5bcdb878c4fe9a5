"""One gang's commit as a state machine: what happened goes in, what is to be done comes out.

    INTENT ──durable──▶ BINDING ──minCount bound──▶ COMPLETE ──announced, entry removed──▶ ENDED
       │                   │ given up, or past the deadline
       └──not durable──▶ ENDED ◀──entry removed── DELETING ◀──durable── CONDEMNED

* S2: nothing is bound before the intent is durable.
* S3: each bind names the uid and the resourceVersion that the plan was made for. A member that has changed
  since may be bound as it is now, but only after the journal was *verified* to be ours still: the order
  (version read, journal verified, bind) is what fencing rests on (see `scheduler.kube.journal`).
* S4: `minCount` bound members make the gang complete. Members beyond are single pods from here on. One that
  the watch shows no more is *in doubt*: it makes nothing complete until it is known what became of it.
* S5: the group's condition is written first, then the entry removed; in the other order a crash would
  leave a gang that nobody calls placed.
* C1 to C3: see `compensate`. Deleting starts when the entry says `compensating`, and not before.

Too few members that can be bound is no failure yet. It is reported once for each member that is missing
more, and the owner plans the rest again (`extend`) or gives up (`compensate`). If it does neither, the
deadline does. It is counted from the first bind, or from the intent as long as nothing is bound.
"""

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from scheduler.kube.binding import BindOutcome, Bound, BoundElsewhere, Gone, Refused
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
from scheduler.kube.journal_format import Entry

GIVEN_UP = "the commit of its gang was given up"
_MAX_CHANGES = 20
"""Of a member that changes each time before its bind arrives; then it counts as refused."""


class Phase(enum.Enum):
    INTENT = "intent"
    BINDING = "binding"
    COMPLETE = "complete"
    CONDEMNED = "condemned"
    DELETING = "deleting"
    ENDED = "ended"


class Transaction:
    """`begin` it, or `resume` one that a former leader left behind.

    `started` is Unix time; `clock` counts seconds and serves the deadline.
    """

    def __init__(self, commit: Commit, *, epoch: int, started: int, clock: Callable[[], float]) -> None:
        self.commit = commit
        self.phase = Phase.INTENT
        self.entry = Entry(
            txn=commit.txn,
            gang=commit.gang,
            uid=commit.group_uid,
            min_count=commit.min_count,
            domain=commit.domain,
            epoch=epoch,
            started=started,
        )
        self._clock = clock
        self._under_way: dict[str, Member] = {}
        """Binds that were asked for and have no outcome."""
        self._changed: dict[str, Member] = {}
        """Members with a version that was read when the journal may have been another's."""
        self._verifying: dict[str, Member] = {}
        self._changes: dict[str, int] = {}
        self._bound: dict[str, Member] = {}
        self._others = {member.uid: member for member in commit.already_bound}
        """Members that are bound, but not by this transaction, and those that have finished."""
        self._finished: set[str] = set()
        self._in_doubt: Counter[str] = Counter()
        """How many answers are awaited as to what became of a member."""
        self._intended_at = clock()
        self._first_bound_at: float | None = None
        self._missing = 0
        self._leaving: dict[str, Member] = {}
        self._deleted: list[Member] = []
        self._stay: list[Member] = []
        self._why = ""
        self._entry_gone = False

    @property
    def deadline(self) -> float:
        """When it is to be given up, on the clock; infinite if nothing presses."""
        if self.phase is not Phase.BINDING:
            return math.inf
        since = self._intended_at if self._first_bound_at is None else self._first_bound_at
        return since + self.commit.deadline_s

    @property
    def bound(self) -> int:
        """Members that are bound as far as we know, earlier ones included."""
        return len(self._others) + len(self._bound)

    @property
    def counted(self) -> list[str]:
        """The uids of these."""
        return [*self._bound, *self._others]

    def losable(self, uid: str) -> Member | None:
        """The bound member, if its loss would make a difference."""
        if self.phase not in (Phase.INTENT, Phase.BINDING) or uid in self._finished:
            return None
        return self._bound.get(uid) or self._others.get(uid)

    # Its way to completion.

    def begin(self) -> Actions:
        return [Record(self.entry)]

    def resume(
        self,
        entry: Entry,
        bound: Iterable[Member],
        *,
        bound_for_s: float,
        announced: bool,
        in_doubt: Iterable[str] = (),
    ) -> Actions:
        """Go on where a former leader stopped: its entry, and the members that are bound for it.

        Late binds must be impossible by now. `bound_for_s`: since the first of them was. `announced`: the
        group's condition says that it was complete. `in_doubt`: as by `doubt`.
        """
        self.entry = entry
        self._bound = {member.uid: member for member in bound}
        self._in_doubt.update(in_doubt)
        if self._bound:
            self._first_bound_at = self._clock() - bound_for_s
        if entry.state == "compensating":
            self._why = "a former leader had given it up"
            return self._delete_bound()
        if announced:
            self.phase = Phase.COMPLETE
            return [Remove()]
        if not self._bound:
            self.phase = Phase.DELETING  # of nothing
            self._why = "a former leader had bound none of its members"
            return [Remove()]
        self.phase = Phase.BINDING
        return self._assess()

    def recorded(self) -> Actions:
        if self._why:  # given up meanwhile
            self.phase = Phase.DELETING
            return [Remove()]
        self.phase = Phase.BINDING
        self._under_way = {member.uid: member for member in self.commit.members}
        binds = [Bind(member) for member in self.commit.members]
        return [*binds, *self._verify(), *self._assess()]

    def not_recorded(self, why: str) -> Actions:
        return self._end(complete=False, why=why)

    def settled(self, uid: str, outcome: BindOutcome, *, in_doubt: bool = False) -> Actions:
        """A bind has ended. `in_doubt`: as by `doubt`, if the member is bound."""
        member = self._under_way.pop(uid)
        if in_doubt and isinstance(outcome, Bound | BoundElsewhere):
            self.doubt(uid)
        match outcome:
            case Bound():
                self._bound[uid] = member
                if self._first_bound_at is None:
                    self._first_bound_at = self._clock()
            case BoundElsewhere():
                self._others[uid] = member
            case Refused(newer_version=version) if version and self._may_bind_again(uid):
                self._changed[uid] = msgspec.structs.replace(member, resource_version=version)
                return self._verify()
            case Refused() | Gone():
                pass
        return [Settled(member, outcome), *self._assess()]

    def verified(self) -> Actions:
        """The journal was ours after all versions of the members in question were read."""
        members, self._verifying = self._verifying, {}
        self._under_way |= members
        return [*(Bind(member) for member in members.values()), *self._verify()]

    def extend(self, members: Iterable[Member]) -> Actions:
        """Bind these as well. Too late once the gang is complete or given up: they are refused then."""
        new = {member.uid: member for member in members if not self._knows(member.uid)}
        if self.phase not in (Phase.INTENT, Phase.BINDING) or self._why:
            return [Settled(member, Refused(GIVEN_UP)) for member in new.values()]
        self._changed |= new
        self._missing = max(0, self._missing - len(new))
        return [] if self.phase is Phase.INTENT else self._verify()

    def doubt(self, uid: str) -> None:
        """The bound member may be gone: `still_bound`, `lost` or `finished` will say."""
        self._in_doubt[uid] += 1

    def still_bound(self, uid: str) -> Actions:
        """The member was there when it was looked at, after the doubt."""
        self._in_doubt[uid] -= 1
        return self._assess()

    def lost(self, uid: str) -> Actions:
        """A bound member is gone, terminating or has failed."""
        if self.losable(uid) is None:
            return []
        del (self._bound if uid in self._bound else self._others)[uid]
        if not self._bound:
            self._first_bound_at = None
        return self._assess()

    def finished(self, uid: str) -> Actions:
        """A bound member has done its work: it counts for ever, and is not deleted any more."""
        if uid in self._bound and self.phase is Phase.BINDING:
            self._others[uid] = self._bound.pop(uid)
        self._finished.add(uid)
        return self._assess()

    def announced(self) -> Actions:
        return [Remove()]

    def removed(self) -> Actions:
        self._entry_gone = True
        if self.phase is Phase.COMPLETE:
            return self._end_if_all_is_settled()
        return self._end(complete=False, why=self._why)

    # And back.

    def compensate(self, why: str) -> Actions:
        """Give the gang up, unless it is complete.

        C1: the entry says so, durably. C2: binds under way are made impossible, and bound members deleted.
        C3: the entry is removed when none of ours is bound.
        """
        if self._why or self.phase not in (Phase.INTENT, Phase.BINDING):
            return []
        self._why = why
        if self.phase is Phase.INTENT:
            return []
        waiting = [*self._changed.values(), *self._verifying.values()]
        never_sent = [Settled(member, Refused(GIVEN_UP)) for member in waiting]
        self._changed, self._verifying = {}, {}
        if not self._bound and not self._under_way:
            self.phase = Phase.DELETING
            return [*never_sent, Remove()]
        self.phase = Phase.CONDEMNED
        self.entry = msgspec.structs.replace(self.entry, state="compensating")
        return [*never_sent, Condemn(self.entry)]

    def expire(self) -> Actions:
        """Give it up if its deadline is past."""
        if self._clock() < self.deadline:
            return []
        return self.compensate(
            f"{self.bound} of {self.commit.min_count} members were bound within {self.commit.deadline_s:g} s"
        )

    def condemned(self) -> Actions:
        return self._delete_bound()

    def touched(self, uid: str, node: str | None) -> Actions:
        """`node` is where the pod is bound, empty if it is not, None if there is no such pod."""
        member = self._leaving.pop(uid)
        if node is None:
            return [Settled(member, Gone()), *self._remove_if_all_left()]
        if node == member.node:
            self._bound[uid] = member
            return [Settled(member, Bound(node)), *self._let_go(member), *self._remove_if_all_left()]
        outcome = BoundElsewhere(node) if node else Refused(GIVEN_UP)
        return [Settled(member, outcome), *self._remove_if_all_left()]

    def deleted(self, uid: str) -> Actions:
        """The deletion was accepted, or there is no such pod."""
        self._deleted.append(self._leaving.pop(uid))
        self._bound.pop(uid, None)
        return self._remove_if_all_left()

    def kept(self, uid: str) -> Actions:
        """The pod says that it stays though its gang was given up, or there is no such pod."""
        self._stay.append(self._leaving.pop(uid))
        return self._remove_if_all_left()

    # Parts.

    @property
    def _binding(self) -> bool:
        return self.phase in (Phase.BINDING, Phase.COMPLETE)

    def _knows(self, uid: str) -> bool:
        return any(
            uid in members for members in (self._under_way, self._changed, self._verifying, self._bound)
        )

    def _may_bind_again(self, uid: str) -> bool:
        self._changes[uid] = self._changes.get(uid, 0) + 1
        return self._binding and self._changes[uid] <= _MAX_CHANGES

    def _verify(self) -> Actions:
        if self._verifying or not self._changed:
            return []
        self._verifying, self._changed = self._changed, {}
        return [Verify()]

    def _assess(self) -> Actions:
        """After every outcome: complete, short of members, or neither."""
        if self.phase is Phase.COMPLETE:
            return self._end_if_all_is_settled()
        if self.phase is not Phase.BINDING:
            return []
        doubtful = sum(self._in_doubt[uid] > 0 and uid not in self._finished for uid in self.counted)
        if self.bound - doubtful >= self.commit.min_count:
            self.phase = Phase.COMPLETE
            return [Announce()]
        possible = self.bound + len(self._under_way) + len(self._changed) + len(self._verifying)
        missing = self.commit.min_count - possible
        if missing <= self._missing:
            return []
        self._missing = missing
        return [Short(missing)]

    def _delete_bound(self) -> Actions:
        self.phase = Phase.DELETING
        actions: list[Action] = []
        self._leaving, self._under_way = self._under_way, {}
        for member in self._leaving.values():
            actions += [Cancel(member), Touch(member)]
        for member in [*self._bound.values()]:
            actions += self._let_go(member)
        return [*actions, *self._remove_if_all_left()]

    def _let_go(self, member: Member) -> Actions:
        self._leaving[member.uid] = member
        may_delete = member.has_controller or self.commit.delete_uncontrolled
        return [Delete(member) if may_delete else Keep(member)]

    def _remove_if_all_left(self) -> Actions:
        return [] if self._leaving else [Remove()]

    def _end_if_all_is_settled(self) -> Actions:
        if not self._entry_gone or self._under_way or self._changed or self._verifying:
            return []
        return self._end(complete=True)

    def _end(self, *, complete: bool, why: str = "") -> Actions:
        self.phase = Phase.ENDED
        compensated = self.entry.state == "compensating"
        return [Ended(complete, why, tuple(self._deleted), tuple(self._stay), compensated)]
