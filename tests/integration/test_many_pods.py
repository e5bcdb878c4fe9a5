"""A thousand pods on a hundred nodes, in good weather and in bad.

The cluster is filled to the last byte: room counted twice leaves a pod without a place, room counted
once too little puts one where it does not fit. Two sizes are used such that no order and no policy
can fail by bad luck: as long as 101 units are free somewhere, some node has two of them.

In bad weather pods keep coming while things break. The creator stays a little ahead of the scheduler,
so every fault hits waiting pods, binds under way and unwritten events alike.
"""

import http.client
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster import ApiError, ControlPlane, node_manifest, pod_manifest
from tests.integration.harness import Json, Scheduler
from tests.integration.observer import Observer, bound, node_of
from tests.integration.proxy import Proxy

NODES, PODS = 100, 1000
UNITS_PER_NODE = 16
"""A unit is 250m of CPU and 512Mi of memory."""
DOUBLES = NODES * UNITS_PER_NODE - PODS
"""Pods of two units; the others have one."""
LAST_SINGLES = NODES + 10
"""Created when all others are bound, so that each pod of two units meets at least 101 free ones."""
AHEAD = 150
"""Pods that may wait while more are created."""
CUT_EVERY = 90
"""Bound pods from one cut of all connections to the next."""
FAULTS_AT = (180, 450, 720)
"""Bound pods at which something is killed, in place of a cut."""
SLOWLY = ("--kube-api-qps=200", "--kube-api-burst=20")
"""Slow enough that faults hit a scheduler at work, whatever the machine."""
MORE_SLOWLY = ("--kube-api-qps=70", "--kube-api-burst=20")
"""So that a watch lives for more than a second between two cuts, or the scheduler waits longer each time."""


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controller_manager=False, kwok=True) as plane:
        plane.api.create_many(node_manifest(f"node-{n:02}", cpu="4", memory="8Gi") for n in range(NODES))
        yield plane


@pytest.fixture
def pods(plane: ControlPlane) -> Iterator[Observer]:
    with Observer(plane, "/api/v1/pods") as pods:
        yield pods


class Creator:
    """Creates the pods in a thread, whatever happens to the API server, never more than `AHEAD` ahead."""

    def __init__(self, plane: ControlPlane, pods: Observer) -> None:
        self._plane, self._pods = plane, pods
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="create")
        self._work = self._pool.submit(self._run)

    def __enter__(self) -> "Creator":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def finish(self) -> None:
        """Wait until all pods are created and bound."""
        self._work.result()
        self._pods.wait(lambda pods: bound(pods.values()) == PODS, "all pods are bound")

    def _run(self) -> None:
        mixed = PODS - LAST_SINGLES
        for n in range(PODS):
            if n % 10 == 0:
                self._wait_bound(n - AHEAD if n < mixed else mixed)
            # Big and small ones alternate until there are enough big ones.
            size = 2 if n < mixed and n * DOUBLES // mixed < (n + 1) * DOUBLES // mixed else 1
            requests = {"cpu": f"{250 * size}m", "memory": f"{512 * size}Mi"}
            self._create(pod_manifest(f"pod-{n:03}", requests, priority=0))

    def _wait_bound(self, count: int) -> None:
        self._pods.wait(
            lambda pods: self._stop.is_set() or bound(pods.values()) >= count, f"{count} pods are bound"
        )

    def _create(self, manifest: Json) -> None:
        while not self._stop.is_set():
            try:
                self._plane.api.create(manifest)
                return
            except ApiError as error:
                if error.reason == "AlreadyExists":  # by a request whose answer was lost
                    return
                if error.status not in (429, 500, 503, 504):
                    raise
            except (OSError, http.client.HTTPException):
                pass
            self._stop.wait(0.1)


def test_each_pod_gets_a_place_and_one_event(plane: ControlPlane, pods: Observer, log: Path) -> None:
    flags = ("--leader-elect=false", "--kube-api-qps=5000", "--kube-api-burst=5000")
    with (
        Observer(plane, "/apis/events.k8s.io/v1/events", fieldSelector="reason=Scheduled") as events,
        Scheduler(*flags, kubeconfig=plane.kubeconfig, log=log) as scheduler,
    ):
        with Creator(plane, pods) as creator:
            creator.finish()
        events.wait(lambda events: len(events) >= PODS, "all events are written")
        scheduler.check_cache()
        assert scheduler.metric("scheduler_schedule_attempts_total", result="scheduled") == PODS
        assert scheduler.terminate() == 0
    check_room(plane)
    assert set(scheduled_events(plane).values()) == {1}
    assert len(scheduled_events(plane)) == PODS


