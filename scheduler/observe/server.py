"""The HTTP server for operators: /metrics, /livez, /readyz, /configz and /debug.

It runs in the scheduler's own event loop on purpose: if a cycle blocked the loop, /livez would not
answer, and that is what a liveness probe is for. Formats are kube-scheduler's
(apiserver/pkg/server/healthz): `[+]name ok` lines with ?verbose, 500 when a check fails.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from scheduler.observe import logs

Check = Callable[[], str | None]
"""None when fine, else why not."""
Authorize = Callable[[str, str, str], Awaitable[tuple[int, str] | None]]
"""From the header Authorization, the verb and the path to None, or to the status and text of a refusal."""
OPEN_TO_ALL = ("/healthz", "/livez", "/readyz")
"""As in kube-scheduler: the kubelet's probes carry no token, and these tell little."""


class Server:
    """`routes`: GET paths beside the standard ones, each answering with a JSON value. `authorize` is asked
    about every request but those about health; without it everybody may ask everything."""

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
        configuration: Any,
        routes: Mapping[str, Callable[[], Awaitable[Any]]],
        authorize: Authorize | None = None,
    ) -> None:
        self._registry, self._configuration = registry, configuration
        app = web.Application(middlewares=[] if authorize is None else [_guard(authorize)])
        app.router.add_get("/metrics", self._metrics)
        for path in ("/healthz", "/livez"):
            app.router.add_get(path, _checks(live, path))
        app.router.add_get("/readyz", _checks(ready, "/readyz"))
        app.router.add_get("/configz", self._configz)
        app.router.add_get("/debug/log-level", _get_log_level)
        app.router.add_put("/debug/log-level", _put_log_level)
        for path, answer in routes.items():
            app.router.add_get(path, _json(answer))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listens; returns the port (of use with port 0). Raises OSError when it can't."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _configz(self, request: web.Request) -> web.Response:
        return _json_response({"wholepod.io": self._configuration})


def _guard(authorize: Authorize) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_TO_ALL:
            header = request.headers.get("Authorization", "")
            refusal = await authorize(header, request.method.lower(), request.path)
            if refusal is not None:
                status, text = refusal
                challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else None
                return web.Response(status=status, text=f"{text}\n", headers=challenge)
        return await handler(request)

    return guard


def _checks(checks: Mapping[str, Check], path: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        results = {name: check() for name, check in checks.items()}
        lines = [
            f"[+]{name} ok" if failure is None else f"[-]{name} failed: {failure}"
            for name, failure in results.items()
        ]
        if any(failure is not None for failure in results.values()):
            return web.Response(status=500, text="\n".join([*lines, f"{path[1:]} check failed", ""]))
        if "verbose" not in request.query:
            return web.Response(text="ok")
        return web.Response(text="\n".join([*lines, f"{path[1:]} check passed", ""]))

    return handler


def _json(answer: Callable[[], Awaitable[Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        return _json_response(await answer())

    return handler


def _json_response(value: Any) -> web.Response:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return web.Response(body=text, content_type="application/json")


async def _get_log_level(request: web.Request) -> web.Response:
    return web.Response(text=logs.get_level() + "\n")


async def _put_log_level(request: web.Request) -> web.Response:
    """Body: the level's name."""
    try:
        logs.set_level((await request.text()).strip())
    except ValueError as error:
        return web.Response(status=400, text=f"{error}\n")
    return await _get_log_level(request)
