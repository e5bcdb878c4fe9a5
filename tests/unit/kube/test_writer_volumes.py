"""Writes about volumes in the writer: their turn, their retries, who may send them, and their end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from scheduler.core.volumes.plan import ObjectVersion, Provisioning, VolumePlan
from scheduler.kube.client import KubeClient
from scheduler.kube.payloads import BindRequest, PodEvent
from scheduler.kube.volume_writes import NotWritten, VolumeOutcome, VolumeRequest, Written
from scheduler.kube.writer import Writer, WriterLimits
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until


class Writing:
    """A writer at work, and what it reported."""

    def __init__(self, client: KubeClient, *, in_flight: int = 32) -> None:
        self.leading = True
        self.outcomes: dict[str, VolumeOutcome] = {}
        self.retries: list[str] = []
        self.writer = Writer(
            client,
            on_bound=lambda uid, outcome: None,
            on_volumes=self._on_volumes,
            leads=lambda: self.leading,
            limits=WriterLimits(qps=100_000.0, burst=1000, in_flight=in_flight),
            on_retry=self.retries.append,
            rng=random.Random(1),
        )
        self.task = asyncio.create_task(self.writer.run())

    def _on_volumes(self, uid: str, outcome: VolumeOutcome) -> None:
        assert uid not in self.outcomes
        self.outcomes[uid] = outcome


Start = Callable[..., Writing]


@pytest_asyncio.fixture
async def start(client: KubeClient) -> AsyncIterator[Start]:
    running: list[Writing] = []

    def start_one(*, in_flight: int = 32) -> Writing:
        running.append(Writing(client, in_flight=in_flight))
        return running[-1]

    yield start_one
    for writing in running:
        writing.task.cancel()
    await asyncio.gather(*(writing.task for writing in running), return_exceptions=True)


def provision(api: ApiServer, *names: str) -> VolumeRequest:
    """The writes of the pod `uid-of-<first claim>`, which has these claims."""
    claims = [api.add_claim(name)["metadata"] for name in names]
    versions = [ObjectVersion(c["name"], c["uid"], c["resourceVersion"], c["namespace"]) for c in claims]
    plan = VolumePlan("n", provisions=tuple(map(Provisioning, versions)))
    return VolumeRequest("default", names[0], f"uid-of-{names[0]}", plan)


async def test_every_plan_gets_one_outcome(api: ApiServer, start: Start, until: Until) -> None:
    w = start(in_flight=4)
    requests = [provision(api, f"a{i}", f"b{i}") for i in range(40)]
    gone = provision(api, "gone")
    del api.claims["default", "gone"]
    for request in (*requests, gone):
        w.writer.write_volumes(request)
    assert w.writer.pending()["volumes"] == 41
    await until(lambda: len(w.outcomes) == 41)
    assert isinstance(w.outcomes.pop(gone.uid), NotWritten)
    assert all(isinstance(outcome, Written) for outcome in w.outcomes.values())
    assert w.writer.pending()["volumes"] == 0
    assert w.retries == []


async def test_after_binds_and_before_events(api: ApiServer, start: Start, until: Until) -> None:
    api.add_pod("pod", uid="uid-pod")
    api.fault("POST", delay_s=0.05)  # holds the only worker while the rest queues up
    w = start(in_flight=1)
    event = PodEvent("default", "pod", "uid-pod", "Normal", "Scheduled", "Binding", "first", "wholepod")
    w.writer.post_event(event)
    await until(lambda: api.requests)
    w.writer.post_event(PodEvent("default", "pod", "u", "Normal", "Scheduled", "Binding", "note", "wholepod"))
    w.writer.write_volumes(provision(api, "data"))
    w.writer.bind(BindRequest("default", "pod", "uid-pod", "n"))
    await until(lambda: not any(w.writer.pending().values()))
    assert [line.rsplit("/", 1)[1] for line in api.requests] == ["events", "binding", "data", "events"]


async def test_a_retry_is_counted_and_waited_for(api: ApiServer, start: Start, until: Until) -> None:
    api.fault("PATCH", drop=True, execute=True)
    w = start()
    w.writer.write_volumes(provision(api, "data"))
    await until(lambda: w.outcomes)
    assert w.retries == ["volumes"]


async def test_nobody_writes_who_does_not_lead(api: ApiServer, start: Start, until: Until) -> None:
    w = start()
    w.leading = False
    w.writer.write_volumes(provision(api, "data"))
    await asyncio.sleep(0.1)
    assert api.requests == []
    w.leading = True
    await until(lambda: w.outcomes)


async def test_cancelled_writes_stop(api: ApiServer, start: Start, until: Until) -> None:
    api.fault("PATCH", delay_s=0.1)
    w = start()
    request = provision(api, "data", "never")
    w.writer.write_volumes(request)
    with pytest.raises(ValueError, match="already"):
        w.writer.write_volumes(request)
    await until(lambda: api.requests)
    assert w.writer.cancel_volumes(request.uid)
    assert not w.writer.cancel_volumes(request.uid)
    w.writer.write_volumes(provision(api, "last"))
    await until(lambda: w.outcomes)
    await asyncio.sleep(0.15)
    assert list(w.outcomes) == ["uid-of-last"]
    assert api.count("never") == 0


async def test_a_stopping_writer_leaves_the_rest_to_the_next(api: ApiServer, start: Start) -> None:
    w = start()
    w.leading = False
    w.writer.write_volumes(provision(api, "data"))
    await w.writer.drain(5.0)
    w.leading = True
    w.writer.write_volumes(provision(api, "late"))
    await asyncio.sleep(0.6)
    assert (w.outcomes, api.requests) == ({}, [])
