"""A thin HTTP client for the API server: bytes in, bytes out.

Authentication, proxies and TLS come from `kubernetes.aio` (see `credentials`); requests go
straight to an aiohttp session. Two requests a pod are our whole cost at the API, so this path is
kept short: prepared headers, no cookie jar, and the environment's proxy looked up once. A small
POST costs 0.11 ms of CPU over TLS, a third of what the library's own session takes.

There are no retries in here: whether a request may be sent again depends on what it does, which
the caller knows. (aiohttp itself repeats an idempotent request, never a POST or PATCH, when a
kept-alive connection turns out to be closed.) There is no compression either: we sit next to the
API server, where gzip costs it more than the bytes do.
"""

import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
import structlog
from multidict import CIMultiDict
from yarl import URL

from scheduler.kube.credentials import Access, load_access
from scheduler.kube.errors import (
    ApiError,
    ErrorKind,
    OutcomeUnknown,
    TransportError,
    Unreachable,
    error_from_answer,
)

log = structlog.get_logger(__name__)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"

_REFRESH_PERIOD_S = 60.0
_CONNECT_TIMEOUT_S = 10.0
# Go's server closes idle connections after 3 minutes or more; we must be the one who closes first,
# or a request meets a closing connection and its outcome is unknown.
_KEEPALIVE_S = 60.0
_READ_BUFFER_BYTES = 2**20
UNACKNOWLEDGED_S = 45.0

OnRequest = Callable[[str, str, float], None]
"""verb (the HTTP method), code ("201", or "<error>" without an answer), seconds: the labels of client-go."""


class Response(NamedTuple):
    """A successful answer (2xx)."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ByteStream:
    """The body of a watch, as it arrives."""

    def __init__(
        self, response: aiohttp.ClientResponse, translate: Callable[[Exception], TransportError]
    ) -> None:
        self._response = response
        self._translate = translate

    async def read(self) -> bytes:
        """All bytes there are, at least one; b"" at the end. Raises `OutcomeUnknown` when cut."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._translate(error) from error

    def close(self) -> None:
        """Drop the connection; a read under way raises."""
        self._response.close()


