"""The stage of the demo: a control plane, two nodes, and Wholepod as an operator would run it.

Wholepod joins the process group of the control plane, whose keeper ends it even if the demo is killed.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families

from scheduler.api import Container, Pod, pod_name
from scheduler.core.requests import pod_requests_on_node
from scheduler.quantity import resource_amount
from tests.cluster import ApiError, ControlPlane, node_manifest
from tests.cluster.assets import Report

HERE = Path(__file__).parent
CONFIGURATION = HERE / "wholepod.yaml"
RBAC = HERE.parents[1] / "deploy" / "base" / "rbac.yaml"
NODES = {"node-a": "1280Mi", "node-b": "2Gi"}
"""Node name → allocatable memory."""

TIMEOUT_S = 180.0
"""Far beyond any normal wait: a busy machine must not fail the demo, a missing deed must."""
_POLL_S = 0.05
_PODS = "/api/v1/namespaces/default/pods"
_EVENTS = "/apis/events.k8s.io/v1/events"

Manifest = dict[str, Any]


class DemoError(Exception):
    """The demo can't go on, or what it shows is not so; the text is for the user."""


@dataclass(frozen=True)
class NodeState:
    name: str
    memory_bytes: int
    """Allocatable."""
    cordoned: bool


@dataclass(frozen=True)
class PodState:
    name: str
    """Without its namespace when that is `default`."""
    node: str
    """Empty while it waits."""
    memory_bytes: int
    """Of the whole pod."""
    parts: tuple[tuple[str, int], ...]
    """(container, memory_bytes) of each, or the whole pod when it is more or less than their sum."""


@dataclass(frozen=True)
class EventState:
    reason: str
    note: str


@dataclass(frozen=True)
class GangState:
    """As `wholepod gangs` shows it."""

    state: str
    places: dict[str, str]
    """Member → node that it has, or has in mind; empty for none."""


@dataclass(frozen=True)
class Snapshot:
    """The cluster as its API shows it, and Wholepod's metrics by series, in one moment."""

    nodes: tuple[NodeState, ...]
    pods: tuple[PodState, ...]
    events: tuple[EventState, ...]
    """In order of time."""
    metrics: dict[str, float]
    """`name{label="value"}` → value, without the profile."""

    def node_of(self, pod: str) -> str:
        """Empty for a pod without a node, or that does not exist."""
        return next((p.node for p in self.pods if p.name == pod), "")


