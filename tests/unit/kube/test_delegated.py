"""Whether who asks may: as the API server says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scheduler.kube.delegated import REMEMBERED_S, DelegatedAuthorizer
from tests.builders import Clock
from tests.unit.answers import client_of

TOKENS = "POST /apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews"


class ApiServer:
    """Knows the token `good`, and says `allowed` about everything."""

    def __init__(self) -> None:
        self.allowed = True
        self.tokens: list[str] = []
        self.asked: list[dict[str, Any]] = []

    def token(self, request: Any, body: Any) -> Any:
        self.tokens.append(body["spec"]["token"])
        if body["spec"]["token"] != "good":
            return {"status": {"authenticated": False, "error": "unknown"}}
        user = {"username": "ann", "uid": "7", "groups": ["ops"], "extra": {"scope": ["a", "b"]}}
        return {"status": {"authenticated": True, "user": user}}

    def access(self, request: Any, body: Any) -> Any:
        self.asked.append(body["spec"])
        return {"status": {"allowed": self.allowed}}

    @property
    def answers(self) -> dict[str, Any]:
        return {TOKENS: self.token, ACCESS: self.access}


async def test_who_may_is_answered(tmp_path: Path) -> None:
    api = ApiServer()
    async with client_of(tmp_path, api.answers) as client:
        assert await DelegatedAuthorizer(client)("Bearer good", "get", "/metrics") is None
    assert api.asked == [
        {
            "user": "ann",
            "uid": "7",
            "groups": ["ops"],
            "extra": {"scope": ["a", "b"]},
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
    ]


async def test_who_may_not_is_told_so(tmp_path: Path) -> None:
    api = ApiServer()
    api.allowed = False
    async with client_of(tmp_path, api.answers) as client:
        authorizer = DelegatedAuthorizer(client)
        assert await authorizer("bearer good", "put", "/debug/log-level") == (
            403,
            "ann may not put /debug/log-level",
        )
        assert await authorizer("Bearer bad", "get", "/metrics") == (
            401,
            "the API server does not know this token",
        )
        for header in ("", "Basic Z29vZA==", "Bearer ", "Bearer"):
            refusal = await authorizer(header, "get", "/metrics")
            assert refusal is not None
            assert refusal.status == 401
    assert api.tokens == ["good", "bad"]


async def test_answers_are_remembered_for_a_while(tmp_path: Path) -> None:
    api, clock = ApiServer(), Clock()
    async with client_of(tmp_path, api.answers) as client:
        authorizer = DelegatedAuthorizer(client, clock=clock)
        assert await authorizer("Bearer good", "get", "/metrics") is None
        api.allowed = False
        assert await authorizer("Bearer good", "get", "/metrics") is None
        assert await authorizer("Bearer good", "get", "/configz") is not None  # a right for one path
        clock.advance(REMEMBERED_S)
        assert await authorizer("Bearer good", "get", "/metrics") is not None
    assert len(api.tokens) == 3


async def test_without_an_answer_nobody_is_let_in_and_nothing_is_remembered(tmp_path: Path) -> None:
    api = ApiServer()
    broken: dict[str, Any] = {TOKENS: lambda request, body: "nonsense", ACCESS: api.access}
    async with client_of(tmp_path, broken) as client:
        authorizer = DelegatedAuthorizer(client)
        refusal = await authorizer("Bearer good", "get", "/metrics")
        assert refusal is not None
        assert refusal.status == 503
        broken[TOKENS] = api.token
        assert await authorizer("Bearer good", "get", "/metrics") is None


async def test_strangers_do_not_fill_the_memory(tmp_path: Path) -> None:
    api = ApiServer()
    async with client_of(tmp_path, api.answers) as client:
        authorizer = DelegatedAuthorizer(client)
        for i in range(1100):
            await authorizer(f"Bearer {i}", "get", "/metrics")
        assert len(authorizer._answers) == 1024
