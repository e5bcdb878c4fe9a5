"""APIs that come later, and what is written to one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from scheduler.api_objects import PodGroup
from scheduler.kube.gangs.groups import ATTEMPTS, GroupConditions
from scheduler.kube.resources import RESOURCES
from scheduler.kube.served import POLL_S, until_served
from tests.unit.answers import client_of

ROOT = "/apis/scheduling.k8s.io/v1beta1"
STATUS = f"PATCH {ROOT}/namespaces/default/podgroups/g/status"
GROUP = {"metadata": {"name": "g", "namespace": "default", "uid": "u", "generation": 3}}


class Sleep:
    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_an_api_is_waited_for(tmp_path: Path) -> None:
    sleep = Sleep()

    def discover(request: web.Request, body: Any) -> Any:
        match len(sleep.slept):
            case 0:
                raise web.HTTPNotFound
            case 1:
                raise web.HTTPServiceUnavailable
            case 2:
                return {"resources": [{"name": "workloads"}]}
        return {"resources": [{"name": "workloads"}, {"name": "podgroups"}]}

    async with client_of(tmp_path, {f"GET {ROOT}": discover}) as client:
        await until_served(client, RESOURCES[PodGroup], sleep=sleep)
    assert sleep.slept == [POLL_S] * 3


async def test_a_group_is_told_that_it_was_placed(tmp_path: Path) -> None:
    sent: list[Any] = []

    def patch(request: web.Request, body: Any) -> Any:
        sent.append(body)
        if len(sent) == 1:
            raise web.HTTPInternalServerError
        return {}

    async with client_of(tmp_path, {STATUS: patch}) as client:
        await GroupConditions(client, sleep=Sleep()).scheduled(msgspec.convert(GROUP, PodGroup))
    assert len(sent) == 2
    [condition] = sent[1]["status"]["conditions"]
    assert sent[1]["metadata"] == {"uid": "u"}
    moment = condition.pop("lastTransitionTime")
    assert moment.endswith("Z")
    assert condition == {
        "type": "PodGroupInitiallyScheduled",
        "status": "True",
        "reason": "Scheduled",
        "message": "",
        "observedGeneration": 3,
    }


async def test_a_group_that_can_not_be_told_keeps_nobody_waiting(tmp_path: Path) -> None:
    sent: list[Any] = []

    def patch(request: web.Request, body: Any) -> Any:
        sent.append(body)
        raise web.HTTPForbidden

    async with client_of(tmp_path, {STATUS: patch}) as client:
        await GroupConditions(client, sleep=Sleep()).scheduled(msgspec.convert(GROUP, PodGroup))
    assert len(sent) == ATTEMPTS


async def test_a_group_that_is_gone_is_told_nothing(tmp_path: Path) -> None:
    sent: list[Any] = []

    def patch(request: web.Request, body: Any) -> Any:
        sent.append(body)
        raise web.HTTPNotFound

    async with client_of(tmp_path, {STATUS: patch}) as client:
        await GroupConditions(client, sleep=Sleep()).scheduled(msgspec.convert(GROUP, PodGroup))
    assert len(sent) == 1
