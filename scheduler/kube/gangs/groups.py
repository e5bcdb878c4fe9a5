"""The condition of Kubernetes' own PodGroups that says whether a gang was placed.

True is written when `minCount` members are bound, before the journal forgets the gang, and never taken back.
False says why a gang that could be tried found no places. It is news, not a duty: written when there is
time, the latest only, and not again if the group says so already. It is written to one version of the
group alone, in which the condition is not True, so it can't undo that however late it arrives.
Source: updatePodGroupCondition (pkg/scheduler/schedule_one_podgroup.go).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from scheduler.api_objects import GroupCondition, PodGroup
from scheduler.kube.backoff import Backoff
from scheduler.kube.client import STRATEGIC_MERGE_PATCH, KubeClient
from scheduler.kube.errors import ApiError, ErrorKind, KubeError, Unreachable
from scheduler.kube.payloads import utc_now
from scheduler.kube.resources import RESOURCES

log = structlog.get_logger(__name__)

INITIALLY_SCHEDULED = "PodGroupInitiallyScheduled"
ATTEMPTS = 5
_TIMEOUT_S = 5.0

_encode = msgspec.json.Encoder().encode
Newest = Callable[[], PodGroup | None]
"""The group as the watch shows it by now."""


def initially_scheduled(group: PodGroup) -> GroupCondition | None:
    """What the group says of it."""
    return next((c for c in group.status.conditions or () if c.type == INITIALLY_SCHEDULED), None)


class GroupConditions:
    """Writes through `client`; what `not_scheduled` is told, while `run` does."""

    def __init__(
        self,
        client: KubeClient,
        *,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._rng, self._sleep = client, rng or random.Random(), sleep
        self._waiting: dict[str, tuple[Newest, str, str]] = {}
        """uid → the group, reason, message."""
        self._work = asyncio.Event()

    def not_scheduled(self, newest: Newest, reason: str, message: str) -> None:
        """Has it written that the group was tried in vain, unless it was placed before or says so already."""
        group = newest()
        if group is not None:
            self._waiting.pop(group.metadata.uid, None)
            self._waiting[group.metadata.uid] = newest, reason, message
            self._work.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                uid = next(iter(self._waiting))
                await self._say_why(uid, *self._waiting.pop(uid))

    async def scheduled(self, group: PodGroup) -> None:
        """Returns when it is written, or has been given up: pods run without it. An API server that is away
        is waited for: the journal, which would forget the gang next, is on it as well."""
        backoff = Backoff(0.1, 2.0, rng=self._rng)
        failure: KubeError | None = None
        condition = _condition(group, "True", "Scheduled", "", transitioned=True)
        attempts = 0
        while attempts < ATTEMPTS:
            try:
                await self._write(group, condition)
            except KubeError as error:
                failure = error
                if isinstance(error, ApiError) and error.kind is ErrorKind.NOT_FOUND:
                    return  # it is gone
                attempts += not isinstance(error, Unreachable)
                await self._sleep(backoff.next())
            else:
                return
        _give_up(group, failure)

    async def _say_why(self, uid: str, newest: Newest, reason: str, message: str) -> None:
        backoff = Backoff(0.1, 2.0, rng=self._rng)
        for attempt in range(ATTEMPTS):
            group = newest()
            if group is None or group.metadata.uid != uid or uid in self._waiting:
                return  # it is gone, or there is later news
            said = initially_scheduled(group)
            if said is not None and said.status == "True":
                return
            was_false = said is not None and said.status == "False"
            condition = _condition(group, "False", reason, message, transitioned=not was_false)
            if said is not None and was_false and _same(said, reason, message, group.metadata.generation):
                return
            try:
                await self._write(group, condition, resource_version=group.metadata.resource_version)
            except KubeError as error:
                if isinstance(error, ApiError) and error.kind is ErrorKind.NOT_FOUND:
                    return
                if attempt + 1 == ATTEMPTS:
                    _give_up(group, error)
                else:
                    await self._sleep(backoff.next())
            else:
                return

    async def _write(
        self, group: PodGroup, condition: dict[str, object], *, resource_version: str = ""
    ) -> None:
        metadata, resource = group.metadata, RESOURCES[PodGroup]
        root = resource.path.rpartition("/")[0]
        # The API server refuses this (409) for a group of another uid, or for another version of it.
        which = {"uid": metadata.uid}
        if resource_version:
            which["resourceVersion"] = resource_version
        await self._client.request(
            "PATCH",
            f"{root}/namespaces/{metadata.namespace}/{resource.name}/{metadata.name}/status",
            body=_encode({"metadata": which, "status": {"conditions": [condition]}}),
            content_type=STRATEGIC_MERGE_PATCH,
            timeout_s=_TIMEOUT_S,
        )


def _condition(
    group: PodGroup, status: str, reason: str, message: str, *, transitioned: bool
) -> dict[str, object]:
    condition: dict[str, object] = {
        "type": INITIALLY_SCHEDULED,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": group.metadata.generation,
    }
    if transitioned:
        condition["lastTransitionTime"] = utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
    return condition


def _same(said: GroupCondition, reason: str, message: str, generation: int) -> bool:
    return (said.reason, said.message, said.observed_generation) == (reason, message, generation)


def _give_up(group: PodGroup, why: KubeError | None) -> None:
    name = f"{group.metadata.namespace}/{group.metadata.name}"
    log.warning("a PodGroup's condition was not written", group=name, why=str(why))
