"""Requests about a member that end when it is certain what came of them: touching it, deleting it, keeping
it, and asking what became of it.

All may be repeated without harm. So an answer that was lost is asked for again, and nothing is given up:
a late bind that is still possible, or a member of a broken gang that still runs, is what all this is
there to prevent. Each request names the uid, so a pod that was created anew under the name is left alone.

A deletion is a preemptor's (`deletion`), made anew for as long as it is refused. The Eviction API is not
used: a disruption budget could refuse it for ever.
"""

import asyncio
import enum
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog

from scheduler.api import ApiStruct
from scheduler.core.gangs.commit import GANG_GIVEN_UP
from scheduler.kube.backoff import Backoff
from scheduler.kube.binding import LATE_EXECUTION_S, Refused
from scheduler.kube.client import STRATEGIC_MERGE_PATCH, KubeClient
from scheduler.kube.deletion import Deletion, DeletionOutcome
from scheduler.kube.errors import ApiError, ErrorKind, KubeError, OutcomeUnknown, Unreachable
from scheduler.kube.gangs.actions import TXN_ANNOTATION, Member
from scheduler.kube.gangs.recovery import Found
from scheduler.kube.payloads import Condition, DeleteRequest, StatusPatch, utc_now
from scheduler.kube.steps import Again

log = structlog.get_logger(__name__)

TOUCHED = "wholepod.io/Touched"
"""Type of the condition that makes a pod another version of itself."""
_TIMEOUT_S = 15.0
_IN_FLIGHT = 16

R = TypeVar("R")
_encode = msgspec.json.Encoder().encode


class _Metadata(ApiStruct):
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    annotations: dict[str, str] | None = None


class _Spec(ApiStruct):
    node_name: str = ""


class _Status(ApiStruct):
    phase: str = ""


class _Pod(ApiStruct):
    metadata: _Metadata
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)


_decode_pod = msgspec.json.Decoder(_Pod).decode


class Fate(enum.Enum):
    """Of a pod that was bound."""

    BOUND = "bound"
    FINISHED = "finished"
    """It has succeeded."""
    LOST = "lost"
    """It is gone or terminating, or has failed."""


class _NotThere(Exception):
    """The pod is gone; its name may be another's."""


class PodWrites:
    """`clock` counts seconds."""

    def __init__(self, client: KubeClient, *, rng: random.Random, clock: Callable[[], float]) -> None:
        self._client, self._rng, self._clock = client, rng, clock
        self._places = asyncio.Semaphore(_IN_FLIGHT)

    async def touch(self, member: Member, mark: str) -> Found | None:
        """Change the pod, and return how it is from here on: None if there is no such pod.

        `mark` must be new to the pod. Should the API server refuse the change for good, late binds are
        waited for until they are impossible.
        """
        return await self._say(member, type=TOUCHED, reason="CommitTakenOver", message=mark)

    async def keep(self, member: Member, *, reason: str, message: str) -> None:
        """Have the pod say that it stays though its gang was given up. Return when it does, or is gone."""
        await self._say(member, type=GANG_GIVEN_UP, reason=reason, message=message)

    async def fate(self, member: Member) -> Fate:
        """What became of a bound pod that the watch has lost sight of."""

        async def attempt() -> _Pod:
            return _decoded((await self._client.request("GET", _path(member), timeout_s=_TIMEOUT_S)).body)

        try:
            pod = await self._settle(member, attempt)
        except _NotThere:
            return Fate.LOST
        if pod.metadata.uid != member.uid or pod.status.phase == "Failed":
            return Fate.LOST
        if pod.status.phase == "Succeeded":
            return Fate.FINISHED
        return Fate.LOST if pod.metadata.deletion_timestamp is not None else Fate.BOUND

    async def _say(self, member: Member, **condition: str) -> Found | None:
        condition |= {"status": "True", "lastTransitionTime": utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")}
        # (The time is that of the first attempt: repeated, it changes nothing more.)
        # The API server refuses this (409) for a pod of another uid.
        change = _encode({"metadata": {"uid": member.uid}, "status": {"conditions": [condition]}})
        give_up_at = self._clock() + LATE_EXECUTION_S

        async def attempt() -> Found:
            try:
                answer = await self._client.request(
                    "PATCH",
                    _path(member) + "/status",
                    body=change,
                    content_type=STRATEGIC_MERGE_PATCH,
                    timeout_s=_TIMEOUT_S,
                )
            except ApiError as error:
                if error.kind not in _REFUSALS or self._clock() < give_up_at:
                    raise
                return await self._read(member)
            return _found(member, answer.body)

        try:
            return await self._settle(member, attempt)
        except _NotThere:
            return None

    async def delete(
        self, member: Member, *, reason: str, message: str, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Return when the deletion was accepted, or there is no such pod: it is never bound again then.

        `is_wanted` is asked before it is begun anew after refusals; it is given up when it is not.
        """
        condition = Condition("DisruptionTarget", "True", reason, message, 0, transitioned=True)
        why: StatusPatch | None = StatusPatch(member.namespace, member.name, member.uid, condition)
        backoff = Backoff(0.1, 5.0, rng=self._rng)
        while True:
            request = DeleteRequest(member.namespace, member.name, member.uid, why)
            outcome = await self._carry_out(Deletion(request, rng=self._rng))
            if not isinstance(outcome, Refused):
                return
            _complain(member, outcome.message)
            why = None  # should this be what was refused
            await asyncio.sleep(backoff.next())
            if not is_wanted():
                return

    async def _carry_out(self, deletion: Deletion) -> DeletionOutcome:
        while True:
            async with self._places:
                result = await deletion.step(self._client)
            if not isinstance(result, Again):
                return result
            await asyncio.sleep(result.delay_s + result.pause_s)

    async def _settle(self, member: Member, attempt: Callable[[], Awaitable[R]]) -> R:
        """Repeat until it succeeds. Raises _NotThere."""
        backoff = Backoff(0.1, 5.0, rng=self._rng)
        complained = False
        while True:
            wait_s = 0.0
            try:
                async with self._places:
                    return await attempt()
            except ApiError as error:
                failure: KubeError = error
                if error.kind is ErrorKind.NOT_FOUND:
                    raise _NotThere from error
                if error.kind is ErrorKind.CONFLICT:
                    await self._settle(member, lambda: self._read(member))  # is it still the same pod?
                wait_s = error.retry_after_s or 0.0
            except (Unreachable, OutcomeUnknown) as error:
                failure = error
            if not complained:
                complained = True
                _complain(member, failure)
            await asyncio.sleep(max(wait_s, backoff.next()))

    async def _read(self, member: Member) -> Found:
        answer = await self._client.request("GET", _path(member), timeout_s=_TIMEOUT_S)
        return _found(member, answer.body)


_REFUSALS = (ErrorKind.INVALID, ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN)


def _complain(member: Member, why: object) -> None:
    log.warning("a gang's member resists", pod=f"{member.namespace}/{member.name}", why=str(why))


def _path(member: Member) -> str:
    return f"/api/v1/namespaces/{member.namespace}/pods/{member.name}"


def _decoded(body: bytes) -> _Pod:
    try:
        return _decode_pod(body)
    except msgspec.DecodeError as error:
        raise OutcomeUnknown(f"the API server's pod can't be read: {error}") from error


def _found(member: Member, body: bytes) -> Found:
    pod = _decoded(body)
    if pod.metadata.uid != member.uid:
        raise _NotThere
    txn = (pod.metadata.annotations or {}).get(TXN_ANNOTATION, "")
    return Found(pod.metadata.resource_version, pod.spec.node_name, txn)
