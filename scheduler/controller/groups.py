"""Keeps the status of each `scheduling.x-k8s.io` PodGroup what it should be (`status.py` says what that is).

A write holds for the version of the group that it was worked out from, so two controllers never undo each
other's: the second is refused, and finds nothing to do when it has seen the first one's. What takes something
back is counted anew at the API server first: our picture of the pods may be older than that of a controller
that has written meanwhile, and the gang would be seen to fall back and start again.

A field that the API server does not give back is none of the CRD that is installed (that of scheduler-plugins
stores neither `scheduled` nor `conditions`); it is left out from then on.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from scheduler.api_objects import ClusterObject
from scheduler.controller.members import Count, Members, counted
from scheduler.controller.reports import About, Reports
from scheduler.controller.shapes import COLLECTION, GROUP_API, GroupObject, GroupStatus, Key, MemberPod
from scheduler.controller.status import TIMED_OUT, outlook, takes_back
from scheduler.core.gangs.ref import POD_GROUP_LABEL
from scheduler.kube.client import MERGE_PATCH, KubeClient
from scheduler.kube.decode import Decoder
from scheduler.kube.errors import ApiError, ErrorKind

log = structlog.get_logger(__name__)

_CONFLICT_RETRY_S = 1.0

_decode = msgspec.json.Decoder(GroupObject).decode
_decode_page = Decoder(ClusterObject).page
_decode_pods = Decoder(MemberPod).page


class Groups:
    """All groups that there are.

    `ours(scheduler_name)` says whether pods of that name are our business, `on_gone` is told of a group that
    turned out to be deleted, `on_written` of "written", "conflict", "gone" and "error".
    """

    def __init__(
        self,
        client: KubeClient,
        members: Members,
        reports: Reports,
        *,
        may_write: Callable[[], bool],
        ours: Callable[[str], bool],
        now: Callable[[], datetime.datetime],
        on_written: Callable[[str], None],
        on_gone: Callable[[Key], None],
    ) -> None:
        self._client, self._members, self._reports = client, members, reports
        self._may_write, self._ours, self._now = may_write, ours, now
        self._on_written, self._on_gone = on_written, on_gone
        self._known: dict[Key, GroupObject] = {}
        self._not_stored: set[str] = set()

    def get(self, key: Key) -> GroupObject | None:
        return self._known.get(key)

    def names(self) -> list[Key]:
        return list(self._known)

    def phases(self) -> Mapping[str, int]:
        """How many groups are in each phase."""
        return Counter(group.status.phase or "Unknown" for group in self._known.values())

    def seen(self, group: GroupObject) -> None:
        """As a watch brought it."""
        self._known[group.key] = group

    def gone(self, key: Key) -> None:
        """As a watch says."""
        self._known.pop(key, None)

    async def resync(self) -> None:
        """Forgets groups whose deletion the watch has missed. Raises KubeError."""
        before = dict(self._known)
        there: set[Key] = set()
        query = {"limit": "500"}
        while True:
            try:
                answer = await self._client.request("GET", f"{COLLECTION}/podgroups", query=query)
            except ApiError as error:
                if error.kind in (ErrorKind.NOT_FOUND, ErrorKind.GONE):
                    return  # not served any more, or too slow for its pages: next time
                raise
            page = _decode_page(answer.body)
            there.update(Key(item.metadata.namespace, item.metadata.name) for item in page.items)
            if not page.next_page:
                break
            query["continue"] = page.next_page
        for key, group in before.items():
            if key not in there and self._known.get(key) is group:
                self.gone(key)
                self._on_gone(key)

    async def reconcile(self, key: Key) -> float | None:
        """Writes what has to be written; the seconds until that may be something else by time alone.
        Raises KubeError."""
        group = self._known.get(key)
        if group is None or group.metadata.deletion_timestamp is not None:
            return None
        if not self._may_write():
            return _CONFLICT_RETRY_S
        count = self._members.count(key)
        if not self._is_ours(count):
            return None
        wanted = outlook(group, count, self._now())
        if takes_back(group.status, wanted.status):
            wanted = outlook(group, await self._recount(key), self._now())
        if wanted.timed_out:
            about = About.of(GROUP_API, "PodGroup", group.metadata)
            await self._reports.warn(about, TIMED_OUT, wanted.timed_out, action="Scheduling")
        changes = self._changes(group.status, wanted.status)
        if not changes:
            return wanted.look_again_s
        try:
            answer = await self._patch(key, group, changes)
        except ApiError as error:
            match error.kind:
                case ErrorKind.NOT_FOUND:
                    self._on_written("gone")
                    self.gone(key)
                    return None
                case ErrorKind.CONFLICT:
                    self._on_written("conflict")
                    return _CONFLICT_RETRY_S  # the watch brings the newer state, most often before
                case _:
                    self._on_written("error")
                    raise
        self._on_written("written")
        self._learn(changes, answer.status)
        if self._known.get(key) is group:
            self.seen(answer)
        return wanted.look_again_s

    async def _recount(self, key: Key) -> Count:
        """As the API server has it now. Raises KubeError."""
        path = f"/api/v1/namespaces/{key.namespace}/pods"
        query = {"labelSelector": f"{POD_GROUP_LABEL}={key.name}"}
        answer = await self._client.request("GET", path, query=query)
        return counted(_decode_pods(answer.body).items)

    def _is_ours(self, count: Count) -> bool:
        """A group whose pods are all another scheduler's has that one's controller."""
        return not count.exist or any(self._ours(name) for name in count.scheduler_names)

    def _changes(self, before: GroupStatus, wanted: GroupStatus) -> dict[str, Any]:
        """A merge patch of the status. Conditions of a kind that the CRD does not store never count."""
        old, new = _to_api(before), _to_api(wanted)
        return {
            field: new.get(field)
            for field in {**old, **new}
            if old.get(field) != new.get(field) and field not in self._not_stored
        }

    async def _patch(self, key: Key, group: GroupObject, changes: dict[str, Any]) -> GroupObject:
        metadata = {"uid": group.metadata.uid, "resourceVersion": group.metadata.resource_version}
        answer = await self._client.request(
            "PATCH",
            f"{COLLECTION}/namespaces/{key.namespace}/podgroups/{key.name}/status",
            # What the CRD does not have is dropped in silence: see the module's text.
            query={"fieldValidation": "Ignore"},
            body=msgspec.json.encode({"metadata": metadata, "status": changes}),
            content_type=MERGE_PATCH,
        )
        return _decode(answer.body)

    def _learn(self, changes: Mapping[str, Any], stored: GroupStatus) -> None:
        kept = _to_api(stored)
        for field, value in changes.items():
            if value is not None and field not in kept:
                self._not_stored.add(field)
                log.info("the installed CRD of PodGroups has no such field of the status", field=field)


def _to_api(status: GroupStatus) -> dict[str, Any]:
    """With the counts of zero that were set, without what is absent."""
    fields: dict[str, Any] = msgspec.to_builtins(status)
    return fields
