"""A plain client for the API server, for tests and benches: JSON in, JSON out, nothing hidden.

Tests must not look at the cluster through the code they test, so this client shares nothing with
`scheduler/kube`. It speaks HTTP through the standard library over a few kept connections, and bulk
creation spreads over a few threads: on small machines the API server is the slower side.
"""

import base64
import http.client
import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from tests.cluster.tls import TlsConnection

Json = dict[str, Any]

PAGE_SIZE = 1000
BULK_WORKERS = 16
IDLE_CONNECTION_S = 30.0  # well below the minutes after which the API server closes it

# Kind → (path prefix, plural, lives in a namespace): the kinds that tests create in bulk or by hand.
# For anything else there is `ControlPlane.kubectl("apply", …)`.
RESOURCES: Mapping[str, tuple[str, str, bool]] = {
    "CSINode": ("/apis/storage.k8s.io/v1", "csinodes", False),
    "ConfigMap": ("/api/v1", "configmaps", True),
    "Deployment": ("/apis/apps/v1", "deployments", True),
    "Namespace": ("/api/v1", "namespaces", False),
    "Node": ("/api/v1", "nodes", False),
    "PersistentVolume": ("/api/v1", "persistentvolumes", False),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims", True),
    "Pod": ("/api/v1", "pods", True),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets", True),
    "PodGroup": ("/apis/scheduling.k8s.io/v1beta1", "podgroups", True),
    "PriorityClass": ("/apis/scheduling.k8s.io/v1", "priorityclasses", False),
    "Service": ("/api/v1", "services", True),
    "StorageClass": ("/apis/storage.k8s.io/v1", "storageclasses", False),
}


