"""The words of a gang's commit: what is to be committed, and what a transaction asks to be done."""

from collections.abc import Sequence

import msgspec

from scheduler.core.gangs.commit import TXN_ANNOTATION as TXN_ANNOTATION
from scheduler.kube.binding import BindOutcome
from scheduler.kube.journal_format import Entry
from scheduler.kube.payloads import BindRequest, PodEvent


class Member(msgspec.Struct, frozen=True):
    """A pod, the version of it that the plan was made for, and its place."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    node: str
    has_controller: bool

    def to_bind(self, txn: str) -> BindRequest:
        return BindRequest(
            self.namespace, self.name, self.uid, self.node, {TXN_ANNOTATION: txn}, self.resource_version
        )

    def warning(self, *, reason: str, action: str, note: str, scheduler_name: str) -> PodEvent:
        return PodEvent(self.namespace, self.name, self.uid, "Warning", reason, action, note, scheduler_name)


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A gang's plan. `gang` is the core's name for it; `txn` is new and never used again.

    `already_bound` members were bound before this commit; they count, and are not touched by it. With
    `delete_uncontrolled` the gang has agreed that pods without a controller are deleted, too, when it
    can't be completed.
    """

    txn: str
    gang: str
    group_uid: str = ""
    domain: str = ""
    min_count: int
    already_bound: tuple[Member, ...] = ()
    members: tuple[Member, ...]
    deadline_s: float
    delete_uncontrolled: bool = False


# What is to be done. Each but Cancel, Settled, Short and Ended is answered by a method of the transaction.


class Record(msgspec.Struct, frozen=True):
    """Make the intent durable → `recorded` or `not_recorded`."""

    entry: Entry


class Verify(msgspec.Struct, frozen=True):
    """See that the journal is ours → `verified`."""


class Bind(msgspec.Struct, frozen=True):
    """→ `settled`."""

    member: Member


class Announce(msgspec.Struct, frozen=True):
    """Say in the group's condition that it is placed → `announced`."""


class Condemn(msgspec.Struct, frozen=True):
    """Make `compensating` durable → `condemned`."""

    entry: Entry


class Cancel(msgspec.Struct, frozen=True):
    """Send nothing more of this bind; its outcome is of no interest."""

    member: Member


class Touch(msgspec.Struct, frozen=True):
    """Change the pod, so that no bind of an older version can succeed → `touched`."""

    member: Member


class Delete(msgspec.Struct, frozen=True):
    """Delete the bound pod → `deleted`."""

    member: Member


class Keep(msgspec.Struct, frozen=True):
    """The bound pod stays, as nothing would create it again: have it say so → `kept`."""

    member: Member


class Remove(msgspec.Struct, frozen=True):
    """Remove the entry → `removed`."""


class Settled(msgspec.Struct, frozen=True):
    """This is what became of a member's bind."""

    member: Member
    outcome: BindOutcome


class Short(msgspec.Struct, frozen=True):
    """So many members are missing to `minCount`, even if all binds under way succeed."""

    missing: int


class Ended(msgspec.Struct, frozen=True):
    """Nothing more will happen: complete, or else `why` not, whether members that were or might have been
    bound had to be `compensated` for, who of them was `deleted`, and who has to `stay` bound.

    Nothing was or will be sent about a member that has no outcome by now.
    """

    complete: bool
    why: str = ""
    deleted: tuple[Member, ...] = ()
    stay: tuple[Member, ...] = ()
    compensated: bool = False


Action = (
    Record
    | Verify
    | Bind
    | Announce
    | Condemn
    | Cancel
    | Touch
    | Delete
    | Keep
    | Remove
    | Settled
    | Short
    | Ended
)
Actions = Sequence[Action]
