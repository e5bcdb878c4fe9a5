"""Pods, nodes and clocks for tests, said in few words.

`make_pod().named("a").req(cpu="1", memory="1Gi").obj()` reads like the case it sets up. A builder
fills a plain manifest; `obj()` decodes it as a watch would, so a test can't build what the API
server could never send.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Self

import msgspec

from scheduler.api import Node, Pod
from scheduler.config import ProfileConfig
from scheduler.core.engine import Engine
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile
from scheduler.core.queue import SchedulingQueue
from scheduler.plugins.profiles import build_profile

Manifest = dict[str, Any]

SCHEDULER_NAME = "wholepod"


class Clock:
    """Virtual time in seconds: it stands still until a test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class BusyClock(Clock):
    """Reading it takes a millisecond, so that a slice of planning a gang is a step or two."""

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def decode_pod(manifest: Manifest) -> Pod:
    return msgspec.json.decode(msgspec.json.encode(manifest), type=Pod)


def decode_node(manifest: Manifest) -> Node:
    return msgspec.json.decode(msgspec.json.encode(manifest), type=Node)


class PodBuilder:
    """A pod in namespace default, for scheduler `wholepod`, with one container that asks for nothing."""

    def __init__(self) -> None:
        self._metadata: Manifest = {"name": "pod", "namespace": "default"}
        self._spec: Manifest = {"schedulerName": SCHEDULER_NAME}
        self._status: Manifest = {"phase": "Pending"}
        self._containers: list[Manifest] = []

    def named(self, name: str, *, namespace: str = "default") -> Self:
        self._metadata.update(name=name, namespace=namespace)
        return self

    def uid(self, uid: str) -> Self:
        """Default: made from the name, so that pods of different names differ."""
        self._metadata["uid"] = uid
        return self

    def labels(self, **labels: str) -> Self:
        self._metadata["labels"] = labels
        return self

    def annotations(self, annotations: dict[str, str]) -> Self:
        self._metadata["annotations"] = annotations
        return self

    def created(self, timestamp: str) -> Self:
        self._metadata["creationTimestamp"] = timestamp
        return self

    def owner(self, kind: str) -> Self:
        self._metadata["ownerReferences"] = [{"kind": kind, "name": "owner", "controller": True}]
        return self

    def owners(self, *references: Manifest) -> Self:
        """ownerReferences in full."""
        self._metadata["ownerReferences"] = list(references)
        return self

    def terminating(self) -> Self:
        self._metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return self

    def req(self, requests: dict[str, str] | None = None, /, **amounts: str) -> Self:
        """One more container, with these requests."""
        return self.container(resources={"requests": {**(requests or {}), **amounts}})

    def container(self, **fields: Any) -> Self:
        self._containers.append({"name": f"c{len(self._containers)}", **fields})
        return self

    def sidecar(self, **fields: Any) -> Self:
        sidecars = self._spec.setdefault("initContainers", [])
        sidecars.append({"name": f"s{len(sidecars)}", "restartPolicy": "Always", **fields})
        return self

    def host_port(self, port: int, *, protocol: str = "TCP", ip: str = "") -> Self:
        """One more container, with this host port."""
        return self.container(ports=[{"hostPort": port, "protocol": protocol, "hostIP": ip}])

    def scheduler(self, name: str) -> Self:
        self._spec["schedulerName"] = name
        return self

    def of_group(self, name: str) -> Self:
        """Of Kubernetes' own kind."""
        self._spec["schedulingGroup"] = {"podGroupName": name}
        return self

    def on(self, node: str) -> Self:
        self._spec["nodeName"] = node
        return self

    def priority(self, priority: int) -> Self:
        self._spec["priority"] = priority
        return self

    def gated(self, *gates: str) -> Self:
        self._spec["schedulingGates"] = [{"name": gate} for gate in gates or ("example.com/wait",)]
        return self

    def selector(self, labels: dict[str, str]) -> Self:
        self._spec["nodeSelector"] = labels
        return self

    def affinity(self, *terms: Manifest) -> Self:
        """Required node affinity: nodeSelectorTerms."""
        required = {"nodeSelectorTerms": list(terms)}
        self._spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
        }
        return self

    def prefers(self, weight: int, *expressions: Manifest) -> Self:
        """One more preferred node affinity term: matchExpressions."""
        affinity = self._spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
        terms = affinity.setdefault("preferredDuringSchedulingIgnoredDuringExecution", [])
        terms.append({"weight": weight, "preference": {"matchExpressions": list(expressions)}})
        return self

    def pinned_to(self, *nodes: str) -> Self:
        """As the DaemonSet controller does it: required node affinity for the node's name."""
        field = {"key": "metadata.name", "operator": "In"}
        return self.affinity(*({"matchFields": [{**field, "values": [node]}]} for node in nodes))

    def toleration(self, key: str = "", *, operator: str = "", value: str = "", effect: str = "") -> Self:
        fields = {"key": key, "operator": operator, "value": value, "effect": effect}
        tolerations = self._spec.setdefault("tolerations", [])
        tolerations.append({name: text for name, text in fields.items() if text})
        return self

    def spec(self, **fields: Any) -> Self:
        self._spec.update(fields)
        return self

    def phase(self, phase: str) -> Self:
        self._status["phase"] = phase
        return self

    def status(self, **fields: Any) -> Self:
        self._status.update(fields)
        return self

    def manifest(self) -> Manifest:
        name = f"{self._metadata['namespace']}/{self._metadata['name']}"
        spec = {**self._spec, "containers": self._containers or [{"name": "c0"}]}
        pod = {"metadata": {"uid": f"uid-of-{name}", **self._metadata}, "spec": spec, "status": self._status}
        return deepcopy(pod)

    def obj(self) -> Pod:
        return decode_pod(self.manifest())

    def info(self) -> PodInfo:
        return PodInfo(self.obj())


