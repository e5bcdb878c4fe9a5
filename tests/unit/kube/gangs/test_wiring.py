"""Gangs from the engine's decisions to binds: loop, journal, committer and writer are the real ones."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from scheduler.api import Pod
from scheduler.api_objects import PodGroup
from scheduler.core.engine import Engine
from scheduler.core.gangs.commit import SINGLY
from scheduler.core.gangs.ref import GangRef, Source
from scheduler.core.queue import SchedulingQueue
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.actions import TXN_ANNOTATION
from scheduler.kube.gangs.committer import GangCommitter
from scheduler.kube.gangs.restarts import Restarts
from scheduler.kube.journal import Journal
from scheduler.kube.reports import PodReports
from scheduler.kube.volume_binder import VolumeBinder
from scheduler.kube.writer import Writer, WriterLimits
from scheduler.loop import SchedulingLoop
from scheduler.observe.metrics import Metrics
from tests.builders import make_node, make_profile
from tests.unit.groups import Groups
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until

KEY = ("kube-system", "wholepod-journal")


class Scheduler:
    """Everything but watches: what the API server holds is told by `see`."""

    def __init__(self, api: ApiServer, client: KubeClient, name: str = "a") -> None:
        self.api = api
        clock = asyncio.get_running_loop().time
        self.engine = Engine(
            [make_profile()], clock=clock, queue=SchedulingQueue(clock, initial_backoff_s=0.05)
        )
        self.metrics = Metrics()
        self.loop = SchedulingLoop(self.engine, self.metrics, may_decide=lambda: True, clock=clock)
        self.writer = Writer(
            client,
            on_bound=self.loop.on_bound,
            limits=WriterLimits(qps=100_000.0, burst=1000),
            rng=random.Random(1),
        )
        self.volumes = VolumeBinder(
            self.engine.state.nodes,
            self.writer,
            on_bound=self.loop.on_volumes_bound,
            on_failed=self.loop.on_volumes_failed,
        )
        self.groups = Groups()
        self.loop.connect(self.writer, PodReports(self.writer, clock=clock), self.volumes, self.groups)
        self.journal = Journal(client, namespace="kube-system", owner=name, rng=random.Random(1))
        self.committer = GangCommitter(
            client,
            self.journal,
            self.writer,
            self.loop.gangs,
            scheduler_name="wholepod",
            rng=random.Random(1),
        )
        self.restarts = Restarts(
            client,
            self.writer,
            self.loop.gangs.losses,
            scheduler_name="wholepod",
            gang_of=self.loop.gangs.key_of,
            rng=random.Random(1),
        )
        self.tasks = [asyncio.create_task(work()) for work in (self.writer.run, self.loop.run)]

    async def lead(self) -> None:
        left = await self.journal.open()
        works = (self.journal.run, self.committer.run, self.restarts.run)
        self.tasks += [asyncio.create_task(work()) for work in works]
        pods = self.engine.known_pods()
        gangs = self.loop.gangs
        await self.committer.recover(
            left, pods, gang_of=gangs.key_of, terms=gangs.terms, is_there=gangs.is_there
        )
        gangs.serve(self.committer, self.restarts)
        self.loop.wake()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def node(self, name: str, memory: str) -> None:
        self.loop.upsert_node(make_node(name).allocatable(memory=memory).obj())

    def pod(self, name: str, memory: str = "1Gi", **options: str) -> None:
        """A member of gang g, which wants two, unless told otherwise."""
        pod = self.api.add_pod(
            name,
            uid=f"uid-{name}",
            schedulerName="wholepod",
            containers=[{"name": "c", "resources": {"requests": {"memory": memory}}}],
        )
        wanted = {"gang": "g", "min-count": "2", **options}
        pod["metadata"]["annotations"] = {
            f"wholepod.io/{key}": value for key, value in wanted.items() if value
        }
        self.see(name)

    def miss(self, name: str) -> None:
        """The watch tells of the pod's end, whatever it was."""
        self.loop.delete_pod(msgspec.convert(self.api.pods["default", name], Pod))

    def see(self, name: str) -> None:
        self.loop.upsert_pod(msgspec.convert(self.api.pods["default", name], Pod))

    def see_all(self) -> None:
        """A new list after a gap of the watch."""
        self.loop.replace_pods([msgspec.convert(pod, Pod) for pod in self.api.pods.values()])

    @property
    def bound(self) -> dict[str, str]:
        return {
            name: pod["spec"]["nodeName"]
            for (_, name), pod in self.api.pods.items()
            if pod["spec"].get("nodeName")
        }

    @property
    def entries(self) -> list[Any]:
        data = self.api.config_maps[KEY]["data"]
        return [json.loads(text) for key, text in data.items() if key.startswith("gang.")]

    def ended(self, outcome: str) -> float:
        name = "wholepod_gang_commits_ended_total"
        return self.metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


