"""The HTTP side: POST /filter, /prioritize, /preempt and /bind, each answering within kube-scheduler's time.

kube-scheduler takes any status but 200 for a failure, and shows only its number. So what is said to it goes
into the answer's `Error` where the verb has one: filter and bind. The other two have none: prioritize and
preempt answer 503 while the caches are not in sync, which costs a pod its scores, or a preemption. A request
that is not what the protocol says gets a 4xx, with the reason as text.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

from scheduler.extender.metrics import Metrics
from scheduler.extender.wire import WireError

log = structlog.get_logger(__name__)

ANSWERED, REFUSED, MALFORMED, UNAVAILABLE = "answered", "refused", "malformed", "unavailable"
Answer = Callable[[bytes], Awaitable[tuple[str, bytes]]]
"""From a request's body to (outcome, the answer's). Raises WireError, or Unavailable."""


class NoAnswer(Exception):
    """To a verb whose answer has no `Error`: there is none for this pod; the text says why."""


class Unavailable(Exception):
    """Nothing can be said for now; the text says why."""


class ExtenderServer:
    """`answers`: by verb. `read_timeout_s`: for a request to arrive."""

    def __init__(
        self,
        answers: dict[str, Answer],
        metrics: Metrics,
        *,
        max_request_bytes: int,
        read_timeout_s: float,
        openapi: bytes,
    ) -> None:
        self._metrics, self._read_timeout_s = metrics, read_timeout_s
        app = web.Application(client_max_size=max_request_bytes)
        for verb, answer in answers.items():
            app.router.add_post(f"/{verb}", self._handler(verb, answer))
        app.router.add_get(
            "/openapi.json",
            _constant(openapi),
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listens; returns the port. Raises OSError when it can't."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Answers what has been asked, for 2 s at most."""
        await self._runner.cleanup()

    def _handler(self, verb: str, answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        duration = self._metrics.duration.labels(verb)

        async def handle(request: web.Request) -> web.Response:
            begun = time.perf_counter()
            outcome, response = await self._respond(verb, answer, request)
            self._metrics.requests.labels(verb, outcome).inc()
            duration.observe(time.perf_counter() - begun)
            return response

        return handle

    async def _respond(self, verb: str, answer: Answer, request: web.Request) -> tuple[str, web.Response]:
        try:
            async with asyncio.timeout(self._read_timeout_s):
                body = await request.read()
            outcome, content = await answer(body)
            return outcome, web.Response(body=content, content_type="application/json")
        except WireError as error:
            return MALFORMED, _text(400, str(error))
        except TimeoutError:
            return MALFORMED, _text(408, f"the request did not arrive within {self._read_timeout_s:g} s")
        except web.HTTPException as error:  # larger than allowed, or cut off
            return MALFORMED, _text(error.status, error.reason or "")
        except web.RequestPayloadError as error:  # an encoding that the body does not have
            return MALFORMED, _text(400, str(error))
        except NoAnswer as error:
            return REFUSED, _text(422, str(error))
        except Unavailable as error:
            return UNAVAILABLE, _text(503, str(error))
        except Exception as error:
            log.exception("a defect of the extender: a request was not answered", verb=verb)
            return REFUSED, _text(500, f"{type(error).__name__}: {error}")


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n".encode("utf-8", "replace").decode())


def _constant(body: bytes) -> Callable[[web.Request], Awaitable[Any]]:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return handler
