"""What PodGroups are told: that they were placed, or why not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import msgspec
import pytest_asyncio

from scheduler.api_objects import PodGroup
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.groups import GroupConditions
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until

KEY = ("default", "g")


class Bench:
    """One group. What the watch shows of it is what `see` was called for last."""

    def __init__(self, api: ApiServer, client: KubeClient) -> None:
        self.api = api
        self.conditions = GroupConditions(client, rng=random.Random(1), sleep=lambda _: asyncio.sleep(0.01))
        api.groups[KEY] = {
            "metadata": {
                "name": "g",
                "namespace": "default",
                "uid": "u",
                "resourceVersion": "1",
                "generation": 3,
            }
        }
        self.see()
        self.task = asyncio.create_task(self.conditions.run())

    def see(self) -> None:
        group = self.api.groups.get(KEY)
        self.seen = None if group is None else msgspec.convert(deepcopy(group), PodGroup)

    def tell(self, message: str, reason: str = "Unschedulable") -> None:
        self.conditions.not_scheduled(lambda: self.seen, reason, message)

    @property
    def condition(self) -> dict[str, Any]:
        [condition] = self.api.groups[KEY]["status"]["conditions"]
        return dict(condition)


@pytest_asyncio.fixture
async def bench(api: ApiServer, client: KubeClient) -> AsyncIterator[Bench]:
    bench = Bench(api, client)
    yield bench
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)


async def test_a_group_is_told_why_it_was_not_placed(bench: Bench, until: Until) -> None:
    bench.tell("too small")
    await until(lambda: bench.api.patches)
    condition = bench.condition
    assert condition.pop("lastTransitionTime")
    assert condition == {
        "type": "PodGroupInitiallyScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "too small",
        "observedGeneration": 3,
    }


async def test_what_it_says_already_is_not_written_again(bench: Bench, until: Until) -> None:
    bench.tell("too small")
    await until(lambda: bench.api.patches)
    bench.see()
    since = bench.condition["lastTransitionTime"]
    bench.tell("too small")
    await asyncio.sleep(0.05)
    assert len(bench.api.patches) == 1
    bench.tell("a bug", "SchedulerError")
    await until(lambda: len(bench.api.patches) == 2)
    assert (bench.condition["reason"], bench.condition["lastTransitionTime"]) == ("SchedulerError", since)
    assert "lastTransitionTime" not in bench.api.patches[1]["status"]["conditions"][0]


async def test_it_is_written_again_for_another_generation(bench: Bench, until: Until) -> None:
    bench.tell("too small")
    await until(lambda: bench.api.patches)
    bench.api.groups[KEY]["metadata"]["generation"] = 4
    bench.see()
    bench.tell("too small")
    await until(lambda: len(bench.api.patches) == 2)
    assert bench.condition["observedGeneration"] == 4


async def test_of_several_messages_only_the_latest_is_written(bench: Bench, until: Until) -> None:
    for number in range(5):
        bench.tell(f"try {number}")
    await until(lambda: bench.api.patches)
    await asyncio.sleep(0.05)
    assert [patch["status"]["conditions"][0]["message"] for patch in bench.api.patches] == ["try 4"]


async def test_once_placed_it_stays_so(bench: Bench, until: Until) -> None:
    assert bench.seen is not None
    await bench.conditions.scheduled(bench.seen)
    bench.tell("the watch is behind")  # it shows the group without the condition
    await until(lambda: len(bench.api.requests) >= 2)
    bench.see()
    await asyncio.sleep(0.05)
    assert (bench.condition["status"], bench.condition["reason"]) == ("True", "Scheduled")
    bench.tell("too late")
    await asyncio.sleep(0.05)
    assert len(bench.api.patches) == 1


async def test_a_refusal_whose_answer_is_lost_can_not_undo_a_success(bench: Bench, until: Until) -> None:
    bench.api.fault("PATCH .*/podgroups/g/status", times=1, drop=True)
    bench.tell("too small")
    await until(lambda: bench.api.requests)
    assert bench.seen is not None
    await bench.conditions.scheduled(bench.seen)
    bench.see()
    await asyncio.sleep(0.05)
    assert bench.condition["status"] == "True"


async def test_a_success_takes_the_place_of_a_refusal(bench: Bench, until: Until) -> None:
    bench.tell("too small")
    await until(lambda: bench.api.patches)
    bench.see()
    assert bench.seen is not None
    await bench.conditions.scheduled(bench.seen)
    assert (bench.condition["status"], bench.condition["message"]) == ("True", "")


async def test_faults_are_lived_through_and_others_go_on(bench: Bench, until: Until) -> None:
    fault = bench.api.fault("PATCH .*/podgroups/g/status", times=1000, status=500, reason="InternalError")
    bench.tell("too small")
    await until(lambda: fault.times <= 995)
    fault.times = 0
    bench.tell("still too small")
    await until(lambda: bench.api.patches)
    assert bench.condition["message"] == "still too small"
    del bench.api.groups[KEY]
    bench.see()
    bench.tell("gone")
    await asyncio.sleep(0.05)
    assert not bench.task.done()


async def test_that_it_was_placed_is_said_once_the_api_server_is_back(bench: Bench, until: Until) -> None:
    assert bench.seen is not None
    await bench.api.stop()
    saying = asyncio.create_task(bench.conditions.scheduled(bench.seen))
    await asyncio.sleep(0.3)
    assert not saying.done()
    await bench.api.start()
    await saying
    assert bench.condition["status"] == "True"


async def test_a_conflict_is_no_reason_to_leave_it_unsaid(bench: Bench) -> None:
    """The API server may answer so when others write the group at the time."""
    assert bench.seen is not None
    bench.api.fault("PATCH .*/podgroups/g/status", status=409, reason="Conflict")
    await bench.conditions.scheduled(bench.seen)
    assert bench.condition["status"] == "True"
