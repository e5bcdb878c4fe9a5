"""What the writer sends, as values, and the bytes they become.

Strings, field names and limits are kube-scheduler's (client-go tools/events/event_recorder.go,
pkg/scheduler/schedule_one.go), so that `kubectl describe pod` and dashboards see no difference.
One thing is better than there: an event's name is made from its content instead of the clock, so
that writing it again after a lost answer or a crash is an `AlreadyExists`, not a second event.
"""

import datetime
import hashlib
import socket
from collections.abc import Mapping
from typing import Literal

import msgspec

NOTE_LIMIT_BYTES = 1024  # events.k8s.io: noteLengthLimit
NAME_LIMIT = 253  # a DNS subdomain
INSTANCE_LIMIT = 128  # events.k8s.io: ReportingInstanceLengthLimit

_encode = msgspec.json.Encoder().encode


class BindRequest(msgspec.Struct, frozen=True):
    """Bind a pod to a node; `uid` keeps a pod re-created under this name from being bound instead.

    The API server merges `annotations` into the pod's. With a `resource_version` the bind is of that
    version of the pod alone.
    """

    namespace: str
    name: str
    uid: str
    node: str
    annotations: Mapping[str, str] | None = None
    resource_version: str = ""

    @property
    def path(self) -> str:
        """Of the pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def body(self) -> bytes:
        """A core/v1 Binding."""
        metadata: dict[str, object] = {"namespace": self.namespace, "name": self.name, "uid": self.uid}
        if self.annotations:
            metadata["annotations"] = self.annotations
        if self.resource_version:
            metadata["resourceVersion"] = self.resource_version
        return _encode(
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": metadata,
                "target": {"apiVersion": "v1", "kind": "Node", "name": self.node},
            }
        )


class Condition(msgspec.Struct, frozen=True):
    """A pod's condition.

    `generation` is the pod's metadata.generation that was judged. `transitioned` says whether the
    condition is new or its status another: the API wants a new lastTransitionTime then, and only then.
    """

    type: Literal["PodScheduled", "DisruptionTarget"]
    status: Literal["True", "False"]
    reason: str
    message: str
    generation: int
    transitioned: bool

    def to_api(self, now: datetime.datetime) -> dict[str, object]:
        condition: dict[str, object] = {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.generation,
        }
        if self.transitioned:
            condition["lastTransitionTime"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return condition


class StatusPatch(msgspec.Struct, frozen=True):
    """What a pod's status is to say: a condition, a nominated node (empty: none), or both.

    With a `resource_version` it applies to that version of the pod alone.
    """

    namespace: str
    name: str
    uid: str
    condition: Condition | None = None
    nominated_node: str | None = None
    resource_version: str = ""

    @property
    def pod_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def path(self) -> str:
        """Of the status."""
        return f"{self.pod_path}/status"

    def over(self, older: "StatusPatch") -> "StatusPatch":
        """This, and what `older` says of things that this is silent about."""
        if self.nominated_node is None and older.nominated_node is not None:
            return msgspec.structs.replace(
                self, nominated_node=older.nominated_node, resource_version=older.resource_version
            )
        if self.condition is None:
            return msgspec.structs.replace(self, condition=older.condition)
        return self

    def body(self, now: datetime.datetime) -> bytes:
        """A strategic merge patch; the API server refuses it (409) for a pod of another uid."""
        metadata = {"uid": self.uid}
        if self.resource_version:
            metadata["resourceVersion"] = self.resource_version
        status: dict[str, object] = {}
        if self.condition is not None:
            status["conditions"] = [self.condition.to_api(now)]
        if self.nominated_node is not None:
            status["nominatedNodeName"] = self.nominated_node or None
        return _encode({"metadata": metadata, "status": status})


class DeleteRequest(msgspec.Struct, frozen=True):
    """Delete a pod with its grace period, after its status says why (None: it says so already)."""

    namespace: str
    name: str
    uid: str
    why: StatusPatch | None = None

    @property
    def path(self) -> str:
        """Of the pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def body(self) -> bytes:
        """meta/v1 DeleteOptions; the API server refuses (409) to delete a pod of another uid."""
        return _encode({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": self.uid}})


class PodReference(msgspec.Struct, frozen=True):
    """An ObjectReference to a pod."""

    namespace: str
    name: str
    uid: str
    resource_version: str = ""

    def to_api(self) -> dict[str, str]:
        reference = {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }
        if self.resource_version:
            reference["resourceVersion"] = self.resource_version
        return reference


class PodEvent(msgspec.Struct, frozen=True):
    """An event about a pod, reported by the scheduler `scheduler_name`; `related` has to do with it."""

    namespace: str
    name: str
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str
    scheduler_name: str
    resource_version: str = ""
    related: PodReference | None = None

    @property
    def path(self) -> str:
        """Of the collection."""
        return f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"

    @property
    def event_name(self) -> str:
        """`<pod>.<16 hex digits>`, the same for the same content."""
        content = "\0".join((self.uid, self.reason, self.note)).encode()
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return f"{self.name[: NAME_LIMIT - 17].rstrip('.-')}.{digest}"

    def body(self, now: datetime.datetime, hostname: str) -> bytes:
        """An events.k8s.io/v1 Event."""
        regarding = PodReference(self.namespace, self.name, self.uid, self.resource_version)
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": self.namespace, "name": self.event_name},
            "eventTime": micro_time(now),
            "reportingController": self.scheduler_name,
            "reportingInstance": f"{self.scheduler_name}-{hostname}"[:INSTANCE_LIMIT],
            "type": self.type,
            "reason": self.reason,
            "action": self.action,
            "regarding": regarding.to_api(),
            "note": truncated(self.note),
        }
        if self.related is not None:
            event["related"] = self.related.to_api()
        return _encode(event)


def truncated(note: str, limit_bytes: int = NOTE_LIMIT_BYTES) -> str:
    """The note, or its start and " ..." in `limit_bytes` of UTF-8 (schedule_one.go: truncateMessage)."""
    encoded = note.encode()
    if len(encoded) <= limit_bytes:
        return note
    return encoded[: limit_bytes - 4].decode("utf-8", "ignore") + " ..."


def micro_time(moment: datetime.datetime) -> str:
    """meta/v1 MicroTime: always six digits and UTC, or the API server refuses it."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc_now() -> datetime.datetime:
    """Wall time; only for what people read, never for deadlines."""
    return datetime.datetime.now(datetime.UTC)


def hostname() -> str:
    """Of this machine, as in reportingInstance and in the lease's holder."""
    return socket.gethostname()
