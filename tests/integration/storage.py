"""Volumes for tests: classes, volumes and claims in few words, and a provisioner that makes volumes.

kube-controller-manager is real here: it binds claims to volumes, and tells the provisioner of a class which
claims to serve. Making the volumes is not its business. What an external provisioner does
(kubernetes-csi/external-provisioner) is what `Provisioner` does: it waits for a claim that names it and a
node, then makes a volume that this node can use; or it fails and takes the node's name off again, so that
the scheduler chooses anew.
"""

import http.client
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.cluster import ApiError, ControlPlane
from tests.integration.harness import DEADLINE_S, Json, Scheduler, eventually
from tests.integration.observer import Observer
from tests.integration.workbench import T, Workbench

CLAIMS, VOLUMES = "/api/v1/persistentvolumeclaims", "/api/v1/persistentvolumes"
NO_PROVISIONER, PROVISIONER = "kubernetes.io/no-provisioner", "volumes.example.com"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
HOSTNAME = "kubernetes.io/hostname"
FLAGS = ("--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000")
"""Of schedulers in tests that are not about rates or leaders."""
_POLL_S = 0.02


class Storage(Workbench):
    """A workbench with three storage classes: `local` (volumes exist, or don't), `made` (by a provisioner),
    both waiting for their first consumer, and `immediate`, which does not wait.

    Names of claims mean those of this namespace. Volumes are the cluster's and go with the test, too.
    """

    def __init__(
        self, plane: ControlPlane, pods: Observer, events: Observer, claims: Observer, volumes: Observer
    ) -> None:
        super().__init__(plane, pods, events)
        self.claims, self.volumes = claims, volumes
        account = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        eventually(lambda: self.api.count(account), "the namespace has its ServiceAccount")
        for name, provisioner, mode in (
            ("local", NO_PROVISIONER, "WaitForFirstConsumer"),
            ("made", PROVISIONER, "WaitForFirstConsumer"),
            ("immediate", NO_PROVISIONER, "Immediate"),
        ):
            self.api.create(
                {
                    "apiVersion": "storage.k8s.io/v1",
                    "kind": "StorageClass",
                    "metadata": {"name": name},
                    "provisioner": provisioner,
                    "volumeBindingMode": mode,
                }
            )

    def clear(self) -> None:
        """Remove pods, nodes, claims, volumes and classes."""
        super().clear()
        self.api.delete(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims")
        self.claims.wait(lambda claims: not claims, "all claims are gone")
        self.api.delete(VOLUMES)
        self.volumes.wait(lambda volumes: not volumes, "all volumes are gone")
        self.api.delete("/apis/storage.k8s.io/v1/storageclasses")

    def volume(self, name: str, *, on: str = "", of: str = "local", size: str = "1Gi", **more: Any) -> None:
        """Create a volume on the disk of a node, and wait until it can be used; `more` adds to its spec."""
        self.api.create(volume_manifest(name, {HOSTNAME: on}, of=of, size=size, **more))
        self.wait_volume(name, lambda volume: volume["status"].get("phase") == "Available", "available")

    def claim(self, name: str, of: str, *, size: str = "1Gi", mode: str = "ReadWriteOnce") -> None:
        """Create a claim of a class."""
        spec = {
            "accessModes": [mode],
            "storageClassName": of,
            "resources": {"requests": {"storage": size}},
        }
        metadata = {"name": name, "namespace": self.namespace}
        kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        self.api.create({**kind, "metadata": metadata, "spec": spec})

    def consumer(self, name: str, *claims: str, **more: Any) -> None:
        """Create a pod that uses these claims; `more` as for `pod`."""
        uses = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
        self.pod(name, volumes=uses, **more)

    def claim_path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{name}"

    def volume_of(self, claim: str) -> str:
        """The volume that a claim is bound to, "" for none, as the API server has it now."""
        found = self.api.get(self.claim_path(claim))
        volume: str = found["spec"].get("volumeName", "")
        return volume

    def owner_of(self, volume: str) -> str:
        """The claim that a volume is reserved for, "" for none, as the API server has it now."""
        name: str = self.api.get(f"{VOLUMES}/{volume}")["spec"].get("claimRef", {}).get("name", "")
        return name

    def wait_volume(self, name: str, holds: Callable[[Json], T | None], what: str) -> T:
        """The first true value of `holds(volume)`."""
        return self.volumes.wait(
            lambda seen: holds(seen[name]) if name in seen else None, f"{name} is {what}"
        )

    def wait_claim_bound(self, name: str) -> None:
        key = f"{self.namespace}/{name}"
        self.claims.wait(
            lambda seen: key in seen and seen[key]["status"].get("phase") == "Bound", f"{name} is bound"
        )

    def wait_selected(self, claim: str) -> str:
        """Wait until a node is written into the claim; returns it."""
        key = f"{self.namespace}/{claim}"
        return self.claims.wait(
            lambda seen: selected_node(seen[key]) if key in seen else None, f"a node is chosen for {claim}"
        )


def volume_manifest(name: str, where: Mapping[str, str], *, of: str, size: str = "1Gi", **more: Any) -> Json:
    """A local volume that nodes with these labels can use."""
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in where.items()]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": of,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": f"/disks/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}},
            **more,
        },
    }