def test_the_api_server_dies_and_watches_are_cut(plane: ControlPlane, pods: Observer, log: Path) -> None:
    flags = ("--leader-elect=false", *MORE_SLOWLY)
    with (
        Proxy(plane) as proxy,
        Scheduler(*flags, kubeconfig=proxy.kubeconfig(plane), log=log) as scheduler,
    ):
        pid = scheduler.pid
        bound_at_fault: list[int] = []
        with Creator(plane, pods) as creator:
            for threshold in range(CUT_EVERY, PODS, CUT_EVERY):
                bound_at_fault.append(wait_bound(pods, threshold))
                if threshold in FAULTS_AT:
                    plane.kill_apiserver()
                    plane.start_apiserver()
                else:
                    proxy.cut()
            creator.finish()
        # All faults hit it at work.
        assert max(bound_at_fault) < PODS
        assert scheduler.metric("wholepod_write_retries_total", kind="bind") > 0
        # Between two deaths of the API server more pods were bound than were known before, and nodes had to
        # be listed anew: both watches came back each time, to be cut once more.
        interrupted = Counter(record["resource"] for record in scheduler.records("watch interrupted"))
        assert min(interrupted["pods"], interrupted["nodes"]) >= len(FAULTS_AT)
        # It did not end and start again, it lived on.
        assert scheduler.running
        assert scheduler.pid == pid
        scheduler.check_cache()
        assert scheduler.terminate() == 0
    check_room(plane)
    assert set(scheduled_events(plane).values()) == {1}


def test_the_scheduler_dies(plane: ControlPlane, pods: Observer, log: Path) -> None:
    flags = ("--leader-elect=false", *SLOWLY)
    with Scheduler(*flags, kubeconfig=plane.kubeconfig, log=log) as scheduler:
        with Creator(plane, pods) as creator:
            for threshold in FAULTS_AT:
                wait_bound(pods, threshold)
                scheduler.kill()
                at_death = bound(plane.api.items("/api/v1/pods"))
                assert threshold <= at_death < PODS
                scheduler.start()
            creator.finish()
        scheduler.check_cache()
        assert scheduler.terminate() == 0
    check_room(plane)
    assert set(scheduled_events(plane).values()) == {1}


def wait_bound(pods: Observer, count: int) -> int:
    """The number of bound pods as soon as it is `count` or more."""

    def enough(pods_now: Iterable[Json]) -> int:
        have = bound(pods_now)
        return have if have >= count else 0

    return pods.wait(lambda objects: enough(objects.values()), f"{count} pods are bound")


def check_room(plane: ControlPlane) -> None:
    """From the API server alone: all pods are bound, and no node holds more than it can."""
    requested: dict[str, Counter[str]] = defaultdict(Counter)
    count = 0
    for pod in plane.api.items("/api/v1/pods"):
        count += 1
        assert node_of(pod), pod["metadata"]["name"]
        requested[node_of(pod)]["pods"] += 1
        for container in pod["spec"]["containers"]:
            for resource, quantity in container["resources"]["requests"].items():
                requested[node_of(pod)][resource] += amount(quantity)
    assert count == PODS
    for node in plane.api.items("/api/v1/nodes"):
        allocatable = {resource: amount(text) for resource, text in node["status"]["allocatable"].items()}
        held = requested.pop(node["metadata"]["name"])
        assert all(held[resource] <= allocatable[resource] for resource in held), (held, allocatable)
        # The pods fill the cluster exactly.
        assert held["memory"] == allocatable["memory"]
    assert not requested, "pods on nodes that do not exist"


def amount(quantity: str) -> int:
    """A quantity of this test in thousandths; it does not trust the scheduler's own parser."""
    scale = {"m": 1, "Mi": 1000 * 2**20, "Gi": 1000 * 2**30}
    digits = quantity.rstrip("mMGi")
    return int(digits) * scale.get(quantity.removeprefix(digits), 1000)


def scheduled_events(plane: ControlPlane) -> Counter[str]:
    """How many `Scheduled` events each pod (uid) has, repeats within one event counted."""
    events: Counter[str] = Counter()
    for event in plane.api.items("/apis/events.k8s.io/v1/events", fieldSelector="reason=Scheduled"):
        events[event["regarding"]["uid"]] += event.get("series", {}).get("count", 1)
    return events