@pytest_asyncio.fixture
async def scheduler(api: ApiServer, client: KubeClient) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(api, client)
    yield scheduler
    await scheduler.stop()


@pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
async def test_a_gang_is_bound_as_one(scheduler: Scheduler, until: Until, strategy: str) -> None:
    await scheduler.lead()
    scheduler.node("n", "2Gi")
    scheduler.pod("a", strategy=strategy)
    await asyncio.sleep(0.05)
    assert scheduler.bound == {}
    scheduler.pod("b", strategy=strategy)
    await until(lambda: scheduler.ended("complete"))
    assert scheduler.bound == {"a": "n", "b": "n"}
    marks = {pod["metadata"]["annotations"][TXN_ANNOTATION] for pod in scheduler.api.pods.values()}
    assert len(marks) == 1
    assert scheduler.entries == []
    assert len(scheduler.loop.gangs) == 0
    for name in ("a", "b"):
        scheduler.see(name)
    assert scheduler.engine.state.assumed_count == 0


async def test_single_pods_are_none_of_a_commits_business(scheduler: Scheduler, until: Until) -> None:
    await scheduler.lead()
    scheduler.node("n", "2Gi")
    scheduler.pod("single", gang="")
    await until(lambda: scheduler.bound)
    assert TXN_ANNOTATION not in scheduler.api.pods["default", "single"]["metadata"]["annotations"]
    assert scheduler.api.count("PUT .*configmaps") == 0


async def test_a_member_beyond_those_that_are_needed_is_bound_for_itself(
    scheduler: Scheduler, until: Until
) -> None:
    await scheduler.lead()
    scheduler.node("n", "3Gi")
    scheduler.pod("a")
    scheduler.pod("b")
    await until(lambda: scheduler.ended("complete"))
    for name in ("a", "b"):
        scheduler.see(name)
    scheduler.pod("c")
    await until(lambda: "c" in scheduler.bound)
    assert scheduler.api.pods["default", "c"]["metadata"]["annotations"][TXN_ANNOTATION] == SINGLY


async def test_without_a_journal_gangs_wait_and_single_pods_go_on(scheduler: Scheduler, until: Until) -> None:
    scheduler.loop.gangs.refuse("gangs can't be bound: no rights")
    scheduler.node("n", "3Gi")
    scheduler.pod("a")
    scheduler.pod("b")
    scheduler.pod("single", gang="")
    await until(lambda: scheduler.bound)
    await asyncio.sleep(0.1)
    assert scheduler.bound == {"single": "n"}
    notes = {event["note"] for event in scheduler.api.events.values()}
    assert "binding rejected: gangs can't be bound: no rights" in notes
    await scheduler.lead()
    await until(lambda: scheduler.ended("complete"))
    assert scheduler.bound == {"a": "n", "b": "n", "single": "n"}


