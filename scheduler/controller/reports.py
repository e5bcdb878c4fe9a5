"""Events about groups, workloads and pods, for whoever asks `kubectl describe`.

An event's name is made from what it is about and what it says, as in `kube.payloads`: said again by a
restarted or a second controller, it is one that exists already.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec
import structlog

from scheduler.api import ObjectMeta
from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError, ErrorKind
from scheduler.kube.payloads import INSTANCE_LIMIT, NAME_LIMIT, hostname, micro_time, truncated, utc_now

log = structlog.get_logger(__name__)

REPORTER = "wholepod-controller"
_REMEMBERED = 10_000


class About(NamedTuple):
    """What an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, api_version: str, kind: str, metadata: ObjectMeta) -> About:
        """An object of that kind."""
        return cls(api_version, kind, metadata.namespace, metadata.name, metadata.uid)


class Reports:
    """Writes events through `client`, each once."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._instance = f"{REPORTER}-{hostname()}"[:INSTANCE_LIMIT]
        self._said: dict[str, None] = {}

    async def warn(self, about: About, reason: str, note: str, *, action: str) -> None:
        """Returns when it is written, or can't be because what it is about or its namespace is going.
        Raises KubeError."""
        content = "\0".join((about.uid, reason, note)).encode()
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        name = f"{about.name[: NAME_LIMIT - 17].rstrip('.-')}.{digest}"
        if name in self._said:
            return
        event: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": about.namespace, "name": name},
            "eventTime": micro_time(utc_now()),
            "reportingController": REPORTER,
            "reportingInstance": self._instance,
            "type": "Warning",
            "reason": reason,
            "action": action,
            "regarding": {
                "apiVersion": about.api_version,
                "kind": about.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
            },
            "note": truncated(note),
        }
        path = f"/apis/events.k8s.io/v1/namespaces/{about.namespace}/events"
        try:
            await self._client.request("POST", path, body=msgspec.json.encode(event))
            log.info(
                "warned", object=f"{about.kind} {about.namespace}/{about.name}", reason=reason, note=note
            )
        except ApiError as error:
            refused = error.kind is ErrorKind.FORBIDDEN and "being terminated" in error.message
            if error.kind not in (ErrorKind.ALREADY_EXISTS, ErrorKind.NOT_FOUND) and not refused:
                raise
        self._said[name] = None
        if len(self._said) > _REMEMBERED:
            del self._said[next(iter(self._said))]
