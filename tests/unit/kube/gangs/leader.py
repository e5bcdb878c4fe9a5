"""A process that commits gangs with the real journal, committer and writer, and whose owner only listens."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import msgspec

from scheduler.api import Pod
from scheduler.kube.binding import BindOutcome
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.actions import Ended, Member
from scheduler.kube.gangs.committer import GangCommitter, Terms
from scheduler.kube.gangs.recovery import Unfinished
from scheduler.kube.journal import Journal
from scheduler.kube.payloads import BindRequest, PodEvent
from scheduler.kube.writer import Writer, WriterLimits


class Leader:
    """A process that commits gangs, and what it was told."""

    def __init__(
        self,
        client: KubeClient,
        name: str,
        *,
        before_bind: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._before_bind = before_bind
        self.journal = Journal(client, namespace="kube-system", owner=name, rng=random.Random(1), wall=wall)
        self.writer = Writer(
            client,
            on_bound=self._on_bound,
            limits=WriterLimits(qps=100_000.0, burst=1000),
            rng=random.Random(1),
        )
        self.committer = GangCommitter(
            client,
            self.journal,
            self,
            self,
            scheduler_name="wholepod",
            rng=random.Random(1),
            clock=clock,
            wall=wall,
        )
        self.outcomes: dict[str, BindOutcome] = {}
        self.short: list[int] = []
        self.announced: list[str] = []
        self.ended: dict[str, Ended] = {}
        self.unfinished: list[Unfinished] = []
        self.strays: dict[str, BindOutcome] = {}
        """Binds that the committer knows nothing of (any more)."""
        self.missed: set[str] = set()
        """Bound pods that the watch shows no more."""
        self.on_missing: Callable[[str], None] = lambda txn: None
        self.tasks: list[asyncio.Task[None]] = []

    async def lead(self, *pods: dict[str, Any], terms: Terms | None = None) -> None:
        left = await self.journal.open()
        for work in (self.journal.run, self.writer.run, self.committer.run):
            self.tasks.append(asyncio.create_task(work()))
        await self.committer.recover(
            left,
            [msgspec.convert(pod, Pod) for pod in pods],
            gang_of=lambda pod: "g" if "gang" in (pod.metadata.labels or {}) else None,
            terms=lambda gang: terms or Terms(60.0),
            is_there=lambda uid: uid not in self.missed,
        )

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # As the writer.

    def bind(self, request: BindRequest) -> None:
        self._before_bind()
        self.writer.bind(request)

    def cancel(self, uid: str) -> bool:
        return self.writer.cancel(uid)

    def post_event(self, event: PodEvent) -> None:
        self.writer.post_event(event)

    def _on_bound(self, uid: str, outcome: BindOutcome) -> None:
        if not self.committer.on_bound(uid, outcome):
            self.strays[uid] = outcome

    # As the owner.

    def on_member(self, txn: str, member: Member, outcome: BindOutcome) -> None:
        assert member.name not in self.outcomes
        self.outcomes[member.name] = outcome

    def on_short(self, txn: str, missing: int) -> None:
        self.short.append(missing)
        self.on_missing(txn)

    async def announce(self, txn: str) -> None:
        self.announced.append(txn)

    def on_ended(self, txn: str, ended: Ended) -> None:
        self.ended[txn] = ended

    def on_unfinished(self, unfinished: Unfinished) -> None:
        self.unfinished.append(unfinished)
