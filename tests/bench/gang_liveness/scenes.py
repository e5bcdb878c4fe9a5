"""The two scenes. Both are played with whatever scheduler serves the pods' schedulerName; pods end when the
scene says so, as no kubelet is there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.cluster import node_manifest, pod_manifest
from tests.cluster.api import Api
from tests.integration.harness import Json
from tests.integration.observer import Observer, node_of

_POLL_S = 0.05
_WORKERS = 8
NEVER = float("inf")


@dataclass(frozen=True)
class Words:
    """How members of a gang are described, and for whom. `strategy` is empty for kube-scheduler, which has
    only one."""

    namespace: str
    scheduler_name: str
    strategy: str
    native: bool
    """By Kubernetes' own PodGroups instead of annotations on the pods."""

    def group(self, gang: str, needs: int) -> Iterator[Json]:
        """What has to exist beside the pods."""
        if self.native:
            yield {
                "apiVersion": "scheduling.k8s.io/v1beta1",
                "kind": "PodGroup",
                "metadata": {"name": gang, "namespace": self.namespace, "annotations": self._options()},
                "spec": {"schedulingPolicy": {"gang": {"minCount": needs}}},
            }

    def member(self, name: str, gang: str, needs: int) -> Json:
        if self.native:
            return self.single(name, schedulingGroup={"podGroupName": gang})
        pod = self.single(name)
        own = {"wholepod.io/gang": gang, "wholepod.io/min-count": str(needs)}
        pod["metadata"]["annotations"] = own | self._options()
        return pod

    def single(self, name: str, **spec: Any) -> Json:
        """A pod of 1 GiB."""
        return pod_manifest(
            name, {"memory": "1Gi"}, namespace=self.namespace, scheduler_name=self.scheduler_name, **spec
        )

    def _options(self) -> dict[str, str]:
        if not self.strategy:
            return {}
        return {"wholepod.io/strategy": self.strategy, "wholepod.io/hold-timeout": "1h"}


@dataclass(frozen=True)
class Deadlock:
    """`size` members each, of which half come first; the cluster fits two gangs."""

    gangs: int = 20
    size: int = 8
    run_s: float = 2.0
    """How long a complete gang keeps its room."""
    pause_s: float = 3.0
    """Between the halves."""


@dataclass(frozen=True)
class DeadlockEnd:
    seconds: float
    """From the last member's creation to the last gang's completion."""
    longest_wait_s: float
    """The longest time that there was room for a gang, while gangs waited that had all their members."""
    partly_bound_s: float
    """The longest time that a gang was bound in part."""
    complete: int
    """So many gangs completed."""


@dataclass(frozen=True)
class Starvation:
    """A gang of `size` among single pods that keep all places of 1 GiB taken."""

    nodes: int = 50
    slots: int = 8
    """Places of a node."""
    size: int = 200
    run_s: float = 30.0
    """Single pods run for half of that to all of it."""
    backlog: int = 100
    """So many single pods wait at any time."""


@dataclass(frozen=True)
class StarvationEnd:
    seconds: float
    """From the last member's creation until all were bound; infinite if that was not to be."""
    singles: int
    """Single pods that were bound meanwhile."""


class _Eyes:
    """What the observer has seen of a namespace's pods."""

    def __init__(self, pods: Observer, namespace: str) -> None:
        self._pods, self._prefix = pods, f"{namespace}/"

    def bound(self) -> set[str]:
        def names(objects: Mapping[str, Json]) -> set[str]:
            prefix = self._prefix
            return {k[len(prefix) :] for k, pod in objects.items() if k.startswith(prefix) and node_of(pod)}

        return self._pods.ask(names)