class KubeClient:
    """Requests to one API server; belongs to the event loop that made it.

    `connections` bounds the sockets, those of the watches included. What was sent and is not acknowledged
    within `unacknowledged_s` is not sent any more, not even after this process has ended (Linux): a network
    that comes back must not deliver what another process has to do by then.
    """

    def __init__(
        self,
        access: Access,
        *,
        connections: int = 128,
        user_agent: str = "wholepod",
        unacknowledged_s: float = UNACKNOWLEDGED_S,
        on_request: OnRequest | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = access.server
        self._access = access
        self._user_agent = user_agent
        self._on_request = on_request
        self._clock = clock
        self._refresh_at = clock() + _REFRESH_PERIOD_S
        self._headers: dict[str, CIMultiDict[str]] = {}
        self._options: dict[str, Any] = {"allow_redirects": False}
        if access.proxy:
            self._options["proxy"] = access.proxy
        if access.server_hostname:
            self._options["server_hostname"] = access.server_hostname
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=access.ssl_context,
                limit=connections,
                keepalive_timeout=_KEEPALIVE_S,
                socket_factory=partial(_watchful_socket, unacknowledged_s=unacknowledged_s),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            read_bufsize=_READ_BUFFER_BYTES,
        )

    @classmethod
    @asynccontextmanager
    async def from_config(
        cls,
        kubeconfig: Path | None = None,
        *,
        connections: int = 128,
        user_agent: str = "wholepod",
        unacknowledged_s: float = UNACKNOWLEDGED_S,
        on_request: OnRequest | None = None,
    ) -> AsyncIterator["KubeClient"]:
        """`async with KubeClient.from_config(path) as client:`; raises `ConfigError`."""
        access = await load_access(kubeconfig)
        client = cls(
            access,
            connections=connections,
            user_agent=user_agent,
            unacknowledged_s=unacknowledged_s,
            on_request=on_request,
        )
        try:
            yield client
        finally:
            await client.close()

    async def close(self) -> None:
        """Close all connections; open watches end."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        timeout_s: float = 30.0,
    ) -> Response:
        """One request, one answer. Raises `ApiError`, `Unreachable` or `OutcomeUnknown`.

        `path` starts with "/" and holds only characters that need no escaping, as names of
        Kubernetes objects do; values in `query` are escaped here.
        """
        started = self._clock()
        if started >= self._refresh_at:
            await self._refresh(started)
        code = "<error>"
        try:
            async with self._session.request(
                method,
                self._url(path, query),
                data=body,
                headers=self._headers.get(content_type) or self._headers_for(content_type),
                timeout=_timeout(timeout_s),
                **self._options,
            ) as response:
                answer = Response(response.status, response.headers, await response.read())
            code = str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._transport_error(error) from error
        finally:
            if self._on_request is not None:
                self._on_request(method, code, self._clock() - started)
        if answer.status >= 300:
            raise self._api_error(answer.status, answer.body, answer.headers, method=method, path=path)
        return answer

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], total_timeout_s: float, idle_timeout_s: float
    ) -> AsyncIterator[ByteStream]:
        """GET an endless body. Raises as `request` does; silence of `idle_timeout_s` is a lost connection."""
        started = self._clock()
        if started >= self._refresh_at:
            await self._refresh(started)
        timeout = aiohttp.ClientTimeout(
            total=total_timeout_s, sock_connect=_CONNECT_TIMEOUT_S, sock_read=idle_timeout_s
        )
        code, refusal = "<error>", None
        try:
            response = await self._session.get(
                self._url(path, query),
                headers=self._headers.get(JSON) or self._headers_for(JSON),
                timeout=timeout,
                **self._options,
            )
            code = str(response.status)
            if response.status >= 300:
                refusal = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._transport_error(error) from error
        finally:
            if self._on_request is not None:
                self._on_request("GET", code, self._clock() - started)
        if refusal is not None:
            target = f"{path}?{urlencode(query)}"
            raise self._api_error(response.status, refusal, response.headers, method="GET", path=target)
        try:
            yield ByteStream(response, self._transport_error)
        finally:
            response.close()

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        return _parsed(f"{self.server}{path}?{urlencode(query)}" if query else self.server + path)

    def _headers_for(self, content_type: str) -> CIMultiDict[str]:
        headers = CIMultiDict(
            {
                "Accept": JSON,
                "Accept-Encoding": "identity",
                "Content-Type": content_type,
                "User-Agent": self._user_agent,
            }
        )
        if self._access.authorization:
            headers["Authorization"] = self._access.authorization
        self._headers[content_type] = headers
        return headers

    async def _refresh(self, now: float) -> None:
        self._refresh_at = now + _REFRESH_PERIOD_S  # first, so that one request refreshes and not all
        before = self._access.authorization
        await self._access.refresh()
        if self._access.authorization != before:
            self._headers.clear()

    def _api_error(
        self, status: int, body: bytes, headers: Mapping[str, str], *, method: str, path: str
    ) -> ApiError:
        error = error_from_answer(status, body, headers, method=method, path=path)
        if error.kind is ErrorKind.UNAUTHORIZED:
            # A rotated token may be waiting in its file; but it is not looked for at each rejection.
            self._refresh_at = min(self._refresh_at, self._clock() + 1.0)
        return error

    def _transport_error(self, error: Exception) -> TransportError:
        match error:
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
                return Unreachable(
                    f"cannot trust the API server at {self.server}: {_cause(error)}; "
                    "does `certificate-authority` in the kubeconfig belong to it?"
                )
            case aiohttp.ClientConnectorDNSError():
                return Unreachable(
                    f"cannot reach the API server at {self.server}: {_cause(error)}; "
                    "is the host name of the kubeconfig's `server` right?"
                )
            case (
                aiohttp.ClientConnectorError()
                | aiohttp.ConnectionTimeoutError()
                | aiohttp.ClientHttpProxyError()
            ):
                return Unreachable(
                    f"cannot reach the API server at {self.server}: {_cause(error)}; "
                    "is the server up and the kubeconfig's `server` right?"
                )
            case TimeoutError():
                return OutcomeUnknown(f"the API server at {self.server} did not answer in time")
            case _:
                return OutcomeUnknown(f"connection to the API server at {self.server} lost: {_cause(error)}")


def _cause(error: Exception) -> str:
    os_error = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    if isinstance(os_error, ssl.SSLCertVerificationError):
        return os_error.verify_message
    if isinstance(os_error, ssl.SSLError):  # its errno is OpenSSL's
        return os_error.reason or str(os_error)
    if isinstance(os_error, OSError) and os_error.errno is not None and os_error.errno > 0:
        return os.strerror(os_error.errno).lower()
    return str(error) or type(error).__name__


def _watchful_socket(address: tuple[Any, ...], *, unacknowledged_s: float) -> socket.socket:
    """A socket that notices a vanished peer within 45 s, as client-go's HTTP/2 pings do."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux has all, macOS some
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unacknowledged_s * 1000))
    return sock


@lru_cache(maxsize=64)
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, sock_connect=min(_CONNECT_TIMEOUT_S, total_s))


@lru_cache(maxsize=1024)
def _parsed(url: str) -> URL:
    """Events of one namespace all go to one address."""
    return URL(url, encoded=True)
