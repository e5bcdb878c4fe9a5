"""The webhook over HTTP: a review in, a review out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from scheduler.controller.admission import Judge, Verdict
from scheduler.controller.webhook import PATH, Webhook
from scheduler.core.gangs.gang import GangPolicy

Json = dict[str, Any]


class Broken(Judge):
    def judge(self, *_: Any) -> Verdict:
        raise ValueError("a defect")


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str, reviews: list[tuple[str, str]]) -> None:
        self._session, self._url, self.reviews = session, url, reviews

    async def post(self, body: str) -> tuple[int, str]:
        async with self._session.post(self._url, data=body) as answer:
            return answer.status, await answer.text()

    async def review(self, kind: str, new: Json | None, old: Json | None = None) -> Json:
        request = {"uid": "7", "kind": {"group": "g", "version": "v", "kind": kind}, "operation": "CREATE"}
        body = {"kind": "AdmissionReview", "request": {**request, "object": new, "oldObject": old}}
        status, text = await self.post(json.dumps(body))
        assert status == 200, text
        answer: Json = json.loads(text)
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response: Json = answer["response"]
        assert response.pop("uid") == "7"
        return response


@asynccontextmanager
async def serving(judge: Judge | None = None) -> AsyncIterator[Client]:
    reviews: list[tuple[str, str]] = []
    app = web.Application()
    webhook = Webhook(
        judge or Judge({"wholepod": GangPolicy(profile="wholepod")}), on_review=lambda *r: reviews.append(r)
    )
    app.add_routes(webhook.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}", reviews)
    finally:
        await runner.cleanup()


def group(**annotations: str) -> Json:
    return {"metadata": {"name": "g", "annotations": {f"wholepod.io/{k}": v for k, v in annotations.items()}}}


async def test_answers() -> None:
    async with serving() as client:
        assert await client.review("PodGroup", group()) == {"allowed": True}
        refusal = await client.review("PodGroup", group(strategy="eager"))
        assert not refusal["allowed"]
        assert (refusal["status"]["code"], refusal["status"]["reason"]) == (422, "Invalid")
        assert "must be one of atomic" in refusal["status"]["message"]
        warned = await client.review("PodGroup", group(x="y"))
        assert warned["allowed"]
        assert len(warned["warnings"]) == 1
        assert client.reviews == [("PodGroup", "allowed"), ("PodGroup", "refused"), ("PodGroup", "warned")]


async def test_what_it_knows_nothing_of_is_allowed() -> None:
    async with serving() as client:
        assert await client.review("Deployment", {"metadata": {}}) == {"allowed": True}
        assert await client.review("Pod", None, {"metadata": {}}) == {"allowed": True}
        assert client.reviews == [("other", "allowed"), ("Pod", "allowed")]


async def test_a_defect_admits() -> None:
    async with serving(Broken({})) as client:
        assert await client.review("Pod", {"metadata": {}}) == {"allowed": True}


@pytest.mark.parametrize("body", ["", "{", "[]", '{"request": 3}', '{"request": {}}'])
async def test_what_is_no_review(body: str) -> None:
    async with serving() as client:
        status, text = await client.post(body)
        assert status == 400
        assert text.startswith("no AdmissionReview: ")