class Scene:
    """A context manager: up on entry, all gone on exit."""

    def __init__(self, *, report: Report, configuration: Path = CONFIGURATION) -> None:
        self._report = report
        self._configuration = configuration
        self._stack = ExitStack()
        self._metrics_url = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self._plane.kubeconfig

    @property
    def version(self) -> str:
        """Of Kubernetes, as the API server says it."""
        return str(self._plane.api.get("/version")["gitVersion"])

    def apply(self, file: Path, name: str) -> None:
        """Creates the pod of this name that the file describes."""
        manifests: Iterator[Manifest] = yaml.safe_load_all(file.read_text())
        self._plane.api.create(next(item for item in manifests if item["metadata"]["name"] == name))

    def delete(self, name: str) -> None:
        """Removes a pod at once."""
        self._plane.api.delete(f"{_PODS}/{name}", gracePeriodSeconds="0")

    def end_terminating(self) -> None:
        """Does what kubelets do with deleted pods in the end; without it `kubectl delete` waits for ever."""
        for item in self._plane.api.items("/api/v1/pods"):
            metadata = item["metadata"]
            if "deletionTimestamp" in metadata and item["spec"].get("nodeName"):
                path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
                try:
                    self._plane.api.delete(path, gracePeriodSeconds="0")
                except ApiError as error:
                    if error.status != 404:  # somebody else was quicker
                        raise

    def snapshot(self) -> Snapshot:
        """Raises DemoError when Wholepod has ended."""
        api = self._plane.api
        events = sorted(api.items(_EVENTS), key=lambda e: (e.get("eventTime") or "", e["metadata"]["name"]))
        return Snapshot(
            nodes=tuple(map(_node, api.items("/api/v1/nodes"))),
            pods=tuple(_pod(msgspec.convert(item, Pod)) for item in api.items("/api/v1/pods")),
            events=tuple(EventState(e.get("reason", ""), e.get("note", "")) for e in events),
            metrics=self._metrics(),
        )

    def wait_for(self, holds: Callable[[Snapshot], bool], otherwise: str) -> Snapshot:
        """The first snapshot in which `holds` is true. Raises DemoError with `otherwise` after TIMEOUT_S."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            snapshot = self.snapshot()
            if holds(snapshot):
                return snapshot
            if time.monotonic() > deadline:
                said = "".join(f"\n  {event.reason}: {event.note}" for event in snapshot.events)
                raise DemoError(
                    f"{otherwise} within {TIMEOUT_S:.0f} s. Events:{said or ' none'}\n{self._wholepod.tail()}"
                )
            time.sleep(_POLL_S)

    def wait_for_gang(self, name: str, wanted: GangState) -> None:
        """Until Wholepod shows the gang so. Raises DemoError after TIMEOUT_S."""
        deadline = time.monotonic() + TIMEOUT_S
        while (found := self._gang(name)) != wanted:
            if time.monotonic() > deadline:
                raise DemoError(
                    f"this is not what was to be shown: gang {name} should be {wanted}, and is {found}"
                )
            time.sleep(_POLL_S)

    @property
    def url(self) -> str:
        """Where Wholepod serves its metrics, and what it says of gangs."""
        return self._metrics_url

    # ---- internals

    def _gang(self, name: str) -> GangState | None:
        for gang in json.loads(self._get("/debug/gangs"))["gangs"]:
            if gang["name"] == name:
                return GangState(
                    gang["state"], {member["name"]: member["node"] for member in gang["members"]}
                )
        return None

    def _start(self) -> None:
        self._plane = self._stack.enter_context(ControlPlane(controller_manager=False, report=self._report))
        self._plane.api.create_many(node_manifest(name, memory=memory) for name, memory in NODES.items())
        self._plane.kubectl("apply", f"--filename={RBAC}")
        self._wholepod = self._plane.start_beside(
            "wholepod",
            [
                str(Path(sys.executable).with_name("wholepod")),
                "run",
                f"--config={self._configuration}",
                f"--kubeconfig={self._plane.kubeconfig_for_account('wholepod')}",
                "--bind-address=127.0.0.1:0",
                "--log-format=json",
            ],
        )
        self._stack.callback(self._wholepod.stop)
        self._wholepod.wait_until(self._is_ready, timeout_s=TIMEOUT_S)

    def _is_ready(self) -> bool:
        if not self._metrics_url:
            port = _port_in(self._wholepod.log)
            if port is None:
                return False
            self._metrics_url = f"http://127.0.0.1:{port}"
        try:
            return self._get("/readyz") == "ok"
        except urllib.error.HTTPError:
            return False

    def _metrics(self) -> dict[str, float]:
        try:
            text = self._get("/metrics")
        except OSError as error:
            raise DemoError(f"Wholepod does not answer any more: {error}\n{self._wholepod.tail()}") from error
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                # There is one profile, so its label says nothing.
                labels = {key: value for key, value in sample.labels.items() if key != "profile"}
                found[series(sample.name, **labels)] = sample.value
        return found

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self._metrics_url + path, timeout=10) as answer:
            text: str = answer.read().decode()
        return text


def series(metric: str, /, **labels: str) -> str:
    """A key of `Snapshot.metrics`."""
    texts = [f'{key}="{labels[key]}"' for key in sorted(labels)]
    return f"{metric}{{{','.join(texts)}}}"


def _port_in(log: Path) -> int | None:
    """Where Wholepod serves its metrics, from the line that says it has started."""
    for line in log.read_text().splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            if entry.get("event") == "started":
                return int(entry["port"])
    return None


def _node(item: Manifest) -> NodeState:
    return NodeState(
        name=item["metadata"]["name"],
        memory_bytes=resource_amount("memory", item["status"].get("allocatable", {}).get("memory", "0")),
        cordoned=item["spec"].get("unschedulable", False),
    )


def _pod(pod: Pod) -> PodState:
    whole = pod_requests_on_node(pod).get("memory", 0)
    parts = tuple((container.name, _memory(container)) for container in pod.spec.containers or ())
    name = pod.metadata.name if pod.metadata.namespace == "default" else pod_name(pod)
    if sum(memory for _, memory in parts) != whole:
        parts = ((name, whole),)
    return PodState(name=name, node=pod.spec.node_name or "", memory_bytes=whole, parts=parts)


def _memory(container: Container) -> int:
    requests = container.resources.requests if container.resources is not None else None
    return resource_amount("memory", (requests or {}).get("memory", "0"))
