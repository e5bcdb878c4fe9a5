"""Token bucket: `qps` requests a second on average, `burst` at once.

It answers with a waiting time instead of sleeping, so that the writer decides *after* the wait
which request the token goes to: a bind that arrived meanwhile overtakes the event that waited.
A 429 of the API server empties the bucket for as long as its Retry-After says.
"""

from collections.abc import Callable


class TokenBucket:
    """Not thread-safe; one event loop owns it."""

    __slots__ = ("_burst", "_clock", "_filled_at", "_qps", "_tokens")

    def __init__(self, qps: float, burst: int, *, clock: Callable[[], float]) -> None:
        if qps <= 0 or burst < 1:
            raise ValueError(f"qps must be above 0 and burst at least 1, not {qps} and {burst}")
        self._qps = qps
        self._burst = float(burst)
        self._clock = clock
        self._tokens = self._burst
        self._filled_at = clock()

    def take(self) -> float:
        """Take a token and return 0.0, or take none and return the seconds until there is one."""
        now = self._clock()
        if now > self._filled_at:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._qps)
            self._filled_at = now
        # Fractions of a second do not add up exactly: what is almost a token is one.
        if now >= self._filled_at and self._tokens >= 1.0 - 1e-6:
            self._tokens -= 1.0
            return 0.0
        return max(0.0, self._filled_at - now) + max(0.0, 1.0 - self._tokens) / self._qps

    def pause(self, seconds: float) -> None:
        """Give nothing for so long; the bucket then starts with a single token, not with a burst."""
        until = self._clock() + seconds
        if until > self._filled_at:
            self._filled_at = until
        self._tokens = min(self._tokens, 1.0)
