"""Which pods carry which group's label, and how far they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler.controller.shapes import Key, MemberPod
from scheduler.core.gangs.ref import POD_GROUP_LABEL


@dataclass(frozen=True, slots=True)
class Count:
    """How far the members of a group are. Those that are being deleted count until they are gone."""

    exist: int = 0
    scheduled: int = 0
    """Those with a node."""
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    occupied_by: str = ""
    """Owners of the oldest member, `namespace/name`, sorted and joined by commas."""
    scheduler_names: frozenset[str] = frozenset()


def counted(pods: Sequence[MemberPod]) -> Count:
    """Of the members of one group."""
    if not pods:
        return Count()
    phases = [pod.status.phase for pod in pods]
    oldest = min(pods, key=lambda pod: (pod.metadata.creation_timestamp or "", pod.metadata.name))
    owners = [f"{oldest.metadata.namespace}/{owner.name}" for owner in oldest.metadata.owner_references or ()]
    return Count(
        exist=len(pods),
        scheduled=sum(1 for pod in pods if pod.spec.node_name),
        running=phases.count("Running"),
        succeeded=phases.count("Succeeded"),
        failed=phases.count("Failed"),
        occupied_by=",".join(sorted(owners)),
        scheduler_names=frozenset(pod.spec.scheduler_name or "" for pod in pods),
    )


class Members:
    """What the watch of labelled pods drives.

    `changed(group)` is told of each group that has to be looked at, `on_synced()` that counts can be trusted.
    """

    def __init__(self, changed: Callable[[Key], None], *, on_synced: Callable[[], None]) -> None:
        self._changed, self._on_synced = changed, on_synced
        self._pods: dict[Key, tuple[Key, MemberPod]] = {}
        self._groups: defaultdict[Key, set[Key]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._pods)

    def replace(self, items: list[MemberPod]) -> None:
        before = set(self._groups)
        self._pods.clear()
        self._groups.clear()
        for item in items:
            self._put(item)
        for group in before.union(self._groups):
            self._changed(group)

    def upsert(self, item: MemberPod) -> None:
        self._drop(item)
        group = self._put(item)
        if group is not None:
            self._changed(group)

    def delete(self, item: MemberPod) -> None:
        self._drop(item)

    def on_sync_changed(self, synced: bool) -> None:
        if synced:
            self._on_synced()

    def count(self, group: Key) -> Count:
        return counted([self._pods[pod][1] for pod in self._groups.get(group, ())])

    def _put(self, item: MemberPod) -> Key | None:
        metadata = item.metadata
        name = (metadata.labels or {}).get(POD_GROUP_LABEL)
        if not name:
            return None
        pod, group = Key(metadata.namespace, metadata.name), Key(metadata.namespace, name)
        self._pods[pod] = group, item
        self._groups[group].add(pod)
        return group

    def _drop(self, item: MemberPod) -> None:
        """A pod that is gone, or whose label may be another one now."""
        pod = Key(item.metadata.namespace, item.metadata.name)
        known = self._pods.pop(pod, None)
        if known is None:
            return
        group = known[0]
        self._groups[group].discard(pod)
        if not self._groups[group]:
            del self._groups[group]
        self._changed(group)
