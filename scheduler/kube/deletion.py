"""One victim's end: its status says why, then the pod is deleted with its grace period.

Both requests may be repeated without harm: the patch says the same again, and deleting a pod that is
being deleted changes nothing. So an answer that was lost is asked for again, whatever became of the
first request. Each request names the uid, so a pod re-created under the name is never touched; only
a read tells such a one (409) from a pod that is busy.

Unlike a bind, a deletion is given up after some refusals: the decision behind it is old by then, and
the preemptor is better judged anew. It would wait for ever behind an admission webhook that is down
(500).

Source: NewExecutor's PreemptPod (pkg/scheduler/framework/preemption/executor.go).
"""

import random

import msgspec

from scheduler.kube.backoff import Backoff
from scheduler.kube.binding import Gone, Refused
from scheduler.kube.brief import decode_brief
from scheduler.kube.client import STRATEGIC_MERGE_PATCH, KubeClient
from scheduler.kube.errors import ApiError, ErrorKind, KubeError, Unreachable
from scheduler.kube.payloads import DeleteRequest, StatusPatch, utc_now
from scheduler.kube.steps import UNREACHABLE_PAUSE_S, Again, paused

_TIMEOUT_S = 15.0
_MAX_REFUSALS = 8  # 10 to 20 seconds with the delays between them


class Deleted(msgspec.Struct, frozen=True):
    """The pod's status says why, and it is terminating or gone.

    Who deleted it in the end can't be known for sure: a 404 may be the answer to a repetition, which
    aiohttp also makes by itself.
    """


DeletionOutcome = Deleted | Gone | Refused
"""Gone: before its status said anything. Refused: the pod lives."""


class Deletion:
    """The state of one deletion (`steps.Steps`)."""

    __slots__ = ("_backoff", "_doubted", "_refusals", "_why", "request", "undecided")

    def __init__(self, request: DeleteRequest, *, rng: random.Random) -> None:
        self.request = request
        self.undecided = False
        self._why = request.why  # None once it is written
        self._doubted = False  # whether the name still means this pod
        self._refusals = 0
        self._backoff = Backoff(0.1, 5.0, rng=rng)

    async def step(self, client: KubeClient) -> DeletionOutcome | Again:
        """One request."""
        self.undecided = True
        try:
            if self._doubted:
                return await self._read(client)
            if self._why is not None:
                return await self._condemn(client, self._why)
            await client.request("DELETE", self.request.path, body=self.request.body(), timeout_s=_TIMEOUT_S)
            return Deleted()
        except Unreachable:
            return Again(pause_s=UNREACHABLE_PAUSE_S)
        except KubeError as error:
            return self._failed(error)

    async def _condemn(self, client: KubeClient, why: StatusPatch) -> Again:
        body = why.body(utc_now())
        await client.request(
            "PATCH", why.path, body=body, content_type=STRATEGIC_MERGE_PATCH, timeout_s=_TIMEOUT_S
        )
        self._why = None
        return Again(retry=False)

    async def _read(self, client: KubeClient) -> DeletionOutcome | Again:
        answer = await client.request("GET", self.request.path, timeout_s=_TIMEOUT_S)
        pod = decode_brief(answer.body)
        if pod.metadata.uid != self.request.uid:
            return self._not_there()
        self._doubted = False
        return Again(self._backoff.next())

    def _failed(self, error: KubeError) -> DeletionOutcome | Again:
        kind = error.kind if isinstance(error, ApiError) else None
        if kind is ErrorKind.NOT_FOUND:
            return self._not_there()
        if isinstance(error, ApiError) and kind is ErrorKind.TOO_MANY_REQUESTS:
            return paused(error)
        self._refusals += 1
        if kind is ErrorKind.INVALID or self._refusals >= _MAX_REFUSALS:
            return Refused(str(error))
        if kind is ErrorKind.CONFLICT:
            self._doubted = True
            return Again()
        return Again(self._backoff.next())

    def _not_there(self) -> DeletionOutcome:
        return Deleted() if self._why is None else Gone()
