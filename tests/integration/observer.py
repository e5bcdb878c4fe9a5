"""Eyes on the API server: a watch of the tests' own, so that a test waits for what happened, not for time.

It shares no code with the scheduler, or the two could be blind together.
"""

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar
from urllib.parse import urlencode

from tests.cluster import Api, ApiError
from tests.cluster.tls import TlsConnection
from tests.integration.harness import DEADLINE_S, Json

T = TypeVar("T")
_PAUSE_S = 0.05


class Server(Protocol):
    """An API server and one of its users: a ControlPlane is one, and so is whatever has these."""

    @property
    def api(self) -> Api: ...
    @property
    def server(self) -> str: ...
    @property
    def ca_file(self) -> Path: ...
    @property
    def token(self) -> str: ...


class Observer:
    """Follows a collection: `objects` holds its newest state by "namespace/name" (nodes: "name").

    When the API server goes away, it lists again.
    """

    def __init__(self, plane: Server, path: str, **selectors: str) -> None:
        self._plane, self._path, self._selectors = plane, path, selectors
        self._tls = ssl.create_default_context(cafile=str(plane.ca_file))
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._connection: TlsConnection | None = None
        self._thread = threading.Thread(target=self._run, name=f"observe {path}", daemon=True)
        self.objects: dict[str, Json] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def wait(
        self, holds: Callable[[Mapping[str, Json]], T | None], what: str, *, timeout_s: float = DEADLINE_S
    ) -> T:
        """The first true value of `holds(objects)`, asked again after every change."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (value := holds(self.objects)):
                assert self._changed.wait(max(0.0, deadline - time.monotonic())), f"not in time: {what}"
        return value

    def ask(self, about: Callable[[Mapping[str, Json]], T]) -> T:
        """`about(objects)` as things stand."""
        with self._changed:
            return about(self.objects)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow(self._list())
            except (OSError, http.client.HTTPException, ApiError, ValueError, AttributeError):
                # Whatever a dying server leaves half said (an AttributeError: http.client on a socket
                # that was shut down meanwhile).
                self._stop.wait(_PAUSE_S)

    def _list(self) -> str:
        answer = self._plane.api.get(self._path, **self._selectors)
        with self._changed:
            self.objects = {_key(item): item for item in answer["items"]}
            self._changed.notify_all()
        version: str = answer["metadata"]["resourceVersion"]
        return version

    def _follow(self, version: str) -> None:
        host, _, port = self._plane.server.removeprefix("https://").partition(":")
        query = {"watch": "true", "resourceVersion": version, **self._selectors}
        connection = TlsConnection(host, int(port), tls=self._tls, timeout_s=DEADLINE_S)
        self._connection = connection
        try:
            headers = {"Authorization": f"Bearer {self._plane.token}"}
            connection.request("GET", f"{self._path}?{urlencode(query)}", headers=headers)
            with connection.getresponse() as answer:
                for line in answer:
                    self._apply(json.loads(line))
        finally:
            connection.close()

    def _apply(self, event: Json) -> None:
        if event["type"] == "ERROR":
            raise ValueError(event["object"].get("message"))
        with self._changed:
            if event["type"] == "DELETED":
                self.objects.pop(_key(event["object"]), None)
            else:
                self.objects[_key(event["object"])] = event["object"]
            self._changed.notify_all()


def _key(item: Json) -> str:
    metadata = item["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else metadata["name"]


def node_of(pod: Json | None) -> str:
    """Where a pod is bound; "" if it is not, or is not there."""
    return pod["spec"].get("nodeName", "") if pod else ""


def bound(pods: Iterable[Json]) -> int:
    """How many have a node."""
    return sum(1 for pod in pods if node_of(pod))


def condition(pod: Json | None, kind: str) -> Json:
    """The pod's condition of a type; {} if it has none."""
    conditions = pod["status"].get("conditions", []) if pod else []
    return next((found for found in conditions if found["type"] == kind), {})
