"""A saboteur: TCP between the scheduler and the API server that can be cut at will."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.cluster import ControlPlane
from tests.integration.harness import DEADLINE_S

T = TypeVar("T")


class Proxy:
    """TCP between clients and the API server, bytes untouched, on a port of its own.

    `cut` breaks every connection there is; new ones are taken at once. `hold_answers` keeps back what the
    API server says, so that requests are carried out and nobody learns of it. `silence` is a network that
    carries nothing, without a word to either side, until `heal`. While the API server is down, new
    connections are closed as soon as they come, as by a load balancer.
    """

    def __init__(self, plane: ControlPlane) -> None:
        host, _, port = plane.server.removeprefix("https://").partition(":")
        self._target = host, int(port)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._answers = asyncio.Event()
        self._answers.set()
        self._silent = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, plane: ControlPlane, name: str = "proxied", *, user: str = "admin") -> Path:
        """A user's kubeconfig, with this proxy as the server."""
        path = plane.folder / f"{name}.kubeconfig"
        port = self._server.sockets[0].getsockname()[1]
        config = plane.kubeconfig_for(user).read_text().replace(plane.server, f"https://127.0.0.1:{port}")
        path.write_text(config)
        return path

    def cut(self) -> None:
        """Break all connections."""

        async def cut() -> None:
            for writer in self._writers:
                writer.transport.abort()

        self._call(cut())

    def hold_answers(self) -> None:
        """Until `release_answers`; requests still get through."""
        self._loop.call_soon_threadsafe(self._answers.clear)

    def release_answers(self) -> None:
        self._loop.call_soon_threadsafe(self._answers.set)

    def silence(self) -> None:
        """From now on what either side says is lost; connections stay open."""
        self._loop.call_soon_threadsafe(setattr, self, "_silent", True)

    def heal(self) -> None:
        """Connections made from now on work; older ones are broken, as bytes are missing in them."""
        self._loop.call_soon_threadsafe(setattr, self, "_silent", False)
        self.cut()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    async def _close(self) -> None:
        self._server.close()
        self._answers.set()
        for writer in self._writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, server_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._copy(reader, server_writer),
                self._copy(server_reader, writer, only_while=self._answers),
            )
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        only_while: asyncio.Event | None = None,
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65536):
                if only_while is not None:
                    await only_while.wait()
                if not self._silent:
                    writer.write(chunk)
                    await writer.drain()
        # The other direction must not wait for more.
        writer.close()
