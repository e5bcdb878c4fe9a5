"""A kube-scheduler that asks `wholepod extender`, and a listener between the two."""

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.cluster import ControlPlane
from tests.cluster.ports import free_port
from tests.integration.harness import DEADLINE_S, Json, Scheduler

NO_SCORES = {
    "profiles": [
        {
            "schedulerName": "default-scheduler",
            "plugins": {"score": {"disabled": [{"name": "*"}]}},
        }
    ],
    "percentageOfNodesToScore": 100,
}
"""Of kube-scheduler: what is left to choose by is what the extender says."""


class Extender(Scheduler):
    """The same for `wholepod extender …`; it has one address for all its lives."""

    subcommand = "extender"

    def __init__(self, *flags: str, kubeconfig: Path, log: Path, scheme: str = "http") -> None:
        port = free_port()
        self.extender_url = f"{scheme}://127.0.0.1:{port}"
        quick = ("--kube-api-qps=5000", "--kube-api-burst=5000", "--log-format=json")
        super().__init__(f"--address=127.0.0.1:{port}", *quick, *flags, kubeconfig=kubeconfig, log=log)


def priority_class(value: int) -> Json:
    """Named after its value."""
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    return {**kind, "metadata": {"name": f"extender-{value}"}, "value": value}


def asking(url: str, **fields: Any) -> Json:
    """An entry of `extenders` in kube-scheduler's configuration that uses all verbs."""
    return {
        "urlPrefix": url,
        "filterVerb": "filter",
        "prioritizeVerb": "prioritize",
        "preemptVerb": "preempt",
        "bindVerb": "bind",
        "weight": 1,
        "nodeCacheCapable": True,
        "httpTimeout": "5s",
        **fields,
    }


def start_kube_scheduler(plane: ControlPlane, extender: Json, **settings: Any) -> None:
    """One that asks this extender, and has no scores of its own."""
    fields = {**NO_SCORES, "extenders": [extender], **settings}
    plane.start_scheduler(qps=5000, burst=5000, settings=fields)


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, as bytes."""

    verb: str
    request: bytes
    status: int
    answer: bytes

    @property
    def asked(self) -> Json:
        value: Json = json.loads(self.request)
        return value

    @property
    def answered(self) -> Any:
        return json.loads(self.answer)


class Recorder:
    """Passes requests on to an extender and keeps what was said, in the order of the answers."""

    def __init__(self, target: str) -> None:
        self.exchanges: list[Exchange] = []
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def of(self, verb: str) -> list[Exchange]:
        return [exchange for exchange in list(self.exchanges) if exchange.verb == verb]

    async def _start(self) -> None:
        self._session = ClientSession(timeout=ClientTimeout(total=DEADLINE_S))
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/{verb}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        verb, body = request.match_info["verb"], await request.read()
        headers: Mapping[str, str] = {"Content-Type": request.headers["Content-Type"]}
        try:
            async with self._session.post(f"{self._target}/{verb}", data=body, headers=headers) as answer:
                content = await answer.read()
        except ClientError:  # nobody is there: kube-scheduler is to see just that
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=502)
        self.exchanges.append(Exchange(verb, body, answer.status, content))
        return web.Response(status=answer.status, body=content, content_type=answer.content_type)
