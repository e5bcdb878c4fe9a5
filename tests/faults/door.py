"""A way to the API server that sees every request: one door for each scheduler, and traps in them.

Doors speak plain HTTP on loopback and pass everything on, watches included. At a point for which a trap is
set a fault is played. The process behind the door is known by its door, so signals reach the right one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from tests.cluster import ControlPlane
from tests.faults.eyes import Eyes, Point, Request
from tests.integration.harness import DEADLINE_S

T = TypeVar("T")
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "content-encoding"}


class Way(Enum):
    """What happens at a point."""

    SIGKILL = "SIGKILL"
    SIGSTOP = "SIGSTOP past the lease"
    API_KILLED = "API server killed"
    ANSWER_LOST = "answer lost"


@dataclass
class Trap:
    """Played once, at the first time that the point is passed. `door`: by that process alone."""

    point: Point
    way: Way
    door: int | None = None
    also: Callable[[], None] = lambda: None
    """Done at the same moment."""
    sprung: threading.Event = field(default_factory=threading.Event)
    who: int = -1
    """Whose request sprang it."""


class Doors:
    """`doors[i].port` for process i; `pid_of(i)` says which process is behind it now."""

    def __init__(self, plane: ControlPlane, count: int, *, pid_of: Callable[[int], int]) -> None:
        self._plane, self._pid_of = plane, pid_of
        self.eyes = Eyes()
        self.ports: list[int] = []
        self._count = count
        self._traps: list[Trap] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="doors", daemon=True)
        self._runners: list[web.AppRunner] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # From other threads.

    def set_traps(self, *traps: Trap) -> None:
        """These, and no others."""

        async def change() -> None:
            self._traps = list(traps)

        self._call(change())

    def ask(self, about: Callable[[Eyes], T]) -> T:
        """What was seen so far."""

        async def answer() -> T:
            return about(self.eyes)

        return self._call(answer())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    # In the loop.

    async def _open(self) -> None:
        tls = ssl.create_default_context(cafile=str(self._plane.ca_file))
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        for number in range(self._count):
            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{path:.*}", self._handler(number))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
            await runner.setup()
            self._runners.append(runner)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.ports.append(int(runner.addresses[0][1]))

    async def _close(self) -> None:
        await self._session.close()  # ends the watches
        for runner in self._runners:
            await runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _handler(self, door: int) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if request.query.get("watch"):
                    return await self._stream(request)
                return await self._pass(door, request)
            except aiohttp.ClientError:  # the API server is down: what a dead one says is nothing
                return _hang_up(request)

        return handle

    async def _pass(self, door: int, request: web.Request) -> web.StreamResponse:
        seen = Request(door, request.method, request.path, await request.read())
        if await self._spring(self.eyes.before(seen), door):
            return _hang_up(request)
        async with self._forward(request, seen.body) as answer:
            body = await answer.read()
        if await self._spring(self.eyes.after(seen, answer.status), door):
            return _hang_up(request)
        return web.Response(status=answer.status, headers=_headers(answer), body=body)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        async with self._forward(request, b"") as answer:
            response = web.StreamResponse(status=answer.status, headers=_headers(answer))
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except (ConnectionError, aiohttp.ClientError):
                return _hang_up(request, response)
            return response

    def _forward(self, request: web.Request, body: bytes) -> Any:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers.pop("Accept-Encoding", None)
        return self._session.request(
            request.method, self._plane.server + request.raw_path, data=body or None, headers=headers
        )

    async def _spring(self, points: list[Point], door: int) -> bool:
        """Plays the fault of the trap that is set for one of these; True if the answer is to be lost."""
        for trap in self._traps:
            if trap.point in points and trap.door in (None, door):
                self._traps.remove(trap)
                trap.who = door
                lost = await self._play(trap.way, door)
                trap.also()
                trap.sprung.set()
                return lost
        return False

    async def _play(self, way: Way, door: int) -> bool:
        match way:
            case Way.SIGKILL:
                os.kill(self._pid_of(door), signal.SIGKILL)
            case Way.SIGSTOP:
                os.kill(self._pid_of(door), signal.SIGSTOP)
                return False  # it finds its answer when it wakes
            case Way.API_KILLED:
                await asyncio.to_thread(self._plane.kill_apiserver)
            case Way.ANSWER_LOST:
                pass
        return True


def _hang_up(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
