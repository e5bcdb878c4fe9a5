"""Random volumes of pods: claims in every state, disks that pods name themselves.

They are added, with the storage that they need, to a cluster that is there already.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.parity.random_storage import (
    CLASS_ANNOTATION,
    GIB,
    Json,
    Storage,
    add_attachment,
    add_classes,
    add_csi_nodes,
    add_drivers,
    add_static_volumes,
    add_volume,
    label,
)

_TEMPLATE = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
EPHEMERAL = {"ephemeral": {"volumeClaimTemplate": {"spec": _TEMPLATE}}}
BOUND = {"pv.kubernetes.io/bind-completed": "yes"}


def add(rng: Random, document: Json) -> None:
    """Storage, and pods that use it."""
    storage = Storage(rng, document)
    for node in document["nodes"]:
        label(rng, node["metadata"]["labels"])
    add_classes(storage)
    add_drivers(storage)
    add_csi_nodes(storage)
    add_static_volumes(storage)
    for i, pod in enumerate(document["pods"]):
        if storage.chance(0.3):
            pod["metadata"]["uid"] = f"uid-of-bound-{i}"
            for _ in range(rng.choice([1, 1, 2, 3])):
                _use(pod, _bound_pods_volume(storage, pod))
    incoming = document["pod"]
    incoming["metadata"]["uid"] = "uid-of-incoming"
    if storage.chance(0.6):
        _ask_for_little_else(incoming["spec"])
    if storage.chance(0.45):
        for _ in range(rng.choice([1, 1, 1, 2])):
            name = storage.name("claim")
            _waiting(storage, _namespace(incoming), name, storageClassName=rng.choice(["pools", "static"]))
            _use(incoming, {"persistentVolumeClaim": {"claimName": name}})
    else:
        trouble = rng.choice([0.0, 0.0, 0.15])
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _use(incoming, _incoming_volume(storage, document, trouble))
    if storage.volumes and storage.nodes:
        for _ in range(rng.choice([0, 0, 3, 8])):
            add_attachment(storage)
    if storage.chance(0.3):
        shape = [{"utilization": 0, "score": 0}, {"utilization": rng.choice([40, 100]), "score": 10}]
        config = {"name": "VolumeBinding", "args": {"bindTimeoutSeconds": 60, "shape": shape}}
        document.setdefault("pluginConfig", []).append(config)


def _ask_for_little_else(spec: Json) -> None:
    """Other rules come first, and a node that they reject says nothing of storage."""
    for field in ("nodeSelector", "nodeName", "resources", "overhead", "initContainers"):
        spec.pop(field, None)
    node_affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    node_affinity.pop("requiredDuringSchedulingIgnoredDuringExecution", None)
    spec["tolerations"] = [{"operator": "Exists"}]
    for container in spec["containers"]:
        container.pop("resources", None)
        container.pop("ports", None)


def _use(pod: Json, volume: Json | None) -> None:
    if volume is None:
        return
    volumes = pod["spec"].setdefault("volumes", [])
    volumes.append({"name": f"data-{len(volumes)}", **volume})


def _namespace(pod: Json) -> str:
    return str(pod["metadata"].get("namespace", "default"))


def _add_claim(storage: Storage, namespace: str, name: str, **fields: Any) -> None:
    """`fields`: annotations, owner, deleted, phase, and what the claim's spec says."""
    metadata: Json = {"name": name, "namespace": namespace, "uid": f"uid-of-{namespace}-{name}"}
    if fields.get("annotations"):
        metadata["annotations"] = fields.pop("annotations")
    if fields.get("owner"):
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "owner", "controller": True}
        metadata["ownerReferences"] = [{**owner, "uid": fields.pop("owner")}]
    if fields.pop("deleted", False):
        metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/hold"]}
    status = {"phase": fields.pop("phase", "Pending")}
    spec = {"accessModes": ["ReadWriteOnce"], **fields}
    storage.add("PersistentVolumeClaim", "v1", metadata, spec=spec, status=status)