class NodeBuilder:
    """A node of 4 CPU, 8 GiB and 110 pods."""

    def __init__(self) -> None:
        self._metadata: Manifest = {"name": "node"}
        self._spec: Manifest = {}
        self._allocatable: dict[str, str] = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        self._status: Manifest = {}

    def named(self, name: str) -> Self:
        self._metadata["name"] = name
        return self

    def allocatable(self, amounts: dict[str, str] | None = None, /, **more: str) -> Self:
        self._allocatable.update(amounts or {}, **more)
        return self

    def without(self, resource: str) -> Self:
        del self._allocatable[resource]
        return self

    def labels(self, labels: dict[str, str]) -> Self:
        self._metadata["labels"] = labels
        return self

    def annotations(self, **annotations: str) -> Self:
        self._metadata["annotations"] = annotations
        return self

    def taint(self, key: str, value: str = "", effect: str = "NoSchedule") -> Self:
        self._spec.setdefault("taints", []).append({"key": key, "value": value, "effect": effect})
        return self

    def images(self, sizes: dict[str, int]) -> Self:
        """Image name to bytes."""
        self._status["images"] = [{"names": [name], "sizeBytes": size} for name, size in sizes.items()]
        return self

    def features(self, *names: str) -> Self:
        self._status["declaredFeatures"] = list(names)
        return self

    def cordoned(self, unschedulable: bool = True) -> Self:
        self._spec["unschedulable"] = unschedulable
        return self

    def manifest(self) -> Manifest:
        status = {"allocatable": self._allocatable, **self._status}
        return deepcopy({"metadata": self._metadata, "spec": self._spec, "status": status})

    def obj(self) -> Node:
        return decode_node(self.manifest())


def make_pod(name: str = "pod") -> PodBuilder:
    return PodBuilder().named(name)


def make_node(name: str = "node") -> NodeBuilder:
    return NodeBuilder().named(name)


def make_profile(name: str = SCHEDULER_NAME, **fields: Any) -> Profile:
    """A profile from configuration; `preset="kube"` or the name's default. Gangs may hold all there is,
    unless told otherwise: tests' clusters are small."""
    gangs = {"maxHeldFraction": {"namespace": 1, "cluster": 1}}
    return build_profile(msgspec.convert({"schedulerName": name, "gangs": gangs, **fields}, ProfileConfig))


def make_engine(clock: Callable[[], float] | None = None, *profiles: Profile) -> Engine:
    """An engine with profile `wholepod`, unless other profiles are given."""
    clock = clock or Clock()
    return Engine(profiles or [make_profile()], clock=clock, queue=SchedulingQueue(clock))
