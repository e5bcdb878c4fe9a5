"""Short words for tests of `wholepod controller`: groups, their pods, workloads, and what became of them.

The controller runs as its own ServiceAccount in all of them, so they also show that its rights are enough.
kube-controller-manager is real, so that Jobs and StatefulSets create pods; kubelets are played by the tests.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import ApiError, ControlPlane
from tests.cluster.api import pod_manifest
from tests.integration.harness import REPOSITORY, Json, eventually
from tests.integration.observer import Observer, condition
from tests.integration.workbench import Workbench

LABEL = "scheduling.x-k8s.io/pod-group"
CREATE = "wholepod.io/create-pod-group"
GROUPS = "/apis/scheduling.x-k8s.io/v1alpha1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEPLOY = REPOSITORY / "deploy"


def account(plane: ControlPlane) -> Path:
    """The kubeconfig of the controller's own account, with the rights that the manifests grant."""
    plane.kubectl("apply", "-f", str(DEPLOY / "base" / "rbac-controller.yaml"))
    return plane.kubeconfig_for_account("wholepod-controller")


def with_crd(plane: ControlPlane) -> None:
    """Returns when PodGroups are served."""
    plane.kubectl("create", "-f", str(DEPLOY / "crd-podgroups.yaml"))
    eventually(lambda: exists(plane, f"{GROUPS}/podgroups"), "PodGroups are served")


@contextmanager
def staged(plane: ControlPlane) -> Iterator[Stage]:
    """A stage with a large node, which is cleared at the end."""
    with (
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
        Observer(plane, f"{GROUPS}/podgroups") as groups,
    ):
        stage = Stage(plane, pods, events, groups)
        stage.node("node", memory="64Gi")
        yield stage
        stage.clear()


class Stage(Workbench):
    """A workbench of groups; names of groups and workloads mean those of its namespace."""

    def __init__(self, plane: ControlPlane, pods: Observer, events: Observer, groups: Observer) -> None:
        super().__init__(plane, pods, events)
        self.groups = groups
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        eventually(lambda: self.api.count(accounts), "the namespace has its ServiceAccount")

    def clear(self) -> None:
        """Remove workloads first, which would create their pods again."""
        for kinds in ("/apis/batch/v1/jobs", "/apis/apps/v1/statefulsets"):
            prefix, _, plural = kinds.rpartition("/")
            options = {"propagationPolicy": "Background"}
            self.api.delete(f"{prefix}/namespaces/{self.namespace}/{plural}", **options)
        self.api.delete(f"{GROUPS}/namespaces/{self.namespace}/podgroups")
        super().clear()

    def group(
        self, name: str, members: int, *, annotations: Mapping[str, str] | None = None, **spec: Any
    ) -> Json:
        """Create a PodGroup."""
        return self.api.post(
            f"{GROUPS}/namespaces/{self.namespace}/podgroups",
            {
                "apiVersion": "scheduling.x-k8s.io/v1alpha1",
                "kind": "PodGroup",
                "metadata": {"name": name, "annotations": dict(annotations or {})},
                "spec": {"minMember": members, **spec},
            },
        )

    def group_path(self, name: str) -> str:
        return f"{GROUPS}/namespaces/{self.namespace}/podgroups/{name}"

    def member(self, name: str, group: str, **spec: Any) -> None:
        """Create a pod of that group."""
        labels = {LABEL: group}
        manifest = pod_manifest(name, {"memory": "1Gi"}, namespace=self.namespace, labels=labels, **spec)
        self.api.create(manifest)

    def bind(self, pod: str, node: str) -> None:
        """As a scheduler would."""
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        self.api.post(f"{self.path(pod)}/binding", {"metadata": {"name": pod}, "target": target})

    def wait_group(self, name: str, holds: Any, what: str) -> Any:
        """Wait until the group is seen so that `holds(group)`; returns that value."""
        key = f"{self.namespace}/{name}"
        return self.groups.wait(
            lambda groups: holds(groups[key]) if key in groups else None, f"group {name}: {what}"
        )

    def wait_status(self, name: str, **fields: Any) -> Json:
        """Wait until the group's status has these values; returns it."""
        status: Json = self.wait_group(
            name, lambda group: _has(group.get("status", {}), fields), f"status {fields}"
        )
        return status

    def job(self, name: str, pods: int, *, annotations: Mapping[str, str], labels: Mapping[str, str]) -> Json:
        """Create a Job that runs so many pods at once."""
        return self.api.post(
            f"/apis/batch/v1/namespaces/{self.namespace}/jobs",
            job(name, pods, annotations=annotations, labels=labels),
        )

    def wait_event_of(self, kind: str, name: str, reason: str) -> Json:
        """The first event of this reason about the object."""
        wanted = {"kind": kind, "namespace": self.namespace, "name": name}

        def first(events: Mapping[str, Json]) -> Json | None:
            found = (
                e
                for e in events.values()
                if e["reason"] == reason and wanted.items() <= e["regarding"].items()
            )
            return next(found, None)

        return self.events.wait(first, f"event {reason} of {kind} {name}")

    def kubectl(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """(exit code, what it says on standard error)."""
        kubectl = Path(sys.executable).with_name("kubectl")
        result = subprocess.run(
            [kubectl, f"--kubeconfig={self.plane.kubeconfig}", f"--namespace={self.namespace}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
        )
        return result.returncode, result.stderr


def job(
    name: str,
    pods: int,
    *,
    annotations: Mapping[str, str],
    labels: Mapping[str, str],
    template_annotations: Mapping[str, str] | None = None,
) -> Json:
    """The manifest of a Job that runs so many pods at once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "annotations": dict(annotations)},
        "spec": {
            "parallelism": pods,
            "completions": pods,
            "template": template(labels, template_annotations or {}, restartPolicy="Never"),
        },
    }


def stateful_set(name: str, replicas: int, *, labels: Mapping[str, str], **spec: Any) -> Json:
    """The manifest of a StatefulSet that asks for a group."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "annotations": {CREATE: "true"}},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": {"app": name}},
            "template": template({"app": name, **labels}, {}),
            **spec,
        },
    }


def template(labels: Mapping[str, str], annotations: Mapping[str, str], **spec: Any) -> Json:
    """A pod template of one container."""
    return {
        "metadata": {"labels": dict(labels), "annotations": dict(annotations)},
        "spec": {"schedulerName": "wholepod", "containers": [{"name": "main", "image": "pause"}], **spec},
    }


def said(group: Json, kind: str) -> tuple[str, str]:
    """(status, reason) of a group's condition; empty if it has none."""
    found = condition({"status": group.get("status", {})}, kind)
    return found.get("status", ""), found.get("reason", "")


def _has(status: Json, fields: Mapping[str, Any]) -> Json | None:
    return status if fields.items() <= status.items() else None


def exists(plane: ControlPlane, path: str) -> Json | None:
    """What is there now; None also for a kind that is being set up (429) or is not served."""
    try:
        return plane.api.get(path)
    except ApiError as error:
        if error.status not in (404, 429):
            raise
        return None
