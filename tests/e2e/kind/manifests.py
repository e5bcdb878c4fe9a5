"""The pods that end-to-end tests create; all run the program `workload` (tests/cluster/programs/workload)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

IMAGE = "localhost/wholepod-workload:e2e"
WORKLOAD = "/workload"
SHARED = "/shared"
PORT = 8080


def container(name: str, *arguments: str, memory: str = "16Mi", **more: Any) -> Json:
    """One that asks for memory, and hardly any CPU."""
    return {
        "name": name,
        "image": IMAGE,
        "args": list(arguments),
        "resources": {"requests": {"memory": memory, "cpu": "1m"}},
        **more,
    }


def holding(name: str, mebibytes: int, *, of: str) -> Json:
    """A container that asks for `of`, really takes so much, and may not take more."""
    whole = container(name, "hold", str(mebibytes), memory=of)
    whole["resources"]["limits"] = {"memory": of}
    return whole


def spec(*containers: Json, scheduler: str | None = "wholepod", **more: Any) -> Json:
    """A pod's; `scheduler` None leaves it to the cluster's default."""
    named = {} if scheduler is None else {"schedulerName": scheduler}
    return {**named, "containers": list(containers), "terminationGracePeriodSeconds": 5, **more}


def pod(
    namespace: str,
    name: str,
    of: Json,
    *,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
        },
        "spec": of,
    }


def gang(namespace: str, name: str, size: int, strategy: str, of: Json) -> Sequence[Json]:
    """Its members: each says all that there is to know."""
    said = {
        "wholepod.io/gang": name,
        "wholepod.io/min-count": str(size),
        "wholepod.io/strategy": strategy,
    }
    return [pod(namespace, f"{name}-{number}", of, annotations=said) for number in range(size)]


def pod_group(namespace: str, name: str, size: int, of: Json) -> Sequence[Json]:
    """A PodGroup of scheduling.x-k8s.io and its members."""
    group = {
        "apiVersion": "scheduling.x-k8s.io/v1alpha1",
        "kind": "PodGroup",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"minMember": size},
    }
    labels = {"scheduling.x-k8s.io/pod-group": name}
    return [group, *(pod(namespace, f"{name}-{number}", of, labels=labels) for number in range(size))]


def deployment(namespace: str, name: str, replicas: int, of: Json) -> Json:
    return _workload("Deployment", namespace, name, of, replicas=replicas)


def daemon_set(namespace: str, name: str, of: Json) -> Json:
    return _workload("DaemonSet", namespace, name, of)


def job(namespace: str, name: str, of: Json) -> Json:
    """One pod, tried once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {"app": name}}, "spec": {**of, "restartPolicy": "Never"}},
        },
    }


def web_and_sidecar(namespace: str, name: str) -> Json:
    """A web server, and a sidecar that renews what it serves; they share a volume and one address."""
    mounts = [{"name": "shared", "mountPath": SHARED}]
    refresher = container(
        "refresher", "refresh", f"{SHARED}/page", restartPolicy="Always", volumeMounts=mounts
    )
    web = container("web", "serve", f":{PORT}", SHARED, volumeMounts=mounts)
    volumes = [{"name": "shared", "emptyDir": {}}]
    return pod(namespace, name, spec(web, initContainers=[refresher], volumes=volumes))


def _workload(kind: str, namespace: str, name: str, of: Json, **more: Any) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": of},
            **more,
        },
    }
