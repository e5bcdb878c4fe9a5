"""The queue of keys, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

from scheduler.controller.workqueue import DEBOUNCE_S, WorkQueue
from scheduler.kube.errors import Unreachable
from tests.unit.virtual_time import in_virtual_time


class Reconciler:
    """Notes when what was looked at; `answers` are returned, or raised, in turn."""

    def __init__(self) -> None:
        self.looks: list[tuple[str, float]] = []
        self.answers: list[float | Exception | None] = []
        self.takes_s = 0.0
        self.at_once = 0
        self.most_at_once = 0
        self.failures = 0

    async def __call__(self, key: str) -> float | None:
        now = asyncio.get_running_loop().time()
        self.looks.append((key, now))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.takes_s)
        self.at_once -= 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def failed(self, error: Exception) -> None:
        self.failures += 1

    def after_s(self, start: float) -> list[float]:
        return [round(at - start, 3) for _, at in self.looks]


@asynccontextmanager
async def running(reconciler: Reconciler) -> AsyncIterator[WorkQueue[str]]:
    queue = WorkQueue(reconciler, name="test", rng=random.Random(1), on_failure=reconciler.failed)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@in_virtual_time
async def test_a_burst_is_one_look() -> None:
    reconciler, start = Reconciler(), asyncio.get_running_loop().time()
    async with running(reconciler) as queue:
        for _ in range(100):
            queue.add("a")
            await asyncio.sleep(DEBOUNCE_S / 200)
        queue.add("b")
        await asyncio.sleep(10)
    assert [key for key, _ in reconciler.looks] == ["a", "b"]
    assert reconciler.after_s(start)[0] == DEBOUNCE_S


@in_virtual_time
async def test_what_comes_while_it_is_looked_at_is_looked_at_again() -> None:
    reconciler = Reconciler()
    reconciler.takes_s = 5.0
    async with running(reconciler) as queue:
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("a")
        await asyncio.sleep(20)
        assert len(queue) == 0
    assert len(reconciler.looks) == 2
    assert reconciler.most_at_once == 1


@in_virtual_time
async def test_a_later_look_is_brought_forward_and_never_put_off() -> None:
    reconciler, start = Reconciler(), asyncio.get_running_loop().time()
    reconciler.answers = [60.0, 60.0]
    async with running(reconciler) as queue:
        queue.add("a", after_s=0.0)
        await asyncio.sleep(10)
        queue.add("a", after_s=5.0)
        queue.add("a", after_s=500.0)
        await asyncio.sleep(200)
    assert reconciler.after_s(start) == [0.0, 15.0, 75.0]


@in_virtual_time
async def test_failures_come_back_ever_later_until_it_works() -> None:
    reconciler, start = Reconciler(), asyncio.get_running_loop().time()
    reconciler.answers = [*(Unreachable("gone") for _ in range(4)), None, ValueError("a defect")]
    async with running(reconciler) as queue:
        queue.add("a", after_s=0.0)
        await asyncio.sleep(100)
        queue.add("a", after_s=0.0)
        await asyncio.sleep(100)
        assert len(queue) == 0
    times = reconciler.after_s(start)
    gaps = [later - earlier for earlier, later in pairwise(times[:5])]
    assert gaps == sorted(gaps)
    assert reconciler.failures == 5
    assert len(reconciler.looks) == 7


@in_virtual_time
async def test_one_key_that_hangs_keeps_no_other_waiting() -> None:
    reconciler = Reconciler()
    reconciler.takes_s = 50.0
    async with running(reconciler) as queue:
        for n in range(5):
            queue.add(f"key-{n}")
        await asyncio.sleep(1)
        assert len(reconciler.looks) == 5
