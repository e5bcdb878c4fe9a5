"""The validating webhook: an HTTPS endpoint that the API server asks about new and changed objects.

Served here and not by kopf, for three reasons: it answers while the API server can't be read; a certificate
that is being replaced, and for a moment does not match its key, ends nothing; and no object that is asked
about leaves anything in memory. Whatever happens, the answer to a review is a review: an object that can't be
judged is allowed, as if nobody had been asked.

Protocol: k8s.io/api admission/v1 (AdmissionReview).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from scheduler.api import ApiStruct
from scheduler.controller.admission import KINDS, Judge, Verdict
from scheduler.observe.tls import Certificate

log = structlog.get_logger(__name__)

PATH = "/validate"
REFUSED = 422
_BODY_LIMIT_BYTES = 8 * 2**20
"""Two objects of at most 1.5 MiB, as JSON of any indentation."""


class _Kind(ApiStruct):
    kind: str = ""


class _Request(ApiStruct):
    uid: str
    kind: _Kind
    operation: str = ""
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None


class _Review(ApiStruct):
    request: _Request


class Webhook:
    """`on_review(kind, answer)` is told of each: "allowed", "warned" or "refused"."""

    def __init__(self, judge: Judge, *, on_review: Callable[[str, str], None]) -> None:
        self._judge, self._on_review = judge, on_review

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            review = msgspec.json.decode(await request.read(), type=_Review)
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=f"no AdmissionReview: {error}\n")
        asked = review.request
        verdict = self._verdict(asked)
        answer: dict[str, Any] = {"uid": asked.uid, "allowed": not verdict.faults}
        if verdict.faults:
            answer["status"] = {"code": REFUSED, "reason": "Invalid", "message": "; ".join(verdict.faults)}
        if verdict.warnings:
            answer["warnings"] = [text.replace("\n", " ") for text in verdict.warnings]
        kind = asked.kind.kind if asked.kind.kind in KINDS else "other"
        self._on_review(kind, "refused" if verdict.faults else "warned" if verdict.warnings else "allowed")
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    def _verdict(self, asked: _Request) -> Verdict:
        if asked.object is None or asked.kind.kind not in KINDS:
            return Verdict()
        try:
            return self._judge.judge(asked.kind.kind, asked.object, asked.old_object)
        except Exception:
            log.exception("a defect of the controller: an object was admitted unjudged", kind=asked.kind.kind)
            return Verdict()


class WebhookServer:
    """Serves a webhook over TLS."""

    def __init__(self, webhook: Webhook, certificate: Certificate) -> None:
        app = web.Application(client_max_size=_BODY_LIMIT_BYTES)
        app.add_routes(webhook.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        self._certificate = certificate

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port. Raises OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._certificate.context).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Answers what has been asked, for 2 s at most."""
        await self._runner.cleanup()