async def test_nobody_else_is_decided_while_many_gangs_are_being_bound(
    scheduler: Scheduler, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.loop.MAX_BINDS_UNDER_WAY", 2)
    monkeypatch.setattr("scheduler.loop.FEW_GANGS", 0)
    await scheduler.lead()
    scheduler.node("n", "3Gi")
    for name in ("a", "b"):
        scheduler.api.fault(f"POST .*/{name}/binding", delay_s=1.0)
        scheduler.pod(name)
    await until(lambda: scheduler.committer.binds_under_way == 2)
    scheduler.pod("single", gang="")
    for _ in range(20):
        await asyncio.sleep(0)
    assert "uid-single" not in scheduler.engine.state.pods
    await until(lambda: len(scheduler.bound) == 3)


async def test_a_large_gang_that_is_being_bound_holds_nobody_up(
    scheduler: Scheduler, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.loop.MAX_BINDS_UNDER_WAY", 2)
    await scheduler.lead()
    scheduler.node("n", "3Gi")
    for name in ("a", "b"):
        scheduler.api.fault(f"POST .*/{name}/binding", delay_s=1.0)
        scheduler.pod(name)
    await until(lambda: scheduler.committer.binds_under_way == 2)
    scheduler.pod("single", gang="")
    await until(lambda: scheduler.bound == {"single": "n"})
    await until(lambda: len(scheduler.bound) == 3)


async def test_members_that_wait_for_the_journal_hold_nobody_up(
    scheduler: Scheduler, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.loop.MAX_BINDS_UNDER_WAY", 2)
    monkeypatch.setattr("scheduler.loop.FEW_GANGS", 0)
    await scheduler.lead()
    scheduler.node("n", "4Gi")
    fault = scheduler.api.fault("PUT .*configmaps", times=1000, status=500)
    for name in ("a", "b"):
        scheduler.pod(name)
    await until(lambda: scheduler.journal.trouble)
    scheduler.pod("single", gang="")
    await until(lambda: scheduler.bound)
    assert scheduler.bound == {"single": "n"}
    scheduler.api.faults.remove(fault)
    await until(lambda: len(scheduler.bound) == 3)


async def test_a_member_whose_bind_is_refused_joins_again(scheduler: Scheduler, until: Until) -> None:
    await scheduler.lead()
    scheduler.node("n", "2Gi")
    scheduler.api.fault("POST .*/b/binding", status=403, reason="Forbidden", message="a webhook says no")
    scheduler.pod("a")
    scheduler.pod("b")
    await until(lambda: scheduler.ended("complete"))
    assert scheduler.bound == {"a": "n", "b": "n"}
    marks = {pod["metadata"]["annotations"][TXN_ANNOTATION] for pod in scheduler.api.pods.values()}
    assert len(marks) == 1
    assert scheduler.ended("given_up") == 0


async def test_a_member_that_the_watch_shows_no_more_completes_nothing(
    scheduler: Scheduler, until: Until
) -> None:
    """Its successor comes with the same list, and is bound before it is known what became of it."""
    await scheduler.lead()
    scheduler.node("n", "8Gi")
    refused = scheduler.api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="")
    for name in ("a", "b"):
        scheduler.pod(name)
    await until(lambda: scheduler.bound and refused.times < 1000)
    scheduler.see("a")
    scheduler.api.fault("GET .*/pods/a$", delay_s=0.5)
    scheduler.api.delete_pod("a")
    scheduler.see_all()
    scheduler.pod("c")
    await until(lambda: "c" in scheduler.bound)
    await asyncio.sleep(0.7)
    assert scheduler.ended("complete") == 0.0
    assert len(scheduler.entries) == 1
    refused.times = 0
    await until(lambda: scheduler.ended("complete"))
    assert set(scheduler.bound) == {"b", "c"}


async def test_a_member_that_was_gone_before_its_bind_was_answered_completes_nothing(
    scheduler: Scheduler, api: ApiServer, until: Until
) -> None:
    await scheduler.lead()
    scheduler.node("n", "8Gi")

    def lose() -> None:
        scheduler.miss("a")
        api.delete_pod("a")

    def executed(line: str) -> None:
        if line.endswith("/a/binding"):
            asyncio.get_running_loop().call_soon(lose)  # before the answer is read

    api.executed = executed
    api.fault("POST .*/a/binding", delay_s=0.2)
    for name in ("a", "b"):
        scheduler.pod(name)
    await until(lambda: ("default", "a") not in api.pods)
    await asyncio.sleep(0.3)
    assert list(scheduler.bound) == ["b"]
    assert scheduler.ended("complete") == 0.0
    scheduler.pod("c")
    await until(lambda: scheduler.ended("complete"))
    assert set(scheduler.bound) == {"b", "c"}


async def test_compensations_are_counted_by_strategy(scheduler: Scheduler, until: Until) -> None:
    await scheduler.lead()
    scheduler.node("n", "2Gi")
    scheduler.api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="not now")
    for name in ("a", "b"):
        scheduler.pod(name, strategy="optimistic")
    await until(lambda: scheduler.bound)
    [entry] = scheduler.entries
    scheduler.committer.compensate(entry["txn"], "enough of it")
    await until(lambda: scheduler.ended("given_up"))
    assert scheduler.engine.gangs.cost.compensations == {"optimistic": 1}


async def test_a_native_group_is_told_that_it_was_placed(scheduler: Scheduler, until: Until) -> None:
    await scheduler.lead()
    scheduler.node("n", "2Gi")
    for name in ("a", "b"):
        scheduler.pod(name, gang="")
        scheduler.api.pods["default", name]["spec"]["schedulingGroup"] = {"podGroupName": "g"}
        scheduler.loop.delete_pod(msgspec.convert(scheduler.api.pods["default", name], Pod))
        scheduler.see(name)
    await asyncio.sleep(0.05)
    assert scheduler.bound == {}  # nobody has described the gang yet
    spec = {"schedulingPolicy": {"gang": {"minCount": 2}}}
    group = {"metadata": {"name": "g", "namespace": "default", "resourceVersion": "1"}, "spec": spec}
    scheduler.loop.upsert_object(msgspec.convert(group, PodGroup))
    await until(lambda: scheduler.ended("complete"))
    assert scheduler.groups.placed == ["g"]
    assert len(scheduler.bound) == 2


async def test_a_native_group_is_told_why_it_is_not_placed(
    scheduler: Scheduler, api: ApiServer, until: Until
) -> None:
    await scheduler.lead()
    scheduler.node("n", "1Gi")
    spec = {"schedulingPolicy": {"gang": {"minCount": 2}}}
    group = {"metadata": {"name": "g", "namespace": "default", "resourceVersion": "1"}, "spec": spec}
    scheduler.loop.upsert_object(msgspec.convert(group, PodGroup))
    for name in ("a", "b"):
        scheduler.pod(name, gang="", **{"min-count": ""})
        api.pods["default", name]["spec"]["schedulingGroup"] = {"podGroupName": "g"}
        scheduler.see(name)
    await until(lambda: scheduler.groups.not_placed)
    [(name, reason, message), *_] = scheduler.groups.not_placed
    assert (name, reason) == ("g", "Unschedulable")
    assert message.startswith("minCount (2) cannot be satisfied: 1 scheduled, 0 remaining, 0/1 nodes are")


async def test_a_member_that_differs_gets_an_event(
    scheduler: Scheduler, api: ApiServer, until: Until
) -> None:
    await scheduler.lead()
    scheduler.pod("a")
    scheduler.pod("b", **{"hold-timeout": "5m"})
    await until(lambda: api.events)
    [event] = [e for e in api.events.values() if e["reason"] == "GangOptionsDiffer"]
    assert event["type"] == "Warning"
    assert "annotation wholepod.io/hold-timeout" in event["note"]


async def test_what_a_gang_asks_for_is_frozen_while_it_is_bound(
    scheduler: Scheduler, api: ApiServer, until: Until
) -> None:
    def group(min_count: int) -> PodGroup:
        spec = {"schedulingPolicy": {"gang": {"minCount": min_count}}}
        metadata = {"name": "g", "namespace": "default", "resourceVersion": str(min_count)}
        return msgspec.convert({"metadata": metadata, "spec": spec}, PodGroup)

    await scheduler.lead()
    scheduler.node("n", "4Gi")
    for name in ("a", "b"):
        scheduler.pod(name, gang="", **{"min-count": ""})
        api.pods["default", name]["spec"]["schedulingGroup"] = {"podGroupName": "g"}
        scheduler.see(name)
    fault = api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="not now")
    scheduler.loop.upsert_object(group(2))
    await until(lambda: fault.times < 1000)
    scheduler.loop.upsert_object(group(3))
    book = scheduler.engine.gangs.book
    gang = book.named(GangRef(Source.NATIVE, "default", "g"))
    assert gang is not None
    assert book.options(gang).min_count == 2
    fault.times = 0
    await until(lambda: scheduler.ended("complete"))
    assert len(scheduler.bound) == 2
    assert book.options(gang).min_count == 3


