"""Writes that may be given up: status patches and events.

They are sent a few times and then dropped and counted, since the pod's next attempt says it again.
While the API server asks us to wait (429) or cannot be reached, nothing was executed, so this counts
as no attempt: the whole writer pauses, and the bounded queues decide what is shed.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from scheduler.kube.errors import ApiError, ErrorKind, KubeError, Unreachable
from scheduler.kube.ratelimit import TokenBucket
from scheduler.kube.steps import UNREACHABLE_PAUSE_S, retry_after_s

log = structlog.get_logger(__name__)

TIMEOUT_S = 10.0
"""For each request."""
_MAX_ATTEMPTS = 4
_RETRY_DELAY_S = 0.5
_COMPLAIN_PERIOD_S = 60.0

J = TypeVar("J")


class Job(Generic[J]):
    """A patch or an event, and how it went so far; `attempts` are those that may have been executed."""

    __slots__ = ("attempts", "what", "written")

    def __init__(self, what: J) -> None:
        self.what = what
        self.attempts = 0
        self.written = False


class BestEffort:
    """Sends jobs of any class of work; `on_drop` and `on_retry` as in `Writer`."""

    def __init__(
        self,
        *,
        bucket: TokenBucket,
        on_drop: Callable[[str, str], None],
        on_retry: Callable[[str], None],
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self._bucket = bucket
        self._on_drop = on_drop
        self._on_retry = on_retry
        self._rng = rng
        self._clock = clock
        self._complain_at: dict[str, float] = {}

    async def send(self, job: Job[J], work: str, attempt: Callable[[], Awaitable[object]]) -> float | None:
        """Make an attempt, which raises KubeError when it fails; the seconds to wait before the next one,
        or None if there is none."""
        try:
            await attempt()
            job.written = True
            return None
        except Unreachable:
            self._bucket.pause(UNREACHABLE_PAUSE_S)
            self._on_retry(work)
            return 0.0
        except KubeError as failure:
            error = failure
        allowed = _MAX_ATTEMPTS
        if isinstance(error, ApiError):
            match error.kind:
                case ErrorKind.ALREADY_EXISTS:
                    job.written = True  # by an earlier attempt, before a lost answer or a crash
                    return None
                case ErrorKind.TOO_MANY_REQUESTS:
                    self._bucket.pause(retry_after_s(error))
                    self._on_retry(work)
                    return 0.0
                case ErrorKind.CONFLICT:
                    allowed = 2
                case ErrorKind.SERVER_ERROR:
                    pass
                case ErrorKind.NOT_FOUND:
                    self._on_drop(work, "gone")
                    return None
                case ErrorKind.FORBIDDEN if "being terminated" in error.message:
                    self._on_drop(work, "gone")  # its namespace is on the way out
                    return None
                case ErrorKind.UNAUTHORIZED | ErrorKind.FORBIDDEN:
                    pass  # an API server that has just started may not know the rules yet
                case _:
                    allowed = 1
        job.attempts += 1
        if job.attempts >= allowed:
            self._on_drop(work, "failed")
            self._complain(work, error)
            return None
        self._on_retry(work)
        return _RETRY_DELAY_S * 2.0 ** (job.attempts - 1) * (1.0 + self._rng.random())

    def _complain(self, work: str, error: KubeError) -> None:
        """Once a minute for each class: what fails once in this way fails a thousand times."""
        now = self._clock()
        if now >= self._complain_at.get(work, 0.0):
            self._complain_at[work] = now + _COMPLAIN_PERIOD_S
            log.warning("write given up", work=work, error=str(error))
