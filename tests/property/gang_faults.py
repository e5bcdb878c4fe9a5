"""The faults of the gangs' world: where they strike, and what a process's connection makes of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

from scheduler.kube.client import JSON, Response
from scheduler.kube.errors import ApiError, OutcomeUnknown, Unreachable

if TYPE_CHECKING:
    from tests.property.gang_world import Process

POINTS = (
    "PLANNED",
    "INTENT_SENT",
    "INTENT_DURABLE",
    "BIND_SENT",
    "BIND_FIRST",
    "BIND_QUORUM_LESS_1",
    "BIND_ANSWER_LOST",
    "BIND_REFUSED",
    "QUORUM",
    "CONDITION_WRITTEN",
    "INTENT_REMOVED",
    "COMP_RECORDED",
    "COMP_PARTIAL",
    "COMP_DONE",
    "LEASE_TAKEN",
    "EPOCH_BUMPED",
    "FENCED",
)
WAYS = ("kill", "freeze", "outage", "answer lost", "request lost", "executed late")


COMPENSATED = ("BIND_REFUSED", "COMP_RECORDED", "COMP_PARTIAL", "COMP_DONE")
"""Points that only gangs come to that can't be completed."""


@dataclass(frozen=True)
class Fault:
    """At the `nth` time that this point is passed."""

    point: str
    way: str
    nth: int = 1


def faults_for(point: str, way: str) -> list[Fault]:
    """A fault at this point, after those without which nobody comes to it."""
    if point == "LEASE_TAKEN" or point == "EPOCH_BUMPED":
        return [Fault("BIND_FIRST", "kill"), Fault(point, way, nth=2)]
    if point == "FENCED":
        return [Fault("BIND_FIRST", "freeze"), Fault(point, way)]
    return [Fault(point, way)]


class Client:
    """A process's connection to the API server: `KubeClient.request`, and the faults."""

    def __init__(self, process: Process) -> None:
        self._process, self._world = process, process.world

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        world, process = self._world, self._process
        await process.while_frozen()
        await asyncio.sleep(world.rng.uniform(0.001, 0.01))
        if world.now() < world.down_until:
            raise Unreachable("the API server is down")
        kind = self._kind(method, path, body)
        way = world.fault_at(*BEFORE.get(kind, _nowhere)(self._progress(path)))
        if way == "answer lost":
            way = "request lost"  # it is not executed yet
        await self._suffer(way, timeout_s, lambda: self._execute(method, path, body, query))
        try:
            answer = self._execute(method, path, body, query)
        except ApiError:
            if kind == "bind":
                way = world.fault_at("BIND_REFUSED")
                await self._suffer(way, timeout_s, None)
            raise
        way = world.fault_at(*AFTER.get(kind, _nowhere)(self._progress(path)))
        await self._suffer(way, timeout_s, None)
        await asyncio.sleep(world.rng.uniform(0.0, 0.01))
        await process.while_frozen()
        return answer

    def _execute(
        self, method: str, path: str, body: bytes | None, query: Mapping[str, str] | None
    ) -> Response:
        document = self._world.execute(self._process, method, path, body)
        field, _, value = (query or {}).get("fieldSelector", "").partition("=")
        if field == "status.phase":
            items = [item for item in document["items"] if item["status"]["phase"] == value]
            document = {**document, "items": items}
        answer = json.dumps(document).encode()
        date = format_datetime(datetime.fromtimestamp(self._world.wall(), UTC), usegmt=True)
        return Response(200, {"Date": date}, answer)

    async def _suffer(self, way: str, timeout_s: float, execute: Callable[[], object] | None) -> None:
        """Play a fault. Without `execute` the request has been executed already."""
        world, process = self._world, self._process
        match way:
            case "kill":
                process.kill()
                await asyncio.sleep(0)
            case "freeze":
                process.freeze(world.rng.choice([5.0, 30.0, 60.0]))
                await process.while_frozen()
            case "outage":
                world.down_until = world.now() + world.rng.uniform(1.0, 30.0)
                raise OutcomeUnknown("the API server went down")
            case "answer lost" | "request lost":
                await asyncio.sleep(timeout_s)
                raise OutcomeUnknown("no answer")
            case "executed late":
                if execute is not None:

                    def late() -> None:
                        with contextlib.suppress(ApiError):
                            execute()

                    asyncio.get_running_loop().call_later(world.rng.uniform(1.0, 59.0), late)
                await asyncio.sleep(timeout_s)
                raise OutcomeUnknown("no answer")

    def _kind(self, method: str, path: str, body: bytes | None) -> str:
        if "/configmaps" in path and method in ("POST", "PUT"):
            assert body is not None
            wanted = json.loads(body)["data"]
            stored = self._world.journal["data"] if self._world.journal else {}
            if wanted["epoch"] != stored.get("epoch"):
                return "open"
            if any(key not in stored for key in wanted):
                return "intent"
            if any(key not in wanted for key in stored):
                return "remove"
            if any('"compensating"' in wanted[key] != stored[key] for key in wanted):
                return "condemn"
        if path.endswith("/binding"):
            return "bind"
        return "delete" if method == "DELETE" else ""

    def _progress(self, path: str) -> Progress:
        """(bound, minCount) of the gang of the pod in the path."""
        uid = path.removesuffix("/binding").rpartition("/")[2]
        pod = self._world.pods.get(uid)
        if pod is None:
            gangs = {entry["gang"] for entry in self._world.entries() if entry["state"] == "compensating"}
            return sum(len(self._world.bound(gang)) for gang in gangs), 0
        gang = pod["metadata"]["labels"]["gang"]
        spec = self._world.gangs.get(gang)
        return len(self._world.bound(gang)), spec.min_count if spec is not None else 0


Progress = tuple[int, int]
Points = Callable[[Progress], tuple[str, ...]]


def _nowhere(progress: Progress) -> tuple[str, ...]:
    return ()


def _after_bind(progress: Progress) -> tuple[str, ...]:
    bound, min_count = progress
    points = ["BIND_FIRST"] if bound == 1 else ["BIND_ANSWER_LOST"]
    if bound == min_count - 1:
        points.append("BIND_QUORUM_LESS_1")
    if bound == min_count:
        points.append("QUORUM")
    return tuple(points)


BEFORE: Mapping[str, Points] = {
    "open": lambda _: ("LEASE_TAKEN",),
    "intent": lambda _: ("PLANNED",),
    "bind": lambda progress: ("BIND_SENT", "INTENT_DURABLE") if progress[0] == 0 else ("BIND_SENT",),
    "remove": lambda _: ("CONDITION_WRITTEN",),
}
AFTER: Mapping[str, Points] = {
    "open": lambda _: ("EPOCH_BUMPED",),
    "intent": lambda _: ("INTENT_SENT",),
    "bind": _after_bind,
    "remove": lambda _: ("INTENT_REMOVED",),
    "condemn": lambda _: ("COMP_RECORDED",),
    "delete": lambda progress: ("COMP_PARTIAL",) if progress[0] else ("COMP_DONE",),
}
