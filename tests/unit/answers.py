"""An HTTP server that gives the answers a test has written down, and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from scheduler.kube.client import KubeClient

Json = Any
Answer = Callable[[web.Request, Json], Json]
"""From a request and its body to the body of the answer."""


@asynccontextmanager
async def client_of(folder: Path, answers: dict[str, Answer]) -> AsyncIterator[KubeClient]:
    """`answers`: by "METHOD /path". `folder` is for the kubeconfig."""

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        answer = answers[f"{request.method} {request.path}"](request, json.loads(body or "null"))
        return web.json_response(answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = folder / "kubeconfig"
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": server}}],
                "users": [{"name": "test", "user": {}}],
            }
        )
    )
    try:
        async with KubeClient.from_config(kubeconfig) as client:
            yield client
    finally:
        await runner.cleanup()
