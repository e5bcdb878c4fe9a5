"""Keys to be looked at, each by one task at a time, as often as something may have changed.

What happens to a gang comes in bursts: a thousand pods become running within a second. So a key that is
added is looked at a moment later, once for all that was said meanwhile. When the reconciler fails, its key
comes back, ever later.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

from scheduler.kube.backoff import Backoff
from scheduler.kube.errors import KubeError

log = structlog.get_logger(__name__)

DEBOUNCE_S = 0.25
WORKERS = 8
_BACKOFF_CAP_S = 30.0

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """`reconcile(key)` returns the seconds after which the key is to be looked at again in any case, or None.

    `on_failure(error)` is told of each failure.
    """

    def __init__(
        self,
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        name: str,
        rng: random.Random,
        debounce_s: float = DEBOUNCE_S,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._reconcile, self._name, self._rng = reconcile, name, rng
        self._debounce_s, self._on_failure = debounce_s, on_failure
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._queued: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._backoffs: dict[K, Backoff] = {}

    def __len__(self) -> int:
        return len(self._timers) + len(self._queued) + len(self._working)

    def add(self, key: K, *, after_s: float | None = None) -> None:
        """Look at it in `after_s` seconds at the latest (None: soon)."""
        if key in self._queued:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + (self._debounce_s if after_s is None else after_s)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work(), name=f"reconcile {self._name}")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _due(self, key: K) -> None:
        del self._timers[key]
        if key in self._working:
            self._again.add(key)
            return
        self._queued.add(key)
        self._ready.put_nowait(key)

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._working.add(key)
            try:
                again_s = await self._reconcile(key)
            except Exception as error:  # whatever one object leads to, the others go on
                if not isinstance(error, KubeError):
                    log.exception("a defect of the controller", what=self._name, key=str(key))
                self._on_failure(error)
                backoff = self._backoffs.setdefault(key, Backoff(0.5, _BACKOFF_CAP_S, rng=self._rng))
                again_s = backoff.next()
                log.info(
                    "will try again", what=self._name, key=str(key), in_s=round(again_s, 1), why=str(error)
                )
            else:
                self._backoffs.pop(key, None)
            finally:
                self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                again_s = 0.0
            if again_s is not None:
                self.add(key, after_s=again_s)