def selected_node(claim: Json) -> str:
    """The node that is written into a claim, "" for none."""
    node: str = claim["metadata"].get("annotations", {}).get(SELECTED_NODE, "")
    return node


def host(name: str, **labels: str) -> Json:
    """A node's labels, as its kubelet sets them."""
    return {"labels": {HOSTNAME: name, **labels}}


def waiting(scheduler: Scheduler) -> float:
    """Pods that have a node there and wait for their volumes."""
    return scheduler.metric("wholepod_pods_waiting_for_volumes")


class Provisioner:
    """Serves the class `made`; a context manager that works in a thread.

    It begins with the first claim once it is `resume`d, and fails for each claim as often as `failures`.
    """

    def __init__(self, storage: Storage, *, failures: int = 0, paused: bool = False) -> None:
        self._api, self._claims = storage.plane.api, storage.claims
        self._failures = failures
        self._failed: dict[str, int] = {}
        self._stop, self._resumed = threading.Event(), threading.Event()
        if not paused:
            self.resume()
        self._thread = threading.Thread(target=self._run, name="provision", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self.resume()
        self._thread.join(DEADLINE_S)

    def resume(self) -> None:
        self._resumed.set()

    def _run(self) -> None:
        self._resumed.wait()
        while not self._stop.wait(_POLL_S):
            for claim in self._claims.ask(
                lambda claims: [each for each in claims.values() if _is_ours(each)]
            ):
                # The server may be dead, the claim changed or gone, the volume made: there is another round.
                with suppress(OSError, http.client.HTTPException, ApiError):
                    self._serve(claim)

    def _serve(self, claim: Json) -> None:
        metadata = claim["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        if self._failed.get(uid, 0) < self._failures:
            guard = {"resourceVersion": metadata["resourceVersion"], "annotations": {SELECTED_NODE: None}}
            path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
            self._api.patch(path, {"metadata": guard})
            self._failed[uid] = self._failed.get(uid, 0) + 1
            return
        labels = self._api.get(f"/api/v1/nodes/{selected_node(claim)}")["metadata"]["labels"]
        where, of = {HOSTNAME: labels[HOSTNAME]}, claim["spec"]["storageClassName"]
        reference = {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name, "uid": uid}
        made = volume_manifest(f"pvc-{uid}", where, of=of, claimRef=reference)
        made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": PROVISIONER}
        self._api.create(made)


def _is_ours(claim: Json) -> bool:
    annotations = claim["metadata"].get("annotations", {})
    asked = annotations.get(STORAGE_PROVISIONER) == PROVISIONER and SELECTED_NODE in annotations
    return asked and not claim["spec"].get("volumeName")
