"""The condition of Kubernetes' own PodGroups that says that a gang was placed.

It is written when `minCount` members are bound, before the journal forgets the gang, and never taken back.
Source: updatePodGroupCondition (pkg/scheduler/schedule_one_podgroup.go).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from scheduler.api_objects import PodGroup
from scheduler.kube.backoff import Backoff
from scheduler.kube.client import STRATEGIC_MERGE_PATCH, KubeClient
from scheduler.kube.errors import ApiError, ErrorKind, KubeError
from scheduler.kube.payloads import utc_now
from scheduler.kube.resources import RESOURCES

log = structlog.get_logger(__name__)

INITIALLY_SCHEDULED = "PodGroupInitiallyScheduled"
ATTEMPTS = 5
_TIMEOUT_S = 5.0

_encode = msgspec.json.Encoder().encode


class GroupConditions:
    """Writes through `client`."""

    def __init__(
        self,
        client: KubeClient,
        *,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._rng, self._sleep = client, rng or random.Random(), sleep

    async def scheduled(self, group: PodGroup) -> None:
        """Returns when it is written, or has been given up: pods run without it."""
        metadata, resource = group.metadata, RESOURCES[PodGroup]
        root = resource.path.rpartition("/")[0]
        condition = {
            "type": INITIALLY_SCHEDULED,
            "status": "True",
            "reason": "Scheduled",
            "message": "",
            "observedGeneration": metadata.generation,
            "lastTransitionTime": utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        # The API server refuses this (409) for a group of another uid.
        body = _encode({"metadata": {"uid": metadata.uid}, "status": {"conditions": [condition]}})
        path = f"{root}/namespaces/{metadata.namespace}/{resource.name}/{metadata.name}/status"
        backoff = Backoff(0.1, 2.0, rng=self._rng)
        failure: KubeError | None = None
        for _ in range(ATTEMPTS):
            try:
                await self._client.request(
                    "PATCH", path, body=body, content_type=STRATEGIC_MERGE_PATCH, timeout_s=_TIMEOUT_S
                )
            except KubeError as error:
                failure = error
                if isinstance(error, ApiError) and error.kind in (ErrorKind.NOT_FOUND, ErrorKind.CONFLICT):
                    return  # it is gone
                await self._sleep(backoff.next())
            else:
                return
        name = f"{metadata.namespace}/{metadata.name}"
        log.warning("a PodGroup's condition was not written", group=name, why=str(failure))
