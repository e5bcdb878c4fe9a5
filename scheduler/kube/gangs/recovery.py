"""What a new leader does about the gangs that a former one was binding, before it decides anything.

Its epoch is in the journal already, and the pods were listed after that. What is open are binds that the
former leader has sent, and that the API server may still execute. So every pod of a journalled gang that
is not bound is *touched*: its status gets a condition that names this leader and epoch, so it is another
version of the pod in any case. The answer shows whether a bind came first; if not, none of an older
version will come any more. Then the gangs are what the cluster says they are, and go on from there:
the entry's state, the members that bear its `txn`, and for how long the first of them has been bound.

Only members that bear the transaction's name are ever deleted by its compensation: others were bound
before, by somebody else or for another transaction.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from scheduler.api import Pod
from scheduler.kube.gangs.actions import TXN_ANNOTATION, Member
from scheduler.kube.journal_format import Entry


class Unfinished(msgspec.Struct, frozen=True):
    """A gang that was left behind, after all late binds were made impossible.

    `bound` are the members that are bound for this entry, `others` those that were bound otherwise or have
    finished, `unbound` are to be placed still (their `node` is empty). `bound_for_s`: since the first bind of
    `bound`.
    """

    entry: Entry
    bound: tuple[Member, ...]
    others: tuple[Member, ...]
    unbound: tuple[Member, ...]
    bound_for_s: float


class Found(msgspec.Struct, frozen=True):
    """A pod after its touch: its version and node. `txn` is that of its bind, if it was one of ours."""

    resource_version: str
    node: str
    txn: str


class Recovery:
    """`gang_of` names the gang of a pod as in the journal's entries, None for a single pod."""

    def __init__(
        self,
        entries: Iterable[Entry],
        pods: Iterable[Pod],
        *,
        gang_of: Callable[[Pod], str | None],
    ) -> None:
        self._entries = tuple(entries)
        self._found: dict[str, list[tuple[Member, str]]] = {entry.gang: [] for entry in self._entries}
        """By gang: members and the transaction they were bound for."""
        self._first_bound_s: dict[str, float] = {}
        """By transaction."""
        self._untouched: dict[str, tuple[str, Member]] = {}
        if self._entries:
            gangs = {entry.txn: entry.gang for entry in self._entries}
            for pod in pods:
                # What was bound for an entry may look like no member any more.
                gang = gang_of(pod) or gangs.get(_txn_of(pod))
                if gang in self._found:
                    self._see(gang, pod)

    def to_touch(self) -> tuple[Member, ...]:
        """Pods whose touch is outstanding."""
        return tuple(member for _, member in self._untouched.values())

    def touched(self, uid: str, found: Found | None) -> None:
        """None: there is no such pod any more."""
        gang, member = self._untouched.pop(uid)
        if found is not None:
            member = msgspec.structs.replace(member, resource_version=found.resource_version, node=found.node)
            self._found[gang].append((member, found.txn))

    def unfinished(self, now_s: float) -> list[Unfinished]:
        """In the order of their start. Call it when nothing is left to touch.

        `now_s` is Unix time by the API server's clock.
        """
        if self._untouched:
            raise RuntimeError("a late bind may still come")
        return [
            self._unfinished(entry, now_s) for entry in sorted(self._entries, key=lambda entry: entry.started)
        ]

    def _see(self, gang: str, pod: Pod) -> None:
        metadata, status = pod.metadata, pod.status
        if metadata.deletion_timestamp is not None or status.phase == "Failed":
            return
        member = member_of(pod)
        if not member.node:
            self._untouched[member.uid] = (gang, member)
            return
        txn = _txn_of(pod)
        if status.phase == "Succeeded":
            txn = ""  # it has had its place, and there is nothing to delete any more
        self._found[gang].append((member, txn))
        for condition in status.conditions or ():
            if condition.type == "PodScheduled" and condition.last_transition_time:
                at = _unix_s(condition.last_transition_time)
                self._first_bound_s[txn] = min(at, self._first_bound_s.get(txn, at))

    def _unfinished(self, entry: Entry, now_s: float) -> Unfinished:
        found = self._found[entry.gang]
        bound = tuple(member for member, txn in found if member.node and txn == entry.txn)
        others = tuple(member for member, txn in found if member.node and txn != entry.txn)
        unbound = tuple(member for member, _ in found if not member.node)
        bound_for_s = max(0.0, now_s - self._first_bound_s.get(entry.txn, now_s))
        return Unfinished(entry, bound, others, unbound, bound_for_s)


def member_of(pod: Pod, node: str = "") -> Member:
    """The pod as a gang's member, on its own node or on the one that was planned for it."""
    metadata = pod.metadata
    return Member(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        node=pod.spec.node_name or node,
        has_controller=any(owner.controller for owner in metadata.owner_references or ()),
    )


def _txn_of(pod: Pod) -> str:
    return (pod.metadata.annotations or {}).get(TXN_ANNOTATION, "")


def _unix_s(moment: str) -> float:
    """Of a meta/v1 Time."""
    return datetime.fromisoformat(moment).timestamp()