class ApiError(Exception):
    """The API server answered with an error: `status` is the HTTP code, `reason` the machine's word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class Api:
    """One user's view of one API server. Threads may share it; close it after use."""

    def __init__(self, server: str, *, ca_pem: str, token: str, timeout_s: float = 60.0) -> None:
        address = urlsplit(server)
        assert address.hostname is not None
        self._host = address.hostname
        self._port = address.port
        self._tls = ssl.create_default_context(cadata=ca_pem)
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._timeout_s = timeout_s
        # Idle connections and since when, the last used on top. A deque's append and pop are atomic.
        self._idle: deque[tuple[TlsConnection, float]] = deque()

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """The client of a kubeconfig that this package has written (those are JSON)."""
        config = json.loads(path.read_text())
        cluster = config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return cls(cluster["server"], ca_pem=authority, token=config["users"][0]["user"]["token"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; the client stays usable."""
        while self._idle:
            self._idle.pop()[0].close()

    def text(self, path: str) -> str:
        """GET anything that is not JSON (`/metrics`, `/readyz?verbose`)."""
        return self._request("GET", path).decode()

    def get(self, path: str, **params: str) -> Json:
        """GET an object or a list."""
        return _decode(self._request("GET", path, params=params))

    def post(self, path: str, body: Json) -> Json:
        """POST to a collection or a subresource (`…/binding`, `…/eviction`)."""
        return _decode(self._request("POST", path, body=body))

    def put(self, path: str, body: Json) -> Json:
        """PUT a whole object."""
        return _decode(self._request("PUT", path, body=body))

    def patch(self, path: str, body: Json, *, content_type: str = "application/merge-patch+json") -> Json:
        """PATCH an object or its `/status`; a JSON merge patch unless told otherwise."""
        return _decode(self._request("PATCH", path, body=body, content_type=content_type))

    def delete(self, path: str, **params: str) -> Json:
        """DELETE an object, or a whole collection; `gracePeriodSeconds="0"` removes a pod at once."""
        return _decode(self._request("DELETE", path, params=params))

    def create(self, manifest: Json) -> Json:
        """Create an object where its kind and namespace say; returns it as stored."""
        return self.post(collection_of(manifest), manifest)

    def create_many(
        self,
        manifests: Iterable[Json],
        *,
        workers: int = BULK_WORKERS,
        on_created: Callable[[], None] = lambda: None,
    ) -> None:
        """Create many objects, `workers` at a time; their order of creation is only roughly kept.

        `on_created` is called once for each, from the caller's thread. The first error is raised after
        the requests that were under way have ended.
        """
        with ThreadPoolExecutor(workers, thread_name_prefix="create") as pool:
            try:
                for _ in pool.map(self.create, manifests):
                    on_created()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def items(self, path: str, **params: str) -> Iterator[Json]:
        """All objects of a collection, page by page; `fieldSelector` and `labelSelector` work as usual."""
        query = {"limit": str(PAGE_SIZE), **params}
        while True:
            page = self.get(path, **query)
            yield from page["items"]
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    def count(self, path: str, **params: str) -> int:
        """How many objects a collection has; without a selector it costs one small request."""
        if params:
            return sum(1 for _ in self.items(path, **params))
        page = self.get(path, limit="1")
        return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        target = f"{path}?{urlencode(params)}" if params else path
        headers = {**self._headers, "Content-Type": content_type} if body is not None else self._headers
        payload = None if body is None else json.dumps(body).encode()
        try:
            status, answer = self._exchange(method, target, payload, headers)
        except (OSError, http.client.HTTPException):
            # The server may have restarted since the connection was made. Only a read is safe to repeat.
            if method != "GET":
                raise
            self.close()
            status, answer = self._exchange(method, target, payload, headers)
        if status >= 400:
            raise _error(status, answer)
        return answer

    def _exchange(
        self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, target, body=payload, headers=headers)
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append((connection, time.monotonic()))
        return response.status, answer

    def _connection(self) -> TlsConnection:
        """An idle one that the server has not closed yet, or a new one."""
        try:
            connection, since = self._idle.pop()
            if time.monotonic() - since < IDLE_CONNECTION_S:
                return connection
            connection.close()
        except IndexError:
            pass
        return TlsConnection(self._host, self._port, tls=self._tls, timeout_s=self._timeout_s)


def collection_of(manifest: Json) -> str:
    """The path of the collection that a manifest belongs to."""
    prefix, plural, namespaced = RESOURCES[manifest["kind"]]
    if not namespaced:
        return f"{prefix}/{plural}"
    return f"{prefix}/namespaces/{manifest['metadata'].get('namespace', 'default')}/{plural}"


def node_manifest(
    name: str,
    *,
    cpu: str = "4",
    memory: str = "32Gi",
    pods: int = 110,
    labels: Mapping[str, str] | None = None,
    taints: Iterable[Mapping[str, str]] = (),
    **resources: str,
) -> Json:
    """A node that is Ready from the start; `resources` are further ones ({"nvidia.com/gpu": "8"})."""
    room = {"cpu": cpu, "memory": memory, "pods": str(pods), **resources}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"taints": [dict(taint) for taint in taints]},
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [
                {"type": "InternalIP", "address": "10.1.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}],
        },
    }


def pod_manifest(
    name: str,
    requests: Mapping[str, str],
    *,
    namespace: str = "default",
    scheduler_name: str = "wholepod",
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """A pod of one container with these requests; `spec` adds to the pod's spec or replaces parts of it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": {
            "schedulerName": scheduler_name,
            "containers": [
                {
                    "name": "main",
                    "image": "pause",
                    "resources": {"requests": dict(requests)},
                }
            ],
            **spec,
        },
    }


def _decode(answer: bytes) -> Json:
    value: Json = json.loads(answer)
    return value


def _error(status: int, answer: bytes) -> ApiError:
    # Authentication and overload are refused in plain text, everything else as a Status object.
    try:
        fault = json.loads(answer)
    except ValueError:
        reason = http.client.responses.get(status, "")
        return ApiError(status, reason, answer.decode(errors="replace").strip())
    return ApiError(status, fault.get("reason", ""), fault.get("message", ""))
