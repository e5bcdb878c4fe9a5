"""Which gangs there are, and who belongs to them.

Every pod of ours that names a gang is in it from the moment it is seen until it is deleted or finished,
whether it waits or has a node, so that it is known at any time how many members exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from scheduler.api_objects import PodGroup
from scheduler.core.gangs.agreement import Look, disagreement, look_of
from scheduler.core.gangs.commit import is_bound, shows_complete
from scheduler.core.gangs.gang import GangError, GangOptions, GangPolicy, OnMemberLoss, read_options
from scheduler.core.gangs.ref import GangRef, Source, gang_ref, group_of
from scheduler.core.objects import ClusterObjects
from scheduler.core.pod_info import PodInfo


class Gang:
    """Members by uid, in the order in which they were seen."""

    def __init__(self, ref: GangRef) -> None:
        self.ref = ref
        self.members: dict[str, PodInfo] = {}
        self.incomplete = False
        """Whether it was so when its members were last looked at."""
        self.leaving: set[str] = set()
        """Members that we have deleted; the watch may not say so yet."""
        self.kept: set[str] = set()
        """Members that stay bound though their gang was given up; the same."""
        self.asked: tuple[object, PodInfo, GangOptions] | None = None
        """What it asked for when that was read last, and from what: its group, and its oldest member."""
        self.looks: Counter[Look] = Counter()
        """What members of a native group must have in common → how many have it."""
        self._ready: set[str] = set()
        self._bound: set[str] = set()
        self._showing: set[str] = set()
        """Of those, members that show that it was complete once."""
        self._oldest: PodInfo | None = None

    @property
    def existing(self) -> int:
        """Members that could be placed or are: neither gated nor being deleted."""
        return len(self._ready)

    @property
    def oldest(self) -> PodInfo:
        """The member that was created first."""
        if self._oldest is None:
            self._oldest = min(self.members.values(), key=_age)
        return self._oldest

    @property
    def priority(self) -> int:
        """That of its pods, which share one; the oldest's counts."""
        return self.oldest.priority

    @property
    def bound(self) -> int:
        """Members that have a node, as the watch shows them, and are not leaving it."""
        return len(self._bound)

    @property
    def shows_complete(self) -> bool:
        """Whether it was complete once, if no commit of it is under way."""
        return bool(self._showing)

    def stays(self, uid: str) -> bool:
        """Whether the member is not being deleted."""
        return uid not in self.leaving and not self.members[uid].terminating

    def leave(self, uid: str) -> None:
        """The member was deleted."""
        if uid in self.members:
            self.leaving.add(uid)
            self._sort(self.members[uid])

    def keep(self, uid: str) -> None:
        """The member stays bound, but the gang was given up."""
        if uid in self.members:
            self.kept.add(uid)
            self._sort(self.members[uid])

    @property
    def hint(self) -> str:
        """What may keep members from existing; empty if nothing is known. (Other controllers create all their
        pods at once, and which policy a StatefulSet has its pods don't say.)"""
        controller = self.oldest.controller
        if controller is None or controller[1] != "StatefulSet":
            return ""
        return " (a StatefulSet creates its pods one by one unless its podManagementPolicy is Parallel)"

    def put(self, info: PodInfo) -> None:
        """A member as it is now."""
        self._overlook(info.uid)
        self.members[info.uid] = info
        self.looks[look_of(info)] += 1
        self._sort(info)
        if self._oldest is not None and _age(info) <= _age(self._oldest):
            self._oldest = info

    def drop(self, uid: str) -> None:
        """No member any more."""
        self._overlook(uid)
        del self.members[uid]
        for uids in (self._ready, self._bound, self._showing, self.leaving, self.kept):
            uids.discard(uid)
        if self._oldest is not None and self._oldest.uid == uid:
            self._oldest = None

    def _overlook(self, uid: str) -> None:
        if uid in self.members:
            look = look_of(self.members[uid])
            self.looks[look] -= 1
            if not self.looks[look]:
                del self.looks[look]

    def _sort(self, info: PodInfo) -> None:
        """Large gangs are asked at every change of a member, so members are not counted then but here."""
        uid, stays = info.uid, self.stays(info.uid)
        bound = stays and is_bound(info.pod)
        _put(self._ready, uid, stays and not info.gated)
        _put(self._bound, uid, bound)
        _put(self._showing, uid, bound and uid not in self.kept and shows_complete(info.pod))


