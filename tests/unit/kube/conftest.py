"""An API server with scripted faults and a client of it, for each test anew."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from scheduler.kube.client import KubeClient
from scheduler.kube.writer import WriterLimits
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.writing import Start, Writing

# pytest-asyncio asks for the current loop before it sets its own. Without this line that makes a
# loop (Python < 3.14) which nobody closes, and a ResourceWarning in whatever test is next.
asyncio.set_event_loop(None)


def write_kubeconfig(path: Path, server: str, **user: object) -> Path:
    """A kubeconfig with one context."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest_asyncio.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer().running() as server:
        yield server


@pytest.fixture
def kubeconfig(api: ApiServer, tmp_path: Path) -> Path:
    return write_kubeconfig(tmp_path / "kubeconfig", api.url, token="secret")


@pytest_asyncio.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_config(kubeconfig) as kube_client:
        yield kube_client


Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """`await until(lambda: condition)`: the test fails by name of the condition, not by hanging."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  (conditions here have no event of their own)
                await asyncio.sleep(0.002)

    return wait


@pytest_asyncio.fixture
async def start(client: KubeClient) -> AsyncIterator[Start]:
    """Makes writers at work, `start(**limits)`, and ends them."""
    running: list[Writing] = []

    def start_one(**limits: Any) -> Writing:
        running.append(Writing(client, WriterLimits(**({"qps": 100_000.0, "burst": 1000} | limits))))
        return running[-1]

    yield start_one
    for writing in running:
        await writing.stop()
