"""Which gangs there are, and who belongs to them.

Every pod of ours that names a gang is in it from the moment it is seen until it is deleted or finished,
whether it waits or has a node, so that it is known at any time how many members exist.
"""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.core.gangs.gang import GangError, GangOptions, read_options
from scheduler.core.gangs.ref import GangRef, Source, gang_ref
from scheduler.core.objects import ClusterObjects
from scheduler.core.pod_info import PodInfo


class Gang:
    """Members by uid, in the order in which they were seen."""

    def __init__(self, ref: GangRef) -> None:
        self.ref = ref
        self.members: dict[str, PodInfo] = {}
        self.incomplete = False
        """Whether it was so when its members were last looked at."""
        self._ready: set[str] = set()
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

    def put(self, info: PodInfo) -> None:
        """A member as it is now."""
        self.members[info.uid] = info
        if info.gated or info.terminating:
            self._ready.discard(info.uid)
        else:
            self._ready.add(info.uid)
        if self._oldest is not None and _age(info) <= _age(self._oldest):
            self._oldest = info

    def drop(self, uid: str) -> None:
        """No member any more."""
        del self.members[uid]
        self._ready.discard(uid)
        if self._oldest is not None and self._oldest.uid == uid:
            self._oldest = None


def _age(info: PodInfo) -> tuple[str, str]:
    return info.pod.metadata.creation_timestamp or "", info.uid


class GangBook:
    """All gangs by what names them; one without members is forgotten."""

    def __init__(self, cluster: ClusterObjects) -> None:
        self._cluster = cluster
        self._gangs: dict[GangRef, Gang] = {}
        self._gang_of: dict[str, Gang] = {}
        self._refused: dict[Source, str] = {}

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
        return gang

    def options(self, gang: Gang) -> GangOptions:
        """What the gang asks for now. Raises GangError."""
        if gang.ref.source in self._refused:
            raise GangError(self._refused[gang.ref.source])
        return read_options(gang.ref, gang.oldest, self._cluster)