def _put(uids: set[str], uid: str, belongs: bool) -> None:
    if belongs:
        uids.add(uid)
    else:
        uids.discard(uid)


def _age(info: PodInfo) -> tuple[str, str]:
    return info.pod.metadata.creation_timestamp or "", info.uid


class GangBook:
    """All gangs by what names them; one without members is forgotten."""

    def __init__(self, cluster: ClusterObjects, policies: Mapping[str, GangPolicy]) -> None:
        """`policies`: by schedulerName."""
        self._cluster, self._policies = cluster, policies
        self._gangs: dict[GangRef, Gang] = {}
        self._gang_of: dict[str, Gang] = {}
        self.is_committing: Callable[[GangRef], bool] = lambda ref: False
        """Whether members of a gang are being bound; whoever binds them sets this."""
        self.is_settling: Callable[[GangRef], bool] = lambda ref: False
        """Whether a gang has lost members, and what becomes of it is not settled; set by who settles it."""
        self._refused: dict[Source, str] = {}
        self._frozen: dict[GangRef, GangOptions] = {}

    def refuse(self, source: Source, why: str) -> None:
        """Gangs that are described there can't be served; call it before the first decision."""
        self._refused[source] = why

    def __iter__(self) -> Iterator[Gang]:
        return iter(self._gangs.values())

    def named(self, ref: GangRef) -> Gang | None:
        return self._gangs.get(ref)

    def of(self, uid: str) -> Gang | None:
        return self._gang_of.get(uid)

    def upsert(self, info: PodInfo) -> Gang | None:
        """Takes in a pod as it is now; returns its gang."""
        ref = gang_ref(info)
        before = self._gang_of.get(info.uid)
        if before is not None and before.ref != ref:
            self.remove(info.uid)
        if ref is None:
            return None
        gang = self._gangs.get(ref)
        if gang is None:
            gang = self._gangs[ref] = Gang(ref)
        gang.put(info)
        self._gang_of[info.uid] = gang
        return gang

    def remove(self, uid: str) -> Gang | None:
        """The pod is gone; returns the gang that it was in."""
        gang = self._gang_of.pop(uid, None)
        if gang is not None:
            gang.drop(uid)
            if not gang.members:
                del self._gangs[gang.ref]
                self._frozen.pop(gang.ref, None)
        return gang

    def options(self, gang: Gang) -> GangOptions:
        """What the gang asks for now, or asked for when its commit began. Raises GangError."""
        frozen = self._frozen.get(gang.ref)
        if frozen is not None:
            return frozen
        if gang.ref.source in self._refused:
            raise GangError(self._refused[gang.ref.source])
        group, oldest = group_of(gang.ref, self._cluster), gang.oldest
        if gang.asked is None or gang.asked[0] is not group or gang.asked[1] is not oldest:
            gang.asked = group, oldest, read_options(gang.ref, oldest, self._cluster, self.policy(gang))
        return gang.asked[2]

    def freeze(self, ref: GangRef, options: GangOptions | None) -> None:
        """These are what the gang asks for until `thaw`, whatever is written meanwhile."""
        if options is not None and ref in self._gangs:
            self._frozen[ref] = options

    def thaw(self, ref: GangRef) -> None:
        self._frozen.pop(ref, None)

    def options_to_plan(self, gang: Gang) -> GangOptions:
        """The same, but that a gang that was complete once needs no more members together than it has
        bound: those that come are placed as they come. Raises GangError."""
        options, group = self.options(gang), group_of(gang.ref, self._cluster)
        differ = disagreement(gang.looks, group) if isinstance(group, PodGroup) else ""
        if differ:
            raise GangError(differ)
        if options.on_member_loss is OnMemberLoss.KEEP:
            return options
        bound = gang.bound
        if bound >= options.min_count or not gang.shows_complete or self.is_committing(gang.ref):
            return options
        return replace(options, min_count=bound)

    def policy(self, gang: Gang) -> GangPolicy:
        """Of the profile that decides for its oldest member."""
        return self._policies[gang.oldest.pod.spec.scheduler_name or ""]
