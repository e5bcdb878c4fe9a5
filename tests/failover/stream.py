"""A steady stream of pods, some of them gangs, on nodes that are always nearly full.

The oldest make room: as soon as nine tenths of the room are bound, a bind costs an old pod its life. So a pod
that is bound twice, or by one who does not know of all others, soon overfills a node. `Witness` sees that.
"""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.cluster import ApiError, ControlPlane, node_manifest, pod_manifest
from tests.integration.harness import Json, eventually
from tests.integration.observer import Observer, node_of

NODES, UNITS_PER_NODE = 20, 16
"""A unit is 250m of CPU and 512Mi of memory."""
GANG_SIZE = 4
GANG_EVERY = 8
STRATEGIES = ("atomic", "hoarding", "optimistic")
BACKLOG = 300
"""Pods that may wait while more are created."""
_TURN_S = 0.05
_OWNER = [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": True}]


def create_nodes(plane: ControlPlane) -> None:
    cpu, memory = f"{250 * UNITS_PER_NODE}m", f"{512 * UNITS_PER_NODE}Mi"
    plane.api.create_many(node_manifest(f"node-{n:02}", cpu=cpu, memory=memory) for n in range(NODES))


class Witness(Observer):
    """Sees every change of every pod: `problems` names pods that changed nodes, and nodes given too much."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(plane, "/api/v1/pods")
        self.problems: list[str] = []
        self.fullest = 0
        """The most units that any node ever held."""
        self._held: Counter[str] = Counter()
        self._places: dict[str, tuple[str, int]] = {}

    def _list(self) -> str:
        version = super()._list()
        self._places.clear()
        self._held.clear()
        for pod in self.objects.values():
            self._see(pod)
        return version

    def _apply(self, event: Json) -> None:
        super()._apply(event)
        if event["type"] == "DELETED":
            node, units = self._places.pop(event["object"]["metadata"]["uid"], ("", 0))
            self._held[node] -= units
        else:
            self._see(event["object"])

    def _see(self, pod: Json) -> None:
        uid, node = pod["metadata"]["uid"], node_of(pod)
        before = self._places.get(uid)
        if before is not None:
            if node != before[0]:
                self.problems.append(f"{pod['metadata']['name']} moved from {before[0]} to {node}")
        elif node:
            units = int(pod["metadata"]["labels"]["units"])
            self._places[uid] = node, units
            self._held[node] += units
            self.fullest = max(self.fullest, self._held[node])
            if self._held[node] > UNITS_PER_NODE:
                self.problems.append(f"{node} held {self._held[node]} units of {UNITS_PER_NODE}")


@dataclass
class Item:
    """A single pod, or the members of a gang, by name."""

    pods: list[str]
    units: int


class Stream:
    """Creates `rate` pods a second, from entering to leaving; as a controller does, it replaces pods that
    others have deleted."""

    def __init__(self, plane: ControlPlane, witness: Witness, *, rate: float) -> None:
        self._plane, self._witness, self._rate = plane, witness, rate
        self._items, self._names = itertools.count(), itertools.count()
        self._waiting: list[Item] = []
        self._bound: deque[Item] = deque()
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self.created = 0
        self.gangs = 0
        self.replaced = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self, *, meanwhile: Callable[[], None]) -> None:
        """Create no more, and wait until all that there are are bound."""
        self._rate = 0.0

        def done() -> bool:
            meanwhile()
            return self._failed is not None or not self._waiting

        eventually(done, "all pods are bound")
        self._stop.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._stop.is_set():
                self._look()
                while self._rate and due < time.monotonic():
                    if sum(len(item.pods) for item in self._waiting) < BACKLOG:
                        due += self._add() / self._rate
                    else:
                        due = time.monotonic()
                        break
                self._stop.wait(_TURN_S)
        except BaseException as error:
            self._failed = error

    def _look(self) -> None:
        """Replace what was lost, count what was bound, and make room."""
        places = self._witness.ask(
            lambda pods: {pod["metadata"]["name"]: node_of(pod) for pod in pods.values()}
        )
        still_waiting: list[Item] = []
        for item in self._waiting:
            for number, name in enumerate(item.pods):
                if name not in places and self._is_gone(name):
                    item.pods[number] = self._create_pod(item, name.rpartition("-")[0])
                    self.replaced += 1
            bound = all(places.get(name) for name in item.pods)
            (self._bound if bound else still_waiting).append(item)
        self._waiting = still_waiting
        units = sum(item.units * len(item.pods) for item in self._bound)
        while units > NODES * UNITS_PER_NODE * 9 // 10:
            item = self._bound.popleft()
            units -= item.units * len(item.pods)
            for name in item.pods:
                self._delete(name)

    def _is_gone(self, name: str) -> bool:
        """Not merely unseen yet."""
        try:
            self._plane.api.get(f"/api/v1/namespaces/default/pods/{name}")
        except ApiError as error:
            return error.status == 404
        return False

    def _delete(self, name: str) -> None:
        try:
            self._plane.api.delete(f"/api/v1/namespaces/default/pods/{name}", gracePeriodSeconds="0")
        except ApiError as error:
            if error.status != 404:  # by a scheduler, as a member of a gang that was given up
                raise

    def _add(self) -> int:
        """The number of pods that were created."""
        number = next(self._items)
        if number % GANG_EVERY:
            item, stem = Item([], 1 + number % 2), f"pod-{number}"
            item.pods.append(self._create_pod(item, stem))
        else:
            item, stem = Item([], 1), f"gang-{number}"
            item.pods.extend(self._create_pod(item, stem) for _ in range(GANG_SIZE))
            self.gangs += 1
        self._waiting.append(item)
        self.created += len(item.pods)
        return len(item.pods)

    def _create_pod(self, item: Item, stem: str) -> str:
        name = f"{stem}-{next(self._names)}"
        requests = {"cpu": f"{250 * item.units}m", "memory": f"{512 * item.units}Mi"}
        pod = pod_manifest(name, requests, labels={"units": str(item.units)})
        pod["metadata"]["ownerReferences"] = _OWNER
        if stem.startswith("gang"):
            strategy = STRATEGIES[int(stem.rpartition("-")[2]) // GANG_EVERY % len(STRATEGIES)]
            pod["metadata"]["annotations"] = {
                "wholepod.io/gang": stem,
                "wholepod.io/min-count": str(GANG_SIZE),
                "wholepod.io/strategy": strategy,
            }
        while True:
            try:
                self._plane.api.create(pod)
                return name
            except (OSError, http.client.HTTPException):
                time.sleep(_TURN_S)
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    return name
                raise
