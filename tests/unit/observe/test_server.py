"""The operators' HTTP server, asked over real connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler.config import Configuration
from scheduler.observe.metrics import Metrics
from scheduler.observe.server import Authorize, Check, Server


class Client:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(path) as response:
            return response.status, await response.text()

    async def put(self, path: str, body: str) -> tuple[int, str]:
        async with self._session.put(path, data=body) as response:
            return response.status, await response.text()


@asynccontextmanager
async def serving(
    *,
    live: dict[str, Check] | None = None,
    ready: dict[str, Check] | None = None,
    authorize: Authorize | None = None,
) -> AsyncIterator[Client]:
    async def answer() -> Any:
        return {"consistent": True}

    server = Server(
        registry=Metrics().registry,
        live={"ping": lambda: None} if live is None else live,
        ready=ready or {},
        configuration=msgspec.to_builtins(Configuration()),
        routes={"/debug/cache-check": answer},
        authorize=authorize,
    )
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield Client(session)
    finally:
        await server.stop()


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz"])
async def test_health(path: str) -> None:
    trouble: str | None = None
    checks: dict[str, Check] = {"ping": lambda: None, "loop": lambda: trouble}
    async with serving(live=checks, ready=checks) as client:
        assert await client.get(path) == (200, "ok")
        name = path[1:]
        assert await client.get(f"{path}?verbose") == (
            200,
            f"[+]ping ok\n[+]loop ok\n{name} check passed\n",
        )
        trouble = "no turn for 61 s"
        expected = 500, f"[+]ping ok\n[-]loop failed: no turn for 61 s\n{name} check failed\n"
        assert await client.get(path) == expected
        assert await client.get(f"{path}?verbose") == expected


async def test_liveness_and_readiness_are_two_things() -> None:
    async with serving(ready={"pods-synced": lambda: "the watch of pods is not in sync"}) as client:
        assert (await client.get("/livez"))[0] == 200
        assert (await client.get("/readyz"))[0] == 500


async def test_metrics_parse() -> None:
    async with serving() as client:
        status, text = await client.get("/metrics")
    assert status == 200
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"scheduler_schedule_attempts", "process_cpu_seconds"} <= names


async def test_the_configuration_in_effect() -> None:
    async with serving() as client:
        status, text = await client.get("/configz")
    assert status == 200
    shown = msgspec.json.decode(text)["wholepod.io"]
    assert msgspec.convert(shown, Configuration) == Configuration()


async def test_further_routes_answer_with_json() -> None:
    async with serving() as client:
        status, text = await client.get("/debug/cache-check")
        assert (status, msgspec.json.decode(text)) == (200, {"consistent": True})
        assert (await client.get("/debug/nothing"))[0] == 404


async def test_all_but_health_is_asked_for() -> None:
    asked = []

    async def authorize(header: str, verb: str, path: str) -> tuple[int, str] | None:
        asked.append((header, verb, path))
        return None if path == "/configz" else (401, "who are you?") if verb == "get" else (403, "no")

    async with serving(authorize=authorize) as client:
        for path in ("/livez", "/healthz", "/readyz", "/readyz?verbose"):
            assert (await client.get(path))[0] == 200
        assert asked == []
        for path in ("/metrics", "/debug/cache-check", "/debug/log-level", "/debug/nothing", "/livez/"):
            assert await client.get(path) == (401, "who are you?\n")
        assert await client.put("/debug/log-level", "debug") == (403, "no\n")
        assert (await client.get("/configz"))[0] == 200
    assert asked[0] == ("", "get", "/metrics")
    assert asked[-2:] == [("", "put", "/debug/log-level"), ("", "get", "/configz")]


@pytest.fixture
def root_level() -> Iterator[int]:
    level = logging.getLogger().level
    yield level
    logging.getLogger().setLevel(level)


async def test_the_log_level_can_be_changed_while_running(root_level: int) -> None:
    async with serving() as client:
        assert await client.put("/debug/log-level", "debug\n") == (200, "debug\n")
        assert await client.get("/debug/log-level") == (200, "debug\n")
        assert logging.getLogger().level == logging.DEBUG
        status, text = await client.put("/debug/log-level", "loud")
        assert (status, text) == (400, "log level 'loud' is not one of debug, info, warning, error\n")
        assert await client.get("/debug/log-level") == (200, "debug\n")


async def test_a_port_that_is_taken() -> None:
    async with serving() as client:
        port = client._session._base_url.port  # type: ignore[union-attr]
        server = Server(registry=Metrics().registry, live={}, ready={}, configuration={}, routes={})
        assert port is not None
        with pytest.raises(OSError, match="in use"):
            await server.start("127.0.0.1", port)
        await server.stop()


async def test_open_connections_do_not_hold_up_the_end() -> None:
    async with asyncio.timeout(30):
        async with serving() as client:
            await client.get("/livez")