async def test_the_next_leader_completes_what_was_begun(
    scheduler: Scheduler, api: ApiServer, client: KubeClient, until: Until
) -> None:
    await scheduler.lead()
    scheduler.node("n", "2Gi")
    fault = api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="not now")
    scheduler.pod("a")
    scheduler.pod("b")
    await until(lambda: scheduler.bound)
    await until(lambda: fault.times < 1000)
    await scheduler.stop()
    assert list(scheduler.bound) == ["a"]
    [entry] = scheduler.entries
    fault.times = 0
    heir = Scheduler(api, client, "b")
    try:
        heir.node("n", "2Gi")
        for name in ("a", "b"):
            heir.see(name)
        await heir.lead()
        await until(lambda: heir.ended("complete"))
    finally:
        await heir.stop()
    assert heir.bound == {"a": "n", "b": "n"}
    marks = {pod["metadata"]["annotations"][TXN_ANNOTATION] for pod in api.pods.values()}
    assert marks == {entry["txn"]}
    assert heir.entries == []


def test_a_gang_is_named_in_the_journal_and_found_again() -> None:
    for ref in (GangRef(Source.NATIVE, "a", "b"), GangRef(Source.ANNOTATIONS, "a", "x/y")):
        assert GangRef.parse(ref.key) == ref
    for key in ("", "g", "annotations/a", "elsewhere/a/b", "annotations//b"):
        assert GangRef.parse(key) is None
