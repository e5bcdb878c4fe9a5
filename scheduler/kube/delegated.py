"""Who may read metrics and change the log level: the API server says.

What kube-scheduler does, too (apiserver/pkg/server/options/authentication.go, authorization.go): a bearer
token is shown to the API server (TokenReview), and whoever it belongs to must be allowed to use the path
(SubjectAccessReview of a non-resource URL). So the rules live where all others do, in RBAC.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from scheduler.kube.client import KubeClient
from scheduler.kube.errors import KubeError

_TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
REMEMBERED_S = 10.0
"""An answer of the API server holds for so long, as in kube-scheduler: so does a right taken back."""
_REMEMBERED = 1024
"""Answers kept; a stranger who tries tokens can't make us keep more."""


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    """401: who are you; 403: you may not; 503: the API server could not be asked."""
    text: str


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)


class _TokenReview(msgspec.Struct):
    status: _TokenStatus = msgspec.field(default_factory=_TokenStatus)


class _AccessStatus(msgspec.Struct):
    allowed: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus = msgspec.field(default_factory=_AccessStatus)


class DelegatedAuthorizer:
    """`await authorizer(authorization, verb, path)`: None if the request may be answered."""

    def __init__(self, client: KubeClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._answers: dict[tuple[bytes, str, str], tuple[float, Refusal | None]] = {}

    async def __call__(self, authorization: str, verb: str, path: str) -> Refusal | None:
        """`authorization` is the header of this name, `verb` the method in lower case."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return Refusal(401, "a bearer token is needed: Authorization: Bearer TOKEN")
        # What is remembered must not be a secret.
        key = hashlib.sha256(token.strip().encode()).digest(), verb, path
        known = self._answers.get(key)
        if known is not None and known[0] > self._clock():
            return known[1]
        try:
            answer = await self._ask(token.strip(), verb, path)
        except (KubeError, msgspec.DecodeError) as error:
            return Refusal(503, f"the API server could not be asked who this is: {error}")
        self._answers.pop(key, None)
        while len(self._answers) >= _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = self._clock() + REMEMBERED_S, answer
        return answer

    async def _ask(self, token: str, verb: str, path: str) -> Refusal | None:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        answer = await self._client.request("POST", _TOKENS, body=msgspec.json.encode(body))
        who = msgspec.json.decode(answer.body, type=_TokenReview).status
        if not who.authenticated:
            return Refusal(401, "the API server does not know this token")
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": who.user.username,
                "uid": who.user.uid,
                "groups": who.user.groups or [],
                "extra": who.user.extra or {},
                "nonResourceAttributes": {"path": path, "verb": verb},
            },
        }
        answer = await self._client.request("POST", _ACCESS, body=msgspec.json.encode(body))
        if not msgspec.json.decode(answer.body, type=_AccessReview).status.allowed:
            return Refusal(403, f"{who.user.username} may not {verb} {path}")
        return None
