"""One bind, from the first attempt to a definitive answer.

Binding cannot be undone, and the room for the pod stays assumed while we don't know whether it
happened. So a bind never ends in "perhaps". Each step is one request:

* **send** the Binding. Accepted: bound. Refused for a reason of its own: refused. Not executed
  for certain (no connection, 429): send again later. Anything else leaves the outcome open:
* **read** the pod, which settles it, or shows it unbound; then the *same* bind to the same node
  is sent again. A first one that was only slow then wins with the same result, since the second
  gets a 409 and its read finds the pod on our node.

Only the most recent state counts, so reads carry no resourceVersion (a quorum read).

A refusal (403, 422, …) says nothing of an *earlier* attempt whose answer was lost. The pod is then
read until such an attempt can no longer be executed: an API server ends every request after
60 s (`--request-timeout`).

A bind of one *version* of the pod is settled sooner: once a read shows another version, unbound, no
attempt of ours can be executed any more.
"""

import random
from collections.abc import Callable

import msgspec

from scheduler.kube.backoff import Backoff
from scheduler.kube.brief import decode_brief
from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError, ErrorKind, OutcomeUnknown, Unreachable
from scheduler.kube.payloads import BindRequest
from scheduler.kube.steps import UNREACHABLE_PAUSE_S, Again, paused

_TIMEOUT_S = 15.0
LATE_EXECUTION_S = 75.0
"""A request without an answer may be executed for so long: the API server's 60 s, and time on the wire."""


class Bound(msgspec.Struct, frozen=True):
    """The pod is on the node that we asked for."""

    node: str


class BoundElsewhere(msgspec.Struct, frozen=True):
    """Somebody else bound it, to `node`."""

    node: str


class Gone(msgspec.Struct, frozen=True):
    """The pod does not exist any more (or another one has its name)."""


class Refused(msgspec.Struct, frozen=True):
    """The pod exists and is not bound, and the API server will not bind it as things are.

    `newer_version` is the pod's resourceVersion if another one was to be bound: it has changed since, and
    may be looked at and bound anew.
    """

    message: str
    newer_version: str = ""


BindOutcome = Bound | BoundElsewhere | Gone | Refused


class Binding:
    """The state of one bind (`steps.Steps`)."""

    __slots__ = (
        "_backoff",
        "_body",
        "_clock",
        "_conflict",
        "_doubted",
        "_open_until",
        "_refusal",
        "request",
    )

    def __init__(self, request: BindRequest, *, rng: random.Random, clock: Callable[[], float]) -> None:
        self.request = request
        self._doubted = False  # the last attempt may have been executed: the pod must be read
        self._body = request.body()
        self._backoff = Backoff(0.1, 5.0, rng=rng)
        self._clock = clock
        self._conflict: str | None = None
        self._refusal: str | None = None
        self._open_until = 0.0

    @property
    def undecided(self) -> bool:
        """Also after a read that showed the pod unbound: an attempt before it may be executed after it."""
        return self._doubted or self._may_be_executed_late()

    async def step(self, client: KubeClient) -> BindOutcome | Again:
        """One request."""
        return await (self._read(client) if self._doubted else self._send(client))

    async def _send(self, client: KubeClient) -> BindOutcome | Again:
        path = self.request.path + "/binding"
        try:
            await client.request("POST", path, body=self._body, timeout_s=_TIMEOUT_S)
        except OutcomeUnknown:
            return self._left_open()
        except Unreachable:
            return Again(pause_s=UNREACHABLE_PAUSE_S)
        except ApiError as error:
            match error.kind:
                case ErrorKind.NOT_FOUND:
                    return Gone()
                case ErrorKind.TOO_MANY_REQUESTS:
                    return paused(error)
                case ErrorKind.SERVER_ERROR:
                    return self._left_open()
                case ErrorKind.CONFLICT | ErrorKind.ALREADY_EXISTS:
                    self._conflict = str(error)
                    self._doubted = True
                    return Again()
                case _:
                    self._refusal = str(error)
                    if not self._may_be_executed_late():
                        return Refused(self._refusal)
                    self._doubted = True
                    return Again(self._backoff.next())
        return Bound(self.request.node)

    async def _read(self, client: KubeClient) -> BindOutcome | Again:
        # Asked before the request: an attempt that was too late then cannot slip in after the answer.
        settled = not self._may_be_executed_late()
        try:
            answer = await client.request("GET", self.request.path, timeout_s=_TIMEOUT_S)
            pod = decode_brief(answer.body)
        except ApiError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return Gone()
            if error.kind is ErrorKind.TOO_MANY_REQUESTS:
                return paused(error)
            return Again(self._backoff.next())
        except Unreachable:
            return Again(pause_s=UNREACHABLE_PAUSE_S)
        except OutcomeUnknown:
            return Again(self._backoff.next())
        if pod.metadata.uid != self.request.uid:
            return Gone()
        if pod.spec.node_name:
            ours = pod.spec.node_name == self.request.node
            return Bound(pod.spec.node_name) if ours else BoundElsewhere(pod.spec.node_name)
        if self.request.resource_version not in ("", pod.metadata.resource_version):
            message = self._conflict or "the pod has changed since the decision"
            return Refused(message, pod.metadata.resource_version)
        if self._conflict is not None:
            # Deleting, gated, another uid: what holds for this attempt holds for an earlier one too.
            return Refused(self._conflict)
        if self._refusal is not None:
            return Refused(self._refusal) if settled else Again(self._backoff.next())
        self._doubted = False
        return Again()

    def _left_open(self) -> Again:
        self._open_until = self._clock() + LATE_EXECUTION_S
        self._doubted = True
        return Again(self._backoff.next())

    def _may_be_executed_late(self) -> bool:
        return self._clock() < self._open_until
