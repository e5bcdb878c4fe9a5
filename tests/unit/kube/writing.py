"""A writer at work, and what the tests give it to write."""

import asyncio
import random
from collections.abc import Callable

from scheduler.kube.binding import BindOutcome
from scheduler.kube.client import KubeClient
from scheduler.kube.deletion import DeletionOutcome
from scheduler.kube.payloads import BindRequest, Condition, PodEvent, StatusPatch
from scheduler.kube.writer import Writer, WriterLimits
from tests.unit.kube.api_server import ApiServer


class Writing:
    """A writer at work, and what it reported."""

    def __init__(self, client: KubeClient, limits: WriterLimits) -> None:
        self.leading = True
        self.outcomes: dict[str, BindOutcome] = {}
        self.deletions: dict[str, DeletionOutcome] = {}
        self.drops: list[tuple[str, str]] = []
        self.retries: list[str] = []
        self.writer = Writer(
            client,
            on_bound=self._on_bound,
            on_deleted=self._on_deleted,
            leads=lambda: self.leading,
            limits=limits,
            on_drop=lambda work, why: self.drops.append((work, why)),
            on_retry=self.retries.append,
            rng=random.Random(1),
        )
        self.task = asyncio.create_task(self.writer.run())

    def _on_bound(self, uid: str, outcome: BindOutcome) -> None:
        assert uid not in self.outcomes
        self.outcomes[uid] = outcome

    def _on_deleted(self, uid: str, outcome: DeletionOutcome) -> None:
        assert uid not in self.deletions
        self.deletions[uid] = outcome

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


Start = Callable[..., Writing]


def bind(name: str, node: str = "n1") -> BindRequest:
    return BindRequest("default", name, f"uid-{name}", node)


def patch(name: str, message: str = "0/1 nodes") -> StatusPatch:
    condition = Condition("PodScheduled", "False", "Unschedulable", message, 1, transitioned=True)
    return StatusPatch("default", name, f"uid-{name}", condition)


def event(name: str, note: str = "note") -> PodEvent:
    return PodEvent("default", name, f"uid-{name}", "Normal", "Scheduled", "Binding", note, "wholepod")


def add(api: ApiServer, *names: str) -> None:
    for name in names:
        api.add_pod(name, uid=f"uid-{name}")


def messages(api: ApiServer) -> list[str]:
    return [sent["status"]["conditions"][0]["message"] for sent in api.patches]


def idle(w: Writing) -> bool:
    return not any(w.writer.pending().values())
