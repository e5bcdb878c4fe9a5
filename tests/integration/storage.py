"""Volumes for tests: classes, volumes and claims, and a provisioner that makes volumes.

kube-controller-manager has no part in making volumes outside of the tree: it marks the claim for the
provisioner of its class, and binds the claim to the volume that appears. What an external provisioner
does between these two (kubernetes-csi/external-provisioner) is what `Provisioner` does: it waits for a
claim that names it and a node, then makes a volume that this node can use; or it fails and takes the
node's name off again, so that the scheduler chooses anew.
"""

import http.client
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.cluster import ApiError, ControlPlane
from tests.integration.harness import DEADLINE_S, Json
from tests.integration.observer import Observer

CLAIMS, VOLUMES = "/api/v1/persistentvolumeclaims", "/api/v1/persistentvolumes"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
PROVISIONER = "volumes.example.com"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"


def storage_class(name: str, provisioner: str = NO_PROVISIONER, *, immediate: bool = False) -> Json:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "volumeBindingMode": "Immediate" if immediate else "WaitForFirstConsumer",
    }


def volume(name: str, of_class: str, where: Mapping[str, str], *, size: str = "1Gi", **more: Any) -> Json:
    """A local volume that nodes with these labels can use; `more` adds to its spec."""
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in where.items()]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"],
            "storageClassName": of_class,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": f"/disks/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}},
            **more,
        },
    }


def claim(
    name: str, of_class: str, *, namespace: str, size: str = "1Gi", mode: str = "ReadWriteOnce", **more: Any
) -> Json:
    """`more` adds to its spec."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": [mode],
            "storageClassName": of_class,
            "resources": {"requests": {"storage": size}},
            **more,
        },
    }


def claiming(*claims: str) -> Json:
    """The part of a pod's spec that uses these claims."""
    return {"volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]}


class Provisioner:
    """Makes volumes for the claims of one class; a context manager that works in a thread.

    It fails for nodes in `broken`, each time. While `paused` it does nothing.
    """

    def __init__(self, plane: ControlPlane, claims: Observer, *, broken: Iterable[str] = ()) -> None:
        self._plane, self._claims = plane, claims
        self._broken = frozenset(broken)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="provision", daemon=True)
        self.resumed = threading.Event()
        self.resumed.set()
        self.refused: list[str] = []
        """Claims that it failed for, once for each time."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self.resumed.set()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.resumed.wait()
            for found in self._claims.ask(lambda claims: [c for c in claims.values() if _is_ours(c)]):
                # The API server may be dead, or the claim gone: there is another round.
                with suppress(OSError, http.client.HTTPException, ApiError):
                    self._provision(found)
            self._stop.wait(0.05)

    def _provision(self, found: Json) -> None:
        metadata = found["metadata"]
        node = metadata["annotations"][SELECTED_NODE]
        if node in self._broken:
            annotations = {SELECTED_NODE: None}
            self._plane.api.patch(
                f"/api/v1/namespaces/{metadata['namespace']}/persistentvolumeclaims/{metadata['name']}",
                {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": annotations}},
            )
            self.refused.append(metadata["name"])
            return
        labels = self._plane.api.get(f"/api/v1/nodes/{node}")["metadata"]["labels"]
        where = {"kubernetes.io/hostname": labels["kubernetes.io/hostname"]}
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        made = volume(f"pvc-{metadata['uid']}", found["spec"]["storageClassName"], where, claimRef=reference)
        made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": PROVISIONER}
        self._plane.api.create(made)


def _is_ours(found: Json) -> bool:
    annotations = found["metadata"].get("annotations", {})
    named = annotations.get(STORAGE_PROVISIONER) == PROVISIONER and SELECTED_NODE in annotations
    return named and not found["spec"].get("volumeName")
