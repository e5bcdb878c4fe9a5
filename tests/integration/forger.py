"""A forger: an HTTP proxy that changes what the API server says, or stops single requests and answers.

For what no real server would ever say, and for what a real one can't be told to do at a given moment.
"""

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from tests.cluster import ControlPlane
from tests.integration.harness import DEADLINE_S

What = Literal["lose request", "lose answer", "refuse", "hold"]
_LONGEST_LINE_BYTES = 2**22


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD /path" contains a match of `pattern`.

    `lose request`: the connection is cut and the API server never hears of it; `lose answer`: it carries
    the request out, and the connection is cut; `refuse`: 500; `hold`: nothing, until `release`.
    """

    pattern: str
    what: What
    times: int = 1
    met: threading.Event = field(default_factory=threading.Event)
    """Set when the first such request has come."""
    _released: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Until it has happened once."""
        assert self.met.wait(DEADLINE_S), f"no request matched {self.pattern}"

    def release(self) -> None:
        """Let go what is held."""
        self._released.set()

    async def hold(self) -> None:
        await asyncio.to_thread(self._released.wait, DEADLINE_S)


class Forger:
    """Passes requests on as they are, and answers line by line through `forge`, which a test may change.

    Of `faults` the first that matches a request is played.
    """

    def __init__(self, plane: ControlPlane, forge: Callable[[bytes], bytes] = lambda line: line) -> None:
        self.forge = forge
        self.faults: list[Fault] = []
        self._plane = plane
        self._started: threading.Event = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="forger", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fault in self.faults:
            fault.release()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, with the forger as the server."""
        config = json.loads(self._plane.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        path = self._plane.folder / "forged.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=_LONGEST_LINE_BYTES)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        server = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        tls = ssl.create_default_context(cafile=str(self._plane.ca_file))
        async with ClientSession(
            connector=TCPConnector(ssl=tls, limit=0),
            timeout=ClientTimeout(total=None),
            read_bufsize=_LONGEST_LINE_BYTES,
            auto_decompress=True,
        ) as self._session:
            await server.setup()
            await web.TCPSite(server, "127.0.0.1", 0).start()
            self._port = int(server.addresses[0][1])
            self._started.set()
            await self._stop.wait()
            await server.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        fault = self._take_fault(f"{request.method} {request.path}")
        if fault is not None and fault.what == "refuse":
            return web.Response(status=500, text="no")
        if fault is not None and fault.what == "hold":
            await fault.hold()
            if request.transport is None or request.transport.is_closing():
                return web.Response()  # nobody asks any more: the request dies with its sender
        if fault is not None and fault.what == "lose request":
            return self._cut(request)
        wanted = ("Authorization", "Content-Type", "Accept")
        async with self._session.request(
            request.method,
            self._plane.server + request.path_qs,
            data=await request.read(),
            headers={name: request.headers[name] for name in wanted if name in request.headers},
        ) as answer:
            if fault is not None and fault.what == "lose answer":
                return self._cut(request)
            forged = web.StreamResponse(status=answer.status)
            forged.content_type = answer.content_type
            await forged.prepare(request)
            async for line in answer.content:
                await forged.write(self.forge(line))
            return forged

    def _take_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, line):
                fault.times -= 1
                fault.met.set()
                return fault
        return None

    def _cut(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
