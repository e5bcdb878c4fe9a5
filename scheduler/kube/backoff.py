"""Jittered exponential backoff as a value, so that tests need neither sleep nor patch anything.

Jitter only ever lengthens a delay, as in apimachinery's `wait.Backoff`: a thousand clients that
lost one server must not come back in step, and none sooner than it promised.
"""

import random


class Backoff:
    """Delays initial_s, initial_s·factor, … up to cap_s, each stretched by up to `jitter` of itself."""

    __slots__ = ("_cap_s", "_delay_s", "_factor", "_initial_s", "_jitter", "_rng")

    def __init__(
        self,
        initial_s: float,
        cap_s: float,
        *,
        rng: random.Random,
        factor: float = 2.0,
        jitter: float = 1.0,
    ) -> None:
        self._initial_s = initial_s
        self._cap_s = cap_s
        self._factor = factor
        self._jitter = jitter
        self._rng = rng
        self._delay_s = initial_s

    def next(self) -> float:
        """The delay to wait now, in seconds; the following one is longer."""
        delay_s = self._delay_s
        self._delay_s = min(self._cap_s, delay_s * self._factor)
        return delay_s * (1.0 + self._jitter * self._rng.random())

    def reset(self) -> None:
        """Start again from the shortest delay: the last attempt went well."""
        self._delay_s = self._initial_s