def play_deadlock(
    api: Api, pods: Observer, words: Words, scene: Deadlock, *, give_up_s: float
) -> DeadlockEnd:
    """Ends when all gangs have completed, or after `give_up_s`."""
    api.create_many(node_manifest(f"node-{i}", memory=f"{scene.size}Gi", cpu="64") for i in range(2))
    gangs = {f"g{i:02}": [f"g{i:02}-{k}" for k in range(scene.size)] for i in range(scene.gangs)}
    api.create_many(manifest for gang in gangs for manifest in words.group(gang, scene.size))
    first = scene.size // 2
    for part in (range(first), range(first, scene.size)):
        for k in part:  # one member of each after the other
            api.create_many(words.member(gangs[gang][k], gang, scene.size) for gang in gangs)
        time.sleep(scene.pause_s if part.start == 0 else 0.0)
    eyes, waiting, running = _Eyes(pods, words.namespace), set(gangs), dict[str, float]()
    partly: dict[str, float] = {}
    began = room_since = ended = time.monotonic()
    longest = longest_partly = 0.0
    while waiting and time.monotonic() - began < give_up_s:
        time.sleep(_POLL_S)
        bound, now = eyes.bound(), time.monotonic()
        for gang in sorted(waiting):
            count = sum(pod in bound for pod in gangs[gang])
            if count:
                longest_partly = max(longest_partly, now - partly.setdefault(gang, now))
            if count == scene.size:
                longest = max(longest, now - room_since)
                waiting.discard(gang)
                running[gang] = now + scene.run_s
                room_since = ended = now
        for gang in [gang for gang, until in running.items() if until <= now]:
            for pod in gangs[gang]:
                _delete(api, words.namespace, pod)
            if len(running) == 2:
                room_since = time.monotonic()
            del running[gang]
    if waiting:
        longest, ended = max(longest, time.monotonic() - room_since), began + NEVER
    return DeadlockEnd(ended - began, longest, longest_partly, scene.gangs - len(waiting))


def play_starvation(
    api: Api,
    pods: Observer,
    words: Words,
    scene: Starvation,
    *,
    give_up_s: float,
    on_gang: Callable[[], None] = lambda: None,
) -> StarvationEnd:
    """`on_gang` is called when the gang has been created."""
    api.create_many(
        node_manifest(f"node-{i:03}", memory=f"{scene.slots}Gi", cpu="64") for i in range(scene.nodes)
    )
    places = scene.nodes * scene.slots
    with ThreadPoolExecutor(_WORKERS) as pool:
        stream = _Stream(api, pool, words, scene)
        eyes = _Eyes(pods, words.namespace)
        deadline = time.monotonic() + give_up_s
        while len(bound := eyes.bound()) < places * 0.95:
            if time.monotonic() > deadline:
                raise TimeoutError(f"single pods have taken {len(bound)} of {places} places only")
            stream.flow(bound, enough=places + scene.backlog)
            time.sleep(_POLL_S)
        members = {f"member-{i:03}" for i in range(scene.size)}
        for manifest in words.group("large", scene.size):
            api.create(manifest)
        api.create_many(words.member(name, "large", scene.size) for name in sorted(members))
        on_gang()
        began, before = time.monotonic(), stream.seen
        while not members <= (bound := eyes.bound()):
            if time.monotonic() - began > give_up_s:
                return StarvationEnd(NEVER, stream.seen - before)
            stream.flow(bound)
            time.sleep(_POLL_S)
        return StarvationEnd(time.monotonic() - began, stream.seen - before)


class _Stream:
    """Single pods that end after a while, and others that wait for their places."""

    def __init__(self, api: Api, pool: ThreadPoolExecutor, words: Words, scene: Starvation) -> None:
        self._api, self._pool, self._words, self._scene = api, pool, words, scene
        self._rng = random.Random(1)
        self._created = self.seen = 0
        self._flowing = False
        self._ends: dict[str, float] = {}
        """Of those that are bound."""
        self._gone: set[str] = set()

    def flow(self, bound: set[str], *, enough: int | None = None) -> None:
        """`enough`: at most so many are created in all, and none ends yet."""
        now = time.monotonic()
        self._flowing = enough is None
        for name in bound:
            if name.startswith("single-") and name not in self._ends and name not in self._gone:
                least = 0.5 if self._flowing else 0.0  # at first as if they had run for a while
                self._ends[name] = now + self._rng.uniform(least, 1.0) * self._scene.run_s
                self.seen += 1
        over = [name for name, end in self._ends.items() if end <= now] if enough is None else []
        for name in over:
            del self._ends[name]
            self._gone.add(name)
            self._pool.submit(_delete, self._api, self._words.namespace, name)
        wanted = enough if enough is not None else self.seen + self._scene.backlog
        for number in range(self._created, wanted):
            self._pool.submit(self._api.create, self._words.single(f"single-{number:05}"))
        self._created = max(self._created, wanted)


def _delete(api: Api, namespace: str, pod: str) -> None:
    api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod}", gracePeriodSeconds="0")
