"""A small API server for PodGroups, workloads and events, over real HTTP, that fails when told to."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from scheduler.controller.shapes import COLLECTION
from scheduler.kube.client import KubeClient
from tests.unit.kube.conftest import write_kubeconfig

Json = dict[str, Any]


class GroupServer:
    """`objects` by path; `fail` answers the next request whose line contains a text with a status."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.events: dict[str, Json] = {}
        self.pods: list[Json] = []
        self.writes: list[str] = []
        self.not_stored: set[str] = set()
        self._faults: list[tuple[str, int, str]] = []
        self._versions = itertools.count(1)

    def fail(self, text: str, status: int, reason: str = "") -> None:
        self._faults.append((text, status, reason))

    def add_group(self, name: str, *, namespace: str = "default", **more: Any) -> Json:
        return self.add(f"{COLLECTION}/namespaces/{namespace}/podgroups", name, namespace=namespace, **more)

    def add(self, collection: str, name: str, *, namespace: str = "default", **more: Any) -> Json:
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", **more.pop("metadata", {})}
        made: Json = {"metadata": metadata, **more}
        self._stamp(made)
        self.objects[f"{collection}/{name}"] = made
        return made

    def group(self, name: str) -> Json:
        return self.objects[f"{COLLECTION}/namespaces/default/podgroups/{name}"]

    def _stamp(self, item: Json) -> None:
        item["metadata"]["resourceVersion"] = str(next(self._versions))

    async def handle(self, request: web.Request) -> web.Response:
        line = f"{request.method} {request.path}"
        if request.method != "GET":
            self.writes.append(line)
        for fault in self._faults:
            if fault[0] in line:
                self._faults.remove(fault)
                return _status(fault[1], fault[2])
        match request.method:
            case "GET" if request.path == f"{COLLECTION}/podgroups":
                return self._page(request)
            case "GET" if request.path.endswith("/pods"):
                label, _, value = request.query["labelSelector"].partition("=")
                pods = [pod for pod in self.pods if pod["metadata"]["labels"].get(label) == value]
                return web.json_response({"metadata": {}, "items": pods})
            case "GET":
                found = self.objects.get(request.path)
                return web.json_response(found) if found is not None else _status(404)
            case "POST":
                return self._create(request.path, json.loads(await request.read()))
            case _:
                return self._patch(request.path, json.loads(await request.read()))

    def _page(self, request: web.Request) -> web.Response:
        start = int(request.query.get("continue", "0"))
        groups = [item for path, item in self.objects.items() if path.startswith(COLLECTION)]
        following = {"continue": str(start + 2)} if start + 2 < len(groups) else {}
        return web.json_response({"metadata": following, "items": groups[start : start + 2]})

    def _create(self, path: str, body: Json) -> web.Response:
        known = self.events if path.endswith("/events") else self.objects
        key = f"{path}/{body['metadata']['name']}"
        if key in known:
            return _status(409, "AlreadyExists")
        self._stamp(body)
        known[key] = body
        return web.json_response(body, status=201)

    def _patch(self, path: str, body: Json) -> web.Response:
        found = self.objects.get(path.removesuffix("/status"))
        if found is None:
            return _status(404)
        wanted = body.pop("metadata", {})
        for field in ("uid", "resourceVersion"):
            if wanted.pop(field, None) != found["metadata"][field]:
                return _status(409, "Conflict")
        found["metadata"].setdefault("annotations", {}).update(wanted.get("annotations", {}))
        for part, fields in body.items():
            kept = {k: v for k, v in fields.items() if k not in self.not_stored}
            merged = {**found.get(part, {}), **kept}
            found[part] = {key: value for key, value in merged.items() if value is not None}
        self._stamp(found)
        return web.json_response(found)


def _status(code: int, reason: str = "") -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"told to answer {code}"}
    return web.json_response(body, status=code)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[GroupServer, KubeClient]]:
    server = GroupServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with tempfile.TemporaryDirectory() as folder:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            kubeconfig = write_kubeconfig(Path(folder) / "kubeconfig", url, token="secret")
            async with KubeClient.from_config(kubeconfig) as client:
                yield server, client
    finally:
        await runner.cleanup()
