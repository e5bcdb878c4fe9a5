"""A kind that comes to be served after kopf has looked is followed all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from scheduler.controller import following
from scheduler.controller.following import Following
from scheduler.controller.kinds import KINDS, PERIOD_S, POD_GROUPS, WORKLOADS, keep_up
from scheduler.controller.shapes import GroupObject, Key
from scheduler.controller.workloads import Workload
from scheduler.kube.client import KubeClient
from scheduler.kube.resources import Resource
from tests.unit.answers import Answer, client_of
from tests.unit.kube.conftest import write_kubeconfig

CRDS = Resource("customresourcedefinitions", "apiextensions.k8s.io")
NAMESPACES = Resource("namespaces")
CRD = {"spec": {"group": POD_GROUPS.group}, "metadata": {"name": "podgroups.scheduling.x-k8s.io", "uid": "c"}}
GROUP = {"metadata": {"name": "g", "namespace": "default", "uid": "u", "resourceVersion": "1"}}
WITHOUT_GROUPS = KINDS - {POD_GROUPS}


class Ended(Exception):
    """There are no rounds left."""


class Rounds:
    """A cluster, round by round: what it serves (None: it does not say), and what is followed meanwhile."""

    def __init__(self, *rounds: tuple[Iterable[Resource] | None, Iterable[Resource] | None]) -> None:
        self._rounds = rounds
        self.slept: list[float] = []
        self.started_anew_in: list[int] = []

    async def sleep(self, seconds: float) -> None:
        if len(self.slept) == len(self._rounds):
            raise Ended
        self.slept.append(seconds)

    def discover(self, request: web.Request, body: Any) -> Any:
        served = self._rounds[len(self.slept) - 1][0]
        if served is None:
            raise web.HTTPServiceUnavailable
        names = [kind.name for kind in served if kind.path.rpartition("/")[0] == request.path]
        if not names:
            raise web.HTTPNotFound
        return {"resources": [{"name": name} for name in names]}

    def followed(self) -> frozenset[Resource] | None:
        now = self._rounds[len(self.slept) - 1][1]
        return None if now is None else frozenset(now)

    async def play(self, folder: Path) -> list[int]:
        """In which rounds following was started anew; the first is 1."""
        answers: dict[str, Answer] = {f"GET {kind.path.rpartition('/')[0]}": self.discover for kind in KINDS}
        async with client_of(folder, answers) as client:
            with pytest.raises(Ended):
                await keep_up(
                    client,
                    followed=self.followed,
                    start_anew=lambda: self.started_anew_in.append(len(self.slept)),
                    sleep=self.sleep,
                )
        assert set(self.slept) == {PERIOD_S}
        return self.started_anew_in


async def test_a_difference_that_lasts(tmp_path: Path) -> None:
    missing = (KINDS, WITHOUT_GROUPS)
    assert await Rounds((WITHOUT_GROUPS, WITHOUT_GROUPS), missing, missing).play(tmp_path) == [3]
    gone = (WITHOUT_GROUPS, KINDS)
    assert await Rounds(gone, gone).play(tmp_path) == [2]


async def test_what_kopf_notices_by_itself(tmp_path: Path) -> None:
    missing, well = (KINDS, WITHOUT_GROUPS), (KINDS, KINDS)
    assert await Rounds(missing, well, missing, well, (KINDS, None), (KINDS, None)).play(tmp_path) == []


async def test_no_answer_is_no_difference(tmp_path: Path) -> None:
    assert await Rounds((None, KINDS), (None, KINDS), (None, KINDS)).play(tmp_path) == []
    missing, unknown = (KINDS, WITHOUT_GROUPS), (None, WITHOUT_GROUPS)
    assert await Rounds(missing, unknown, missing).play(tmp_path) == [3]


async def test_what_does_not_help_is_done_more_rarely(tmp_path: Path) -> None:
    missing, well = (KINDS, WITHOUT_GROUPS), (KINDS, KINDS)
    assert await Rounds(*[missing] * 14, well, missing, missing).play(tmp_path) == [2, 6, 14, 17]
    seldom = await Rounds(*[missing] * 160).play(tmp_path)
    assert seldom == [2, 6, 14, 30, 62, 102, 142]


class LateServer:
    """What kopf asks of an API server. The CRD of PodGroups has its last event before the kind is served."""

    def __init__(self) -> None:
        self.served = {NAMESPACES, CRDS, WORKLOADS["Job"]}
        self.scans = 0
        self._serving_groups = asyncio.Event()
        self._ending = asyncio.Event()

    async def serving_groups(self) -> None:
        """Returns when kopf has looked in vain, and PodGroups have come to be served since."""
        await self._serving_groups.wait()

    def end(self) -> None:
        """Of the watches."""
        self._ending.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/apis":
            return self._groups()
        if request.path == "/api":
            return web.json_response({"versions": [NAMESPACES.version]})
        for kind in self.served:
            if request.path == kind.path.rpartition("/")[0]:
                return web.json_response({"resources": [_described(kind)]})
            if request.path == kind.path:
                if "watch" in request.query:
                    return await self._watch(request, kind)
                items = [GROUP] if kind == POD_GROUPS else []
                return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        raise web.HTTPNotFound

    def _groups(self) -> web.Response:
        """What kopf asks for first, at its start and when a CRD changes."""
        answer = web.json_response({"groups": [_group(kind) for kind in self.served if kind.group]})
        self.scans += 1
        if self.scans == 2:
            self.served = self.served | {POD_GROUPS}
            self._serving_groups.set()
        return answer

    async def _watch(self, request: web.Request, kind: Resource) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if kind == CRDS and self.scans == 1:
            await response.write(json.dumps({"type": "MODIFIED", "object": CRD}).encode() + b"\n")
        await self._ending.wait()
        return response


def _group(kind: Resource) -> Any:
    version = {"groupVersion": f"{kind.group}/{kind.version}", "version": kind.version}
    return {"name": kind.group, "versions": [version], "preferredVersion": version}


def _described(kind: Resource) -> Any:
    verbs = ["list", "watch"]
    namespaced = kind not in (CRDS, NAMESPACES)
    return {"name": kind.name, "singularName": "", "namespaced": namespaced, "kind": "Any", "verbs": verbs}


class Told:
    """A sink that waits for a group."""

    def __init__(self) -> None:
        self.group = asyncio.get_running_loop().create_future()

    def group_seen(self, group: GroupObject, /) -> None:
        self.group.set_result(group.key)

    def group_gone(self, key: Key, /) -> None:
        raise AssertionError("no group goes")

    def workload_seen(self, owner: Workload, /) -> None:
        raise AssertionError("there are no workloads")

    def workload_gone(self, kind: str, key: Key, /) -> None:
        raise AssertionError("there are no workloads")


async def test_kopf_looks_too_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_RESTART_S", 0.01)
    server = LateServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{runner.addresses[0][1]}")
    told = Told()
    followed = Following(kubeconfig, told)
    async with KubeClient.from_config(kubeconfig) as client:
        followed.start()
        await server.serving_groups()
        assert followed.followed() == frozenset({WORKLOADS["Job"]})
        keeping_up = asyncio.create_task(
            keep_up(
                client,
                followed=followed.followed,
                start_anew=followed.start_anew,
                sleep=lambda _: asyncio.sleep(0.01),
            )
        )
        assert await told.group == Key("default", "g")
        assert followed.followed() == frozenset({WORKLOADS["Job"], POD_GROUPS})
        assert followed.restarts == 1
        keeping_up.cancel()
        await followed.stop(timeout_s=60.0)
        assert not followed.alive
    server.end()
    await runner.cleanup()
