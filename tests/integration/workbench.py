"""Short words for tests that live on the shared control plane.

A workbench is one namespace and the nodes that its test makes; both are emptied when the test is over, so
tests of a module can share a plane and even a scheduler. No kubelet and no controller acts here: what
those would do, a test does itself (`set_phase`, `remove`), at the moment it wants.
"""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, TypeVar

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.harness import Json
from tests.integration.observer import Observer, condition, node_of

T = TypeVar("T")
_namespaces = count(1)


class Workbench:
    """`pods` and `events` observe the whole cluster. Names of pods mean those of this namespace."""

    def __init__(self, plane: ControlPlane, pods: Observer, events: Observer) -> None:
        self.plane, self.api = plane, plane.api
        self.pods, self.events = pods, events
        self.namespace = f"bench-{next(_namespaces)}"
        self._barriers = count(1)
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

    def clear(self) -> None:
        """Remove all pods and nodes."""
        self.api.delete(f"/api/v1/namespaces/{self.namespace}/pods", gracePeriodSeconds="0")
        self.api.delete("/api/v1/nodes")
        self.pods.wait(lambda pods: not pods, "all pods are gone")

    # Nodes.

    def node(self, name: str, *, memory: str = "4Gi", cpu: str = "8", **more: Any) -> Json:
        """Create a node."""
        return self.api.create(node_manifest(name, memory=memory, cpu=cpu, **more))

    def change_node(self, name: str, **change: Any) -> None:
        """Merge into the node, its status excepted."""
        self.api.patch(f"/api/v1/nodes/{name}", change)

    def set_allocatable(self, name: str, **resources: str) -> None:
        """As the node's kubelet says it."""
        status = {"capacity": resources, "allocatable": resources}
        self.api.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    def remove_node(self, name: str) -> None:
        self.api.delete(f"/api/v1/nodes/{name}")

    # Pods.

    def path(self, pod: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{pod}"

    def pod(self, name: str, memory: str = "1Gi", *, cpu: str = "100m", **more: Any) -> Json:
        """Create a pod of one container; `more` as in `pod_manifest` (`nodeName` binds it by hand)."""
        requests = {"memory": memory, "cpu": cpu}
        return self.api.create(pod_manifest(name, requests, namespace=self.namespace, **more))

    def set_phase(self, pod: str, phase: str) -> None:
        """As the pod's kubelet says it."""
        self.api.patch(f"{self.path(pod)}/status", {"status": {"phase": phase}})

    def delete(self, pod: str) -> None:
        """With its grace period: it is terminating until `remove`."""
        assert self.api.delete(self.path(pod))["metadata"]["deletionTimestamp"]

    def remove(self, pod: str) -> None:
        """At once, as a kubelet does when the last container has ended."""
        self.api.delete(self.path(pod), gracePeriodSeconds="0")

    # What became of them.

    def wait_bound(self, *pods: str) -> list[str]:
        """Wait until they are bound; returns their nodes."""
        return [self.wait_pod(pod, node_of, "bound") for pod in pods]

    def wait_unschedulable(self, pod: str) -> str:
        """Wait until a pod is said to fit nowhere; returns the message of its condition."""

        def message(seen: Json) -> str:
            scheduled = condition(seen, "PodScheduled")
            return scheduled["message"] if scheduled.get("reason") == "Unschedulable" else ""

        return self.wait_pod(pod, message, "found unschedulable")

    def wait_pod(self, pod: str, holds: Callable[[Json], T | None], what: str) -> T:
        """Wait until the pod that has this name now is seen so that `holds(pod)`; returns that value."""
        key, uid = f"{self.namespace}/{pod}", self.api.get(self.path(pod))["metadata"]["uid"]

        def seen(pods: Mapping[str, Json]) -> T | None:
            found = pods.get(key)
            return holds(found) if found is not None and found["metadata"]["uid"] == uid else None

        return self.pods.wait(seen, f"{pod} is {what}")

    def node_of(self, pod: str) -> str:
        """The node of a pod as the API server has it now, "" for none."""
        return node_of(self.api.get(self.path(pod)))

    def events_of(self, pod: str) -> list[Json]:
        """Events about pods of this name, as far as they were seen."""
        return self.events.ask(lambda events: self._about(pod, events))

    def wait_event(self, pod: str, reason: str) -> Json:
        """The first event of this reason about the pod."""

        def first(events: Mapping[str, Json]) -> Json | None:
            return next((event for event in self._about(pod, events) if event["reason"] == reason), None)

        return self.events.wait(first, f"event {reason} of {pod}")

    def _about(self, pod: str, events: Mapping[str, Json]) -> list[Json]:
        wanted = {"namespace": self.namespace, "name": pod}
        return [event for event in events.values() if wanted.items() <= event["regarding"].items()]

    def barrier(self, scheduler_name: str = "wholepod") -> None:
        """Return when the scheduler has taken in all that happened to nodes and pods so far.

        A new pod that fits a new node alone gets there only after both watches have brought them, hence
        everything before. No other pod could make use of that node.
        """
        name = f"barrier-{next(self._barriers)}"
        taint = {"key": "barrier", "value": name, "effect": "NoSchedule"}
        self.node(name, labels={"barrier": name}, taints=[taint])
        self.pod(name, nodeSelector={"barrier": name}, tolerations=[taint], scheduler_name=scheduler_name)
        self.wait_bound(name)
