"""Creates the PodGroups that workloads ask for, and keeps their size that of the workload."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import structlog

from scheduler.api_objects import ClusterObject
from scheduler.controller.groups import Groups
from scheduler.controller.reports import About, Reports
from scheduler.controller.shapes import COLLECTION, GroupObject, Key
from scheduler.controller.wanted import CantBeGroup, WantedGroup, owned_by, owned_by_namesake, wanted_group
from scheduler.controller.workloads import Workload
from scheduler.kube.client import MERGE_PATCH, KubeClient
from scheduler.kube.errors import ApiError, ErrorKind

log = structlog.get_logger(__name__)

_LOOK_AGAIN_S = 2.0
_NOT_SERVED_RETRY_S = 60.0

_decode = msgspec.json.Decoder(GroupObject).decode


class WorkloadKey(NamedTuple):
    kind: str
    key: Key

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Creating:
    """All workloads that ask for a group."""

    def __init__(
        self,
        client: KubeClient,
        groups: Groups,
        reports: Reports,
        *,
        on_created: Callable[[str], None],
    ) -> None:
        self._client, self._groups, self._reports = client, groups, reports
        self._on_created = on_created
        self._known: dict[WorkloadKey, Workload] = {}
        self._by_group: defaultdict[Key, set[WorkloadKey]] = defaultdict(set)

    def seen(self, owner: Workload) -> WorkloadKey | None:
        """As a watch brought it; its key if it has to be looked at."""
        key = WorkloadKey(owner.kind, owner.key)
        self.gone(key)
        if not owner.wants_group or owner.metadata.deletion_timestamp is not None:
            return None
        self._known[key] = owner
        for group in _groups_of(owner):
            self._by_group[group].add(key)
        return key

    def gone(self, key: WorkloadKey) -> None:
        owner = self._known.pop(key, None)
        for group in _groups_of(owner) if owner is not None else ():
            self._by_group[group].discard(key)
            if not self._by_group[group]:
                del self._by_group[group]

    def asking_for(self, group: Key) -> list[WorkloadKey]:
        """Those whose pods name this group: they are to be looked at when it changes, or is deleted."""
        return list(self._by_group.get(group, ()))

    async def reconcile(self, key: WorkloadKey) -> float | None:
        """Creates or changes the group. Raises KubeError."""
        owner = self._known.get(key)
        if owner is None:
            return None
        about = About.of(owner.api_version, owner.kind, owner.metadata)
        try:
            wanted = wanted_group(owner)
        except CantBeGroup as error:
            await self._reports.warn(about, error.reason, str(error), action="CreatePodGroup")
            return None
        if wanted is None:
            return None
        group = self._groups.get(Key(owner.metadata.namespace, wanted.name))
        if group is None:
            return await self._create(owner, wanted, about)
        if not owned_by(group, owner):
            if owned_by_namesake(group, owner):
                return _LOOK_AGAIN_S  # it goes with the one that had this name before
            await self._reports.warn(
                about,
                "PodGroupTaken",
                f"there is a PodGroup {wanted.name} already that was not created for this {owner.kind}: its "
                "minMember and annotations count; delete it, or use another name in the pod template's label",
                action="CreatePodGroup",
            )
            return None
        changes = wanted.changes(group)
        if changes and group.metadata.deletion_timestamp is None:
            await self._change(group, changes)
        return None

    async def _create(self, owner: Workload, wanted: WantedGroup, about: About) -> float | None:
        if not await self._is_there(owner):
            self.gone(WorkloadKey(owner.kind, owner.key))
            return None
        path = f"{COLLECTION}/namespaces/{owner.metadata.namespace}/podgroups"
        body = msgspec.json.encode(wanted.manifest(owner))
        try:
            answer = await self._client.request("POST", path, body=body)
        except ApiError as error:
            match error.kind:
                case ErrorKind.ALREADY_EXISTS:
                    return _LOOK_AGAIN_S  # the watch brings it; only then is it known whose it is
                case ErrorKind.NOT_FOUND:
                    await self._reports.warn(
                        about,
                        "PodGroupsNotServed",
                        "the API server does not serve podgroups.scheduling.x-k8s.io: create the CRD with "
                        "`kubectl create -f deploy/crd-podgroups.yaml`",
                        action="CreatePodGroup",
                    )
                    return _NOT_SERVED_RETRY_S
                case ErrorKind.INVALID:
                    await self._reports.warn(
                        about, "PodGroupRefused", error.message or str(error), action="CreatePodGroup"
                    )
                    return None
                case _:
                    raise
        self._on_created(owner.kind)
        group = _decode(answer.body)
        log.info("created a PodGroup", group=str(group.key), owner=f"{owner.kind} {owner.key}")
        if self._groups.get(group.key) is None:
            self._groups.seen(group)
        return None

    async def _is_there(self, owner: Workload) -> bool:
        """A watch may have missed a deletion, and a group of an owner that is gone would be deleted, and
        created, without end."""
        key = owner.key
        path = f"/apis/{owner.api_version}/namespaces/{key.namespace}/{owner.kind.lower()}s/{key.name}"
        try:
            answer = await self._client.request("GET", path)
        except ApiError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return False
            raise
        return msgspec.json.decode(answer.body, type=ClusterObject).metadata.uid == owner.metadata.uid

    async def _change(self, group: GroupObject, changes: dict[str, dict[str, object]]) -> None:
        key = group.key
        metadata = changes.setdefault("metadata", {})
        metadata["uid"] = group.metadata.uid
        metadata["resourceVersion"] = group.metadata.resource_version
        path = f"{COLLECTION}/namespaces/{key.namespace}/podgroups/{key.name}"
        try:
            answer = await self._client.request(
                "PATCH", path, body=msgspec.json.encode(changes), content_type=MERGE_PATCH
            )
        except ApiError as error:
            if error.kind in (ErrorKind.NOT_FOUND, ErrorKind.CONFLICT):
                return  # the watch brings what is true now, and with it the next look
            raise
        if self._groups.get(key) is group:
            self._groups.seen(_decode(answer.body))


def _groups_of(owner: Workload) -> set[Key]:
    return {
        Key(owner.metadata.namespace, part.template.group_name)
        for part in owner.parts
        if part.template.group_name
    }
