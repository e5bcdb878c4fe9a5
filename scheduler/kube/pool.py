"""A fixed set of workers over queues, behind one rate limit.

A task per request with a semaphore would cost as much as the request itself; here a request costs
a deque and, when its worker was idle, a future. A worker takes the token first and chooses the
work after it, so that whatever is most urgent *then* is sent. Lanes that are equally urgent take turns:
none of them may starve while another is never empty.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

from scheduler.kube.ratelimit import TokenBucket
from scheduler.kube.turns import Turns

J = TypeVar("J")


class Lane(Generic[J]):
    """One class of work: what waits, what does it, and how many may be under way."""

    __slots__ = ("do", "in_flight", "limit", "waiting")

    def __init__(
        self, do: Callable[[J], Awaitable[None]], *, limit: int, waiting: Turns[J] | None = None
    ) -> None:
        self.do = do
        self.limit = limit
        self.in_flight = 0
        self.waiting: deque[J] | Turns[J] = deque() if waiting is None else waiting

    @property
    def ready(self) -> bool:
        """Something waits that may be started."""
        return bool(self.waiting) and self.in_flight < self.limit


class WorkerPool:
    """The `urgent` lanes take turns; the `others` come after them, in their order.

    Append to a lane's `waiting`, then call `wake`.
    """

    def __init__(
        self,
        urgent: Sequence[Lane[Any]],
        others: Sequence[Lane[Any]],
        *,
        workers: int,
        bucket: TokenBucket,
    ) -> None:
        self._urgent = deque(urgent)  # whose turn it is comes first
        self._others = others
        self._workers = workers
        self._bucket = bucket
        self._idle: list[asyncio.Future[None]] = []
        self._token_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Until cancelled; an exception of any job ends all."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    def wake(self) -> None:
        """Something was added, or may be started now: call in one idle worker (it calls the next)."""
        if self._idle and self._token_timer is None and self._next_lane() is not None:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lane = self._next_lane()
            if lane is None or not self._token():
                idle = loop.create_future()
                self._idle.append(idle)
                await idle
                continue
            job = lane.waiting.popleft()
            lane.in_flight += 1
            if lane in self._urgent:
                self._urgent.remove(lane)
                self._urgent.append(lane)
            self.wake()
            try:
                await lane.do(job)
            finally:
                lane.in_flight -= 1

    def _next_lane(self) -> Lane[Any] | None:
        for lane in chain(self._urgent, self._others):
            if lane.ready:
                return lane
        return None

    def _token(self) -> bool:
        """Take a token, or see to it that a worker is woken when there is one."""
        if self._token_timer is not None:
            return False
        wait_s = self._bucket.take()
        if wait_s > 0:
            self._token_timer = asyncio.get_running_loop().call_later(wait_s, self._token_due)
            return False
        return True

    def _token_due(self) -> None:
        self._token_timer = None
        self.wake()
