"""A small API server on loopback, for the faults that a real one cannot be told to have.

It speaks real HTTP and keeps real state for pods, events, leases, volumes and claims: resourceVersions, uid
preconditions, a watch history that can be compacted, bookmarks, paged and streaming lists. A
`Fault` is played for the next request that it matches.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Store = dict[tuple[str, str], Json]


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD path" contains a match of `pattern`.

    With `status`, that answer is given; with `drop`, the connection is closed without one. Both
    come after the request was executed if `execute`, and after `delay_s`.
    """

    pattern: str
    times: int = 1
    status: int = 0
    reason: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    execute: bool = False
    delay_s: float = 0.0


@dataclass
class Watcher:
    """One open watch."""

    query: dict[str, str]
    lines: asyncio.Queue[bytes | None]
    transport: asyncio.Transport


class ApiServer:
    """`async with ApiServer().running():`."""

    def __init__(self) -> None:
        self.port = 0
        self.pods: dict[tuple[str, str], Json] = {}
        self.groups: Store = {}
        """Kubernetes' own PodGroups."""
        self.events: dict[tuple[str, str], Json] = {}
        self.leases: dict[tuple[str, str], Json] = {}
        self.config_maps: dict[tuple[str, str], Json] = {}
        self.volumes: dict[tuple[str, str], Json] = {}
        self.claims: dict[tuple[str, str], Json] = {}
        self.patches: list[Json] = []
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        self.watchers: list[Watcher] = []
        self.streaming_lists = True
        self.ends_streaming_lists = True
        self.page_limit: int | None = None
        self.executed: Callable[[str], None] = lambda line: None
        self.resource_version = 100
        self._history: list[tuple[int, bytes]] = []
        self._compacted = 0
        self._runner: web.AppRunner | None = None

    # Life.

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        """As if killed: open connections are cut."""
        self.cut_watches()
        assert self._runner is not None
        await self._runner.cleanup()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ApiServer"]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    # State.

    def add_pod(self, name: str, *, namespace: str = "default", uid: str = "", **spec: Any) -> Json:
        pod: Json = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": uid or str(uuid.uuid4())},
            "spec": spec,
            "status": {"phase": "Pending"},
        }
        self.pods[namespace, name] = pod
        self._changed("ADDED", pod)
        return pod

    def modify_pod(self, name: str, *, namespace: str = "default", **spec: Any) -> Json:
        pod: Json = json.loads(json.dumps(self.pods[namespace, name]))
        self.pods[namespace, name] = pod
        pod["spec"].update(spec)
        self._changed("MODIFIED", pod)
        return pod

    def delete_pod(self, name: str, *, namespace: str = "default") -> None:
        self._changed("DELETED", self.pods.pop((namespace, name)))

    def add_volume(self, name: str, **spec: Any) -> Json:
        return self._add(self.volumes, ("", name), {"name": name, "uid": f"uid-{name}"}, spec)

    def add_claim(self, name: str, *, namespace: str = "default", **spec: Any) -> Json:
        metadata = {"namespace": namespace, "name": name, "uid": f"uid-{name}"}
        return self._add(self.claims, (namespace, name), metadata, spec)

    def _add(self, store: Store, key: tuple[str, str], metadata: Json, spec: Json) -> Json:
        self.resource_version += 1
        obj = {"metadata": {**metadata, "resourceVersion": str(self.resource_version)}, "spec": spec}
        store[key] = obj
        return obj

    def touch(self, obj: Json, change: Json) -> None:
        """Somebody else changes it."""
        _merge(obj, change)
        self.resource_version += 1
        obj["metadata"]["resourceVersion"] = str(self.resource_version)

    def compact(self) -> None:
        """Forget the watch history: positions of before cannot be resumed."""
        self._history.clear()
        self._compacted = self.resource_version = self.resource_version + 1

    def send_raw(self, data: bytes) -> None:
        """To all watchers, as it is."""
        for watcher in self.watchers:
            watcher.lines.put_nowait(data)

    def send_event(self, type_: str, obj: Json) -> None:
        """To all watchers, past the history."""
        self.send_raw(_line(type_, obj))

    def send_bookmark(self, resource_version: int) -> None:
        self.send_event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(resource_version)}})

    def end_watches(self) -> None:
        """Properly, as after timeoutSeconds."""
        self.send_raw(b"")
        for watcher in self.watchers:
            watcher.lines.put_nowait(None)

    def cut_watches(self) -> None:
        for watcher in self.watchers:
            watcher.transport.abort()

    def fault(self, pattern: str, **how: Any) -> Fault:
        fault = Fault(pattern, **how)
        self.faults.append(fault)
        return fault

    def count(self, pattern: str) -> int:
        """Requests so far that match."""
        return sum(1 for line in self.requests if re.search(pattern, line))

    def _changed(self, type_: str, obj: Json) -> None:
        self.resource_version += 1
        obj["metadata"]["resourceVersion"] = str(self.resource_version)
        line = _line(type_, obj)
        self._history.append((self.resource_version, line))
        self.send_raw(line)

    # HTTP.

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path}"
        self.requests.append(line)
        self.queries.append(dict(request.query))
        self.authorizations.append(request.headers.get("Authorization", ""))
        body = await request.read()
        fault = self._take_fault(line)
        if fault is None:
            return await self._execute(request, line, body)
        if fault.execute:
            await self._execute(request, line, body)
        await asyncio.sleep(fault.delay_s)
        if fault.drop:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.status:
            return _status(fault.status, fault.reason, fault.message, headers=fault.headers)
        return await self._execute(request, line, body)

    def _take_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                fault.times -= 1
                return fault
        return None

    async def _execute(self, request: web.Request, line: str, body: bytes) -> web.StreamResponse:
        self.executed(line)
        parts = request.path.strip("/").split("/")
        match request.method, parts:
            case "GET", ["api", "v1", "pods"] if "watch" in request.query:
                return await self._watch(request)
            case "GET", ["api", "v1", "pods"]:
                return self._list(request)
            case "GET", ["api", "v1", "namespaces", namespace, "pods"]:
                return self._list(request, namespace)
            case "GET", ["api", "v1", "namespaces", namespace, "pods", name]:
                return _found(self.pods.get((namespace, name)))
            case "POST", ["api", "v1", "namespaces", namespace, "pods", name, "binding"]:
                return self._bind(namespace, name, json.loads(body))
            case "PATCH", ["api", "v1", "namespaces", namespace, "pods", name, "status"]:
                return self._patch(namespace, name, json.loads(body), request.content_type)
            case "PATCH", ["apis", _, _, "namespaces", namespace, "podgroups", name, "status"]:
                return self._patch_group(namespace, name, json.loads(body))
            case "DELETE", ["api", "v1", "namespaces", namespace, "pods", name]:
                return self._delete(namespace, name, json.loads(body))
            case "GET", ["api", "v1", "persistentvolumes", name]:
                return _found(self.volumes.get(("", name)))
            case "GET", ["api", "v1", "namespaces", namespace, "persistentvolumeclaims", name]:
                return _found(self.claims.get((namespace, name)))
            case "PATCH", ["api", "v1", "persistentvolumes", name]:
                return self._merge_patch(self.volumes, ("", name), json.loads(body), request)
            case "PATCH", ["api", "v1", "namespaces", namespace, "persistentvolumeclaims", name]:
                return self._merge_patch(self.claims, (namespace, name), json.loads(body), request)
            case "POST", ["api", "v1", "namespaces", namespace, "configmaps"]:
                return self._create(self.config_maps, namespace, json.loads(body))
            case "GET", ["api", "v1", "namespaces", namespace, "configmaps", name]:
                return _found(self.config_maps.get((namespace, name)))
            case "PUT", ["api", "v1", "namespaces", namespace, "configmaps", name]:
                return self._update(self.config_maps, (namespace, name), json.loads(body))
            case "POST", ["apis", "events.k8s.io", "v1", "namespaces", namespace, "events"]:
                return self._create(self.events, namespace, json.loads(body))
            case "POST", ["apis", "coordination.k8s.io", "v1", "namespaces", namespace, "leases"]:
                return self._create(self.leases, namespace, json.loads(body))
            case "GET", ["apis", "coordination.k8s.io", "v1", "namespaces", namespace, "leases", name]:
                return _found(self.leases.get((namespace, name)))
            case "PUT", ["apis", "coordination.k8s.io", "v1", "namespaces", namespace, "leases", name]:
                return self._update(self.leases, (namespace, name), json.loads(body))
        return _status(404, "NotFound", f"the server could not find {request.path}")

    def _bind(self, namespace: str, name: str, binding: Json) -> web.Response:
        pod = self.pods.get((namespace, name))
        if pod is None:
            return _status(404, "NotFound", f'pods "{name}" not found')
        if binding["metadata"].get("uid") not in (None, pod["metadata"]["uid"]):
            return _status(409, "Conflict", "Precondition failed: UID in precondition")
        if binding["metadata"].get("resourceVersion") not in (None, pod["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", "Precondition failed: ResourceVersion in precondition")
        if pod["metadata"].get("deletionTimestamp"):
            return _status(409, "Conflict", f"pod {name} is being deleted, cannot be assigned to a host")
        if pod["spec"].get("nodeName"):
            return _status(409, "Conflict", f"pod {name} is already assigned to node")
        if pod["spec"].get("schedulingGates"):
            return _status(409, "Conflict", f"pod {name} has non-empty .spec.schedulingGates")
        pod["metadata"].setdefault("annotations", {}).update(binding["metadata"].get("annotations", {}))
        self.modify_pod(name, namespace=namespace, nodeName=binding["target"]["name"])
        return _json({"kind": "Status", "status": "Success", "code": 201}, status=201)

    def _patch(self, namespace: str, name: str, patch: Json, content_type: str) -> web.Response:
        assert content_type == "application/strategic-merge-patch+json"
        pod = self.pods.get((namespace, name))
        if pod is None:
            return _status(404, "NotFound", f'pods "{name}" not found')
        if patch["metadata"]["uid"] != pod["metadata"]["uid"]:
            return _status(409, "Conflict", "Precondition failed: UID in precondition")
        if patch["metadata"].get("resourceVersion") not in (None, pod["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", "the object has been modified")
        pod["status"].update(patch["status"])
        pod = self.modify_pod(name, namespace=namespace)
        self.patches.append(patch)
        return _json(pod)

    def _patch_group(self, namespace: str, name: str, patch: Json) -> web.Response:
        """Conditions are merged by type, as far as a strategic merge patch names their fields."""
        group = self.groups.get((namespace, name))
        if group is None:
            return _status(404, "NotFound", f'podgroups.scheduling.k8s.io "{name}" not found')
        metadata = group["metadata"]
        if any(patch["metadata"].get(key) not in (None, metadata[key]) for key in ("uid", "resourceVersion")):
            return _status(409, "Conflict", "the object has been modified")
        conditions = group.setdefault("status", {}).setdefault("conditions", [])
        for new in patch["status"]["conditions"]:
            old = next((c for c in conditions if c["type"] == new["type"]), None)
            if old is None:
                conditions.append(new)
            else:
                old.update(new)
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        self.patches.append(patch)
        return _json(group)

    def _delete(self, namespace: str, name: str, options: Json) -> web.Response:
        pod = self.pods.get((namespace, name))
        if pod is None:
            return _status(404, "NotFound", f'pods "{name}" not found')
        if options["preconditions"]["uid"] != pod["metadata"]["uid"]:
            return _status(409, "Conflict", "Precondition failed: UID in precondition")
        if pod["spec"].get("terminationGracePeriodSeconds", 0):
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.modify_pod(name, namespace=namespace)
        else:
            self.delete_pod(name, namespace=namespace)
        return _json(pod)

    def _merge_patch(
        self, store: Store, key: tuple[str, str], patch: Json, request: web.Request
    ) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        obj = store.get(key)
        if obj is None:
            return _status(404, "NotFound", f'"{key[1]}" not found')
        for guard in ("uid", "resourceVersion"):
            if patch["metadata"].pop(guard) != obj["metadata"][guard]:
                return _status(409, "Conflict", "the object has been modified")
        self.touch(obj, patch)
        return _json(obj)

    def _create(self, store: Store, namespace: str, obj: Json) -> web.Response:
        key = (namespace, obj["metadata"]["name"])
        if key in store:
            return _status(409, "AlreadyExists", f'"{key[1]}" already exists')
        store[key] = obj
        self.resource_version += 1
        obj["metadata"]["resourceVersion"] = str(self.resource_version)
        return _json(obj, status=201)

    def _update(self, store: Store, key: tuple[str, str], obj: Json) -> web.Response:
        if key not in store:
            return _status(404, "NotFound", f'"{key[1]}" not found')
        if obj["metadata"]["resourceVersion"] != store[key]["metadata"]["resourceVersion"]:
            return _status(409, "Conflict", "the object has been modified")
        if obj == store[key]:
            return _json(obj)  # as in a real one, nothing is written then
        self.resource_version += 1
        obj["metadata"]["resourceVersion"] = str(self.resource_version)
        store[key] = obj
        return _json(obj)

    def _list(self, request: web.Request, namespace: str = "") -> web.Response:
        pods = [pod for (its, _), pod in self.pods.items() if namespace in ("", its)]
        field, _, value = request.query.get("fieldSelector", "").partition("=")
        if namespace and field == "status.phase":
            pods = [pod for pod in pods if pod["status"]["phase"] == value]
        start = int(request.query.get("continue", 0))
        limit = min(int(request.query.get("limit", 10**9)), self.page_limit or 10**9)
        if "limit" not in request.query:
            limit = len(pods) or 1
        metadata = {"resourceVersion": str(self.resource_version)}
        if start + limit < len(pods):
            metadata["continue"] = str(start + limit)
        return _json({"kind": "PodList", "metadata": metadata, "items": pods[start : start + limit]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        if request.query.get("sendInitialEvents"):
            if not self.streaming_lists:
                return _status(422, "Invalid", "sendInitialEvents is forbidden for watch")
            for pod in self.pods.values():
                lines.put_nowait(_line("ADDED", pod))
            metadata = {
                "resourceVersion": str(self.resource_version),
                "annotations": {"k8s.io/initial-events-end": "true"},
            }
            if self.ends_streaming_lists:
                lines.put_nowait(_line("BOOKMARK", {"kind": "Pod", "metadata": metadata}))
        else:
            since = int(request.query["resourceVersion"])
            if since < self._compacted:
                return _status(410, "Expired", f"too old resource version: {since}")
            for resource_version, line in self._history:
                if resource_version > since:
                    lines.put_nowait(line)
        response = web.StreamResponse()
        response.content_type = "application/json"
        response.enable_chunked_encoding()
        await response.prepare(request)
        assert request.transport is not None
        watcher = Watcher(dict(request.query), lines, request.transport)
        self.watchers.append(watcher)
        try:
            while (data := await lines.get()) is not None:
                if data:
                    await response.write(data)
        except ConnectionError:
            pass
        finally:
            self.watchers.remove(watcher)
        return response


def _merge(obj: Json, change: Json) -> None:
    """RFC 7386."""
    for key, value in change.items():
        if value is None:
            obj.pop(key, None)
        elif isinstance(value, dict):
            _merge(obj.setdefault(key, {}), value)
        else:
            obj[key] = value


def _line(type_: str, obj: Json) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode() + b"\n"


def _json(obj: Json, *, status: int = 200) -> web.Response:
    return web.json_response(obj, status=status)


def _found(obj: Json | None) -> web.Response:
    return _status(404, "NotFound", "not found") if obj is None else _json(obj)


def _status(status: int, reason: str, message: str, *, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": message}
    return web.json_response(body, status=status, headers=headers)