def _bound_claim(storage: Storage, namespace: str, name: str, **fields: Any) -> None:
    """A claim with its volume."""
    claim = {"namespace": namespace, "name": name, "uid": f"uid-of-{namespace}-{name}"}
    volume = add_volume(storage, claim=claim)
    _add_claim(storage, namespace, name, annotations=BOUND, phase="Bound", volumeName=volume, **fields)


def _bound_pods_volume(storage: Storage, pod: Json) -> Json | None:
    rng, namespace = storage.rng, _namespace(pod)
    name = storage.name("bound")
    kind = rng.random()
    if kind < 0.25:
        return _disk(storage)
    if len(storage.sizes) < 20:
        return None
    if kind < 0.35:
        volume = f"data-{len(pod['spec'].get('volumes', ()))}"
        claim = f"{pod['metadata']['name']}-{volume}"
        _bound_claim(storage, namespace, claim, owner=pod["metadata"]["uid"])
        return EPHEMERAL
    if kind < 0.45:
        waiting = rng.choice(["dynamic", "in-tree", "nowhere"])
        _add_claim(storage, namespace, name, storageClassName=waiting, resources=_request(storage))
    elif kind > 0.5:
        _bound_claim(storage, namespace, name)
    return {"persistentVolumeClaim": {"claimName": name}}


def _disk(storage: Storage) -> Json:
    rng = storage.rng
    number, read_only = rng.randint(1, 2), rng.random() < 0.3
    rbd = {"monitors": rng.sample(["m1", "m2", "m3"], 2), "pool": "rbd", "image": f"image-{number}"}
    return rng.choice(
        [
            {"gcePersistentDisk": {"pdName": f"disk-{number}", "readOnly": read_only}},
            {"awsElasticBlockStore": {"volumeID": f"vol-{number}", "readOnly": read_only}},
            {
                "iscsi": {
                    "targetPortal": "p",
                    "iqn": f"iqn.2026-01.com.example:disk-{number}",
                    "lun": 0,
                    "readOnly": read_only,
                }
            },
            {"rbd": {**rbd, "readOnly": read_only}},
            {"cinder": {"volumeID": f"cinder-{number}"}},
            {"azureFile": {"secretName": "secret", "shareName": "share"}},
        ]
    )


