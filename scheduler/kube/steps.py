"""Writes that end in a definite outcome: they take one request at a time until it is known.

What may have been executed cannot be given up, so such a write (a bind, a victim's deletion) is a small
state machine, and here is what drives it: its place in the queue, its waits, its end. While it waits
it sleeps in a timer, not in a worker.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError
from scheduler.kube.pool import Lane
from scheduler.kube.ratelimit import TokenBucket
from scheduler.kube.turns import Turns

# Nothing listens: nobody's request can succeed, so all wait this long before any is tried again.
UNREACHABLE_PAUSE_S = 0.5
_NOT_LEADING_DELAY_S = 0.5  # until somebody cancels the write, as one who lost the lease must


class Again(msgspec.Struct, frozen=True):
    """No outcome yet: take the next step in `delay_s`; `pause_s` is what the API server asks of us all."""

    delay_s: float = 0.0
    pause_s: float = 0.0
    retry: bool = True
    """False after a step that did what it should."""


def paused(error: ApiError) -> Again:
    """After a 429, which was not executed."""
    return Again(pause_s=retry_after_s(error))


def retry_after_s(error: ApiError) -> float:
    """What a 429 asks for; one second if it says nothing."""
    return 1.0 if error.retry_after_s is None else error.retry_after_s


class AboutPod(Protocol):
    """What is to be written."""

    @property
    def uid(self) -> str:
        """Of the pod."""

    @property
    def path(self) -> str:
        """Of the pod."""


R = TypeVar("R", bound=AboutPod)
R_co = TypeVar("R_co", bound=AboutPod, covariant=True)
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)


class Steps(Protocol[R_co, O_co]):
    """One write. `step` is called until it returns an outcome; never twice at once."""

    @property
    def undecided(self) -> bool:
        """Something of it may have been executed, or still be: it has to be brought to an end."""

    @property
    def request(self) -> R_co:
        """What is to be written."""

    async def step(self, client: KubeClient) -> O_co | Again:
        """One request."""


class StepLane(Generic[R, O]):
    """All writes of one class that have no outcome yet, at most one for each pod.

    `on_outcome(uid, outcome)` is called once for each that was not cancelled. `may_write` is asked
    right before each request, `on_retry()` counts. Put `lane` into a `WorkerPool`; `wake` is the pool's.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        limit: int,
        bucket: TokenBucket,
        wake: Callable[[], None],
        may_write: Callable[[], bool],
        on_outcome: Callable[[str, O], None],
        on_retry: Callable[[], None],
        in_second_line: Callable[[R], bool] | None = None,
    ) -> None:
        """`in_second_line`: which of two lines that take turns a write waits in; there is one without it."""
        self._client, self._bucket, self._wake = client, bucket, wake
        self._may_write, self._on_outcome, self._on_retry = may_write, on_outcome, on_retry
        waiting: Turns[Steps[R, O]] | None = None
        if in_second_line is not None:
            waiting = Turns(lambda write: in_second_line(write.request))
        self.lane: Lane[Steps[R, O]] = Lane(self._do, limit=limit, waiting=waiting)
        self._open: dict[str, Steps[R, O]] = {}
        self._stepping: set[Steps[R, O]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, uid: object) -> bool:
        return uid in self._open

    @property
    def requests(self) -> list[R]:
        return [write.request for write in self._open.values()]

    def add(self, write: Steps[R, O]) -> None:
        """It begins with `start`. Raises ValueError for a pod that has one already."""
        uid = write.request.uid
        if uid in self._open:
            raise ValueError(f"such a write is under way already for {write.request.path} ({uid})")
        self._open[uid] = write

    def start(self, uid: str) -> None:
        """Queue the first step; nothing happens if it was cancelled."""
        if uid in self._open:
            self._queue(self._open[uid])

    def sent(self, uid: str) -> bool:
        """Whether something of it was sent and is not settled."""
        write = self._open.get(uid)
        return write is not None and (write.undecided or write in self._stepping)

    def cancel(self, uid: str) -> bool:
        """Forget it; False if there is none. A request under way is not called back."""
        return self._open.pop(uid, None) is not None

    def cancel_unsent(self) -> list[R]:
        """Cancel, and return, all of which nothing was sent."""
        unsent = [request for request in self.requests if not self.sent(request.uid)]
        for request in unsent:
            self.cancel(request.uid)
        # Out of the lane as well: each of them would cost a token that others wait for.
        waiting = self.lane.waiting
        kept = [write for write in waiting if self._is_open(write)]
        waiting.clear()
        waiting.extend(kept)
        return unsent

    def cancel_all(self) -> None:
        """Forget them all, whatever was sent."""
        self._open.clear()
        self.lane.waiting.clear()

    def _is_open(self, write: Steps[R, O]) -> bool:
        return self._open.get(write.request.uid) is write

    def _queue(self, write: Steps[R, O]) -> None:
        self.lane.waiting.append(write)
        self._wake()

    async def _do(self, write: Steps[R, O]) -> None:
        if not self._is_open(write):
            return  # cancelled while it waited
        later = asyncio.get_running_loop().call_later
        if not self._may_write():
            later(_NOT_LEADING_DELAY_S, self._queue, write)
            return
        self._stepping.add(write)
        try:
            result = await write.step(self._client)
        finally:
            self._stepping.discard(write)
        if not self._is_open(write):
            return  # cancelled under way
        if isinstance(result, Again):
            if result.retry:
                self._on_retry()
            if result.pause_s:
                self._bucket.pause(result.pause_s)
            if result.delay_s:
                later(result.delay_s, self._queue, write)
            else:
                self.lane.waiting.appendleft(write)
            return
        del self._open[write.request.uid]
        self._on_outcome(write.request.uid, result)
