"""What a process does between holding the lease and its first decision, and for gangs ever after.

The leader before may have bound pods that no watch has shown yet, and may have left gangs half bound. So
all pods are listed once more, the journal is opened (from then on a former leader's writes to it fail), and
what it names is finished or undone; only then is anything decided. Without a journal single pods go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from scheduler.api import Pod
from scheduler.core.engine import Engine
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.committer import GangCommitter
from scheduler.kube.gangs.lists import finished_pods, groups_of
from scheduler.kube.gangs.restarts import Restarts
from scheduler.kube.journal import Journal, LeftBehind
from scheduler.kube.journal_format import Fenced, JournalUnavailable
from scheduler.kube.watch import Reflector
from scheduler.kube.writer import Writer
from scheduler.loop import SchedulingLoop

JOURNAL_RETRY_S = 10.0
"""How long single pods go on alone when the API server refuses the journal."""


class TakingOver:
    """`done` tells whether decisions may begin. `reflectors` are all that decisions wait for, `pods` is the
    one of them that lists pods; with `pods_wait`, it does so for the first time only after `journal_seen`."""

    def __init__(
        self,
        client: KubeClient,
        engine: Engine,
        loop: SchedulingLoop,
        writer: Writer,
        *,
        pods: Reflector[Pod],
        reflectors: Sequence[Reflector[Any]],
        pods_wait: bool,
        leads: Callable[[], bool],
        scheduler_name: str,
    ) -> None:
        self._client, self._engine, self._loop, self._writer = client, engine, loop, writer
        self._pods, self._reflectors, self._pods_wait = pods, reflectors, pods_wait
        self._leads, self._scheduler_name = leads, scheduler_name
        self.journal_seen = asyncio.Event()
        """Whatever is listed from now on, no former leader's gang adds to it unseen."""
        self.done = False

    async def without_gangs(self) -> None:
        """Let decisions begin on all that the API server knows; there is no journal to look into."""
        if not self.done:
            await self._relist_pods()
            self.done = True
        self._loop.wake()

    async def with_gangs(self, journal: Journal) -> None:
        """Let decisions begin, finish what a former leader left, and bind gangs until cancelled. Raises
        Fenced when another one has the journal."""
        left = await self._open(journal)
        gangs = self._loop.gangs
        committer = GangCommitter(
            self._client, journal, self._writer, gangs, scheduler_name=self._scheduler_name
        )
        restarts = Restarts(
            self._client,
            self._writer,
            gangs.losses,
            scheduler_name=self._scheduler_name,
            gang_of=gangs.key_of,
            leads=self._leads,
        )
        fenced: Fenced | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(journal.run())
                group.create_task(committer.run())
                group.create_task(restarts.run())
                await self._relist_pods()
                pods = await self._look_up(left)
                await committer.recover(left, pods, gang_of=gangs.key_of, terms=gangs.terms)
                gangs.serve(committer, restarts)
                self.done = True
                self._loop.wake()
        except* Fenced as several:
            fenced = _first(several)
        if fenced is not None:
            raise fenced

    async def _open(self, journal: Journal) -> LeftBehind:
        while True:
            try:
                return await journal.open()
            except JournalUnavailable as error:
                self._loop.gangs.refuse(f"gangs can't be bound: {error}")
                await self.without_gangs()
                await asyncio.sleep(JOURNAL_RETRY_S)

    async def _look_up(self, left: LeftBehind) -> list[Pod]:
        """All pods, and of the gangs that were left behind also what the watches don't show (yet)."""
        known, rng = self._engine.known_pods(), random.Random()
        for group in await groups_of(self._client, left.entries, rng):
            self._loop.upsert_object(group)
        finished = await finished_pods(self._client, left.entries, rng)
        uids = {pod.metadata.uid for pod in finished}
        return [*(pod for pod in known if pod.metadata.uid not in uids), *finished]

    async def _relist_pods(self) -> None:
        """What the leader before us bound last may not have reached our watch yet."""
        self.journal_seen.set()
        if not self._pods_wait or self._pods.synced:
            self._pods.relist()
        while not all(reflector.synced for reflector in self._reflectors):
            self._loop.sync_changed.clear()
            await self._loop.sync_changed.wait()


def _first(group: BaseExceptionGroup[Fenced]) -> Fenced:
    """Tasks have groups of their own, so these lie in each other."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