def _request(storage: Storage) -> Json:
    """Sizes of claims may be equal."""
    most = storage.rng.choice([10, 60])
    return {"requests": {"storage": str(storage.rng.randint(1, most) * GIB // 4)}}


def _incoming_volume(storage: Storage, document: Json, trouble: float) -> Json | None:
    rng, pod = storage.rng, document["pod"]
    namespace, name = _namespace(pod), storage.name("claim")
    kind = rng.random()
    if storage.chance(trouble):
        return _troubled(storage, pod, name)
    if kind < 0.12:
        return _disk(storage)
    if kind < 0.3:
        _bound_claim(storage, namespace, name)
    elif kind < 0.46:
        _exclusive(storage, document, name)
    elif kind < 0.53:
        return _shared(document, namespace) or _disk(storage)
    elif kind < 0.6:
        claim = f"{pod['metadata']['name']}-data-{len(pod['spec'].get('volumes', ()))}"
        _waiting(storage, namespace, claim, owner=pod["metadata"]["uid"])
        return EPHEMERAL
    else:
        _waiting(storage, namespace, name)
    return {"persistentVolumeClaim": {"claimName": name}}


def _waiting(storage: Storage, namespace: str, name: str, **fields: Any) -> None:
    """A claim that waits for its first consumer."""
    rng = storage.rng
    classes = ["static", "static", "dynamic", "pools", "pools", "in-tree"]
    spec: Json = {"storageClassName": fields.pop("storageClassName", rng.choice(classes))}
    if storage.chance(0.95):
        spec["resources"] = _request(storage)
    if storage.chance(0.5):
        _add_claim(storage, namespace, name, **spec, **fields)
        return
    if storage.chance(0.1):
        spec["accessModes"] = rng.choice([["ReadWriteMany"], ["ReadWriteOnce", "ReadOnlyMany"]])
    if storage.chance(0.1):
        spec["selector"] = {"matchLabels": {"tier": rng.choice("ab")}}
    if storage.chance(0.05):
        spec["volumeMode"] = "Block"
    if storage.chance(0.05):
        spec["volumeAttributesClassName"] = "gold"
    if storage.chance(0.08):
        node = rng.choice([*storage.nodes, "elsewhere"])
        fields["annotations"] = {"volume.kubernetes.io/selected-node": node}
    _add_claim(storage, namespace, name, **spec, **fields)
    if storage.chance(0.1):
        reference = {"namespace": namespace, "name": name}
        if storage.chance(0.6):
            reference["uid"] = f"uid-of-{namespace}-{name}"
        if storage.chance(0.2):
            reference["uid"] = "another"
        add_volume(storage, class_name=spec["storageClassName"], claim=reference)


def _exclusive(storage: Storage, document: Json, name: str) -> None:
    """A claim of one pod at a time; mostly there is such a pod."""
    namespace = _namespace(document["pod"])
    _bound_claim(storage, namespace, name, accessModes=["ReadWriteOncePod"])
    others = [pod for pod in document["pods"] if _namespace(pod) == namespace]
    if others and storage.chance(0.8):
        _use(storage.rng.choice(others), {"persistentVolumeClaim": {"claimName": name}})


def _shared(document: Json, namespace: str) -> Json | None:
    """A claim that a pod on a node uses."""
    for pod in document["pods"]:
        for volume in pod["spec"].get("volumes", ()):
            if "persistentVolumeClaim" in volume and _namespace(pod) == namespace:
                return {"persistentVolumeClaim": volume["persistentVolumeClaim"]}
    return None


def _troubled(storage: Storage, pod: Json, name: str) -> Json:
    """A claim that keeps its pod from every node, or nearly."""
    rng, namespace = storage.rng, _namespace(pod)
    kind = rng.choice(
        [
            *("missing", "lost", "deleted", "immediate", "reserved", "no volume", "no class"),
            *(
                "unknown class",
                "old class",
                "ephemeral missing",
                "ephemeral of another",
                "ephemeral no volume",
            ),
        ]
    )
    request = {"resources": _request(storage)}
    if kind.startswith("ephemeral"):
        claim = f"{pod['metadata']['name']}-data-{len(pod['spec'].get('volumes', ()))}"
        if kind == "ephemeral of another":
            _add_claim(storage, namespace, claim, owner="another", storageClassName="dynamic", **request)
        elif kind == "ephemeral no volume":
            owner = pod["metadata"]["uid"]
            _add_claim(
                storage, namespace, claim, owner=owner, annotations=BOUND, phase="Bound", volumeName="pv-gone"
            )
        return EPHEMERAL
    states: dict[str, Json | None] = {
        "missing": None,
        "lost": {"phase": "Lost", "volumeName": "pv-gone", "annotations": BOUND},
        "deleted": {"deleted": True, "storageClassName": "dynamic", **request},
        "immediate": {"storageClassName": "now", **request},
        "reserved": {"volumeName": "pv-gone", "storageClassName": "static", **request},
        "no volume": {"volumeName": "pv-gone", "annotations": BOUND, "phase": "Bound"},
        "no class": {**request},
        "unknown class": {"storageClassName": "nowhere", **request},
        "old class": {"annotations": {CLASS_ANNOTATION: "static"}, "storageClassName": "now", **request},
    }
    fields = states[kind]
    if fields is not None:
        _add_claim(storage, namespace, name, **fields)
    return {"persistentVolumeClaim": {"claimName": name}}
