"""Undoes binds of ours that have overfilled a node, because somebody else bound a pod there at the same time.

What is wrong and whose pods have to go is `scheduler.core.races`' to say; this carries it out. A pod that is
deleted for it says so in its condition `DisruptionTarget`, and its controller makes another. Pods without
one stay where they are, as nothing would bring them back: that is for the kubelet to refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from scheduler.core.engine import Engine
from scheduler.core.pod_info import PodInfo
from scheduler.core.races import Loser
from scheduler.observe.metrics import Metrics

log = structlog.get_logger(__name__)

REASON = "OverfilledByRace"
_LOOK_EVERY_S = 0.5


Delete = Callable[[PodInfo, str, str, Callable[[], bool]], Coroutine[Any, Any, None]]


class Racing:
    """`take_back(uid)` takes a bind back of which nothing was sent, and says whether it could; `may_decide`
    whether the picture is true and ours to act on: what overfills a node may be gone, otherwise.
    `delete(pod, node, message, is_wanted)` returns when the pod's deletion is accepted or needless, or is no
    longer wanted after it was refused."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        take_back: Callable[[str], bool],
        may_decide: Callable[[], bool],
    ) -> None:
        self._engine, self._metrics = engine, metrics
        self._take_back, self._may_decide = take_back, may_decide

    def recall(self) -> None:
        """What others have bound has just arrived: takes back what need not be bound beside it."""
        races = self._engine.races
        for node in races.crowded:
            for info in races.under_way(node):
                if not races.is_overfull(node):
                    break
                if self._take_back(info.uid):
                    log.info("bind taken back: others have taken its room", pod=info.name, node=node)
                    self._metrics.races.labels("recalled").inc()

    async def run(self, delete: Delete) -> None:
        """Until cancelled."""
        races = self._engine.races
        async with asyncio.TaskGroup() as group:
            while True:
                for loser in races.verdicts() if self._may_decide() else ():
                    if self._must_go(loser):
                        node = loser.node
                        message = f"node {node} has no room for it beside a pod that was bound before it"
                        is_wanted = partial(races.must_go, loser.info, node)
                        group.create_task(delete(loser.info, node, message, is_wanted))
                await asyncio.sleep(_LOOK_EVERY_S)

    def _must_go(self, loser: Loser) -> bool:
        info = loser.info
        undone = loser.ours and info.controller is not None and not info.terminating
        log.warning(
            "a node has been overfilled by two schedulers at once",
            node=loser.node,
            pod=info.name,
            ours=loser.ours,
            undone=undone,
        )
        self._metrics.races.labels("undone" if undone else "left").inc()
        return undone
