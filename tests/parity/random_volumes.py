"""Random storage: claims in every state, classes, volumes near some nodes, drivers with limits, disks.

It is added to a cluster that is there already. Kube-scheduler's answer is arbitrary where two volumes are
of one size, or two storage pools reach one node; neither is made here.
"""

from __future__ import annotations

from random import Random
from typing import Any

Json = dict[str, Any]

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
OLD_ZONE, OLD_REGION = (
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
EBS_ZONE = "topology.ebs.csi.aws.com/zone"
GCE_ZONE = "topology.gke.io/zone"
CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
ZONES = ("eu-1-a", "eu-1-b", "eu-1-c")
DRIVERS = ("fast.example.com", "ebs.csi.aws.com", "pd.csi.storage.gke.io")
CLASSES: dict[str, Json] = {
    "static": {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"},
    "dynamic": {"provisioner": "fast.example.com", "volumeBindingMode": "WaitForFirstConsumer"},
    "pools": {"provisioner": "pools.example.com", "volumeBindingMode": "WaitForFirstConsumer"},
    "in-tree": {"provisioner": "kubernetes.io/aws-ebs", "volumeBindingMode": "WaitForFirstConsumer"},
    "now": {"provisioner": "fast.example.com", "volumeBindingMode": "Immediate"},
}
MIGRATABLE = ("kubernetes.io/aws-ebs", "kubernetes.io/gce-pd", "kubernetes.io/cinder")
GIB = 1 << 30
_TEMPLATE = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
EPHEMERAL = {"ephemeral": {"volumeClaimTemplate": {"spec": _TEMPLATE}}}
BOUND = {"pv.kubernetes.io/bind-completed": "yes"}


class _Storage:
    """Objects made so far for one document."""

    def __init__(self, rng: Random, document: Json) -> None:
        self.rng = rng
        self.objects: list[Json] = document["objects"]
        self.nodes = [node["metadata"]["name"] for node in document["nodes"]]
        self.count = 0
        self.sizes = rng.sample(range(1, 300), 140)
        self.volumes: list[str] = []

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}-{self.count:02}"

    def add(self, kind: str, version: str, metadata: Json, **fields: Any) -> None:
        self.objects.append({"kind": kind, "apiVersion": version, "metadata": metadata, **fields})

    def size(self) -> int:
        """Of a volume; no two are equal."""
        return self.sizes.pop() * GIB // 4

    def chance(self, share: float) -> bool:
        return self.rng.random() < share


def add(rng: Random, document: Json) -> None:
    """Storage, and pods that use it."""
    storage = _Storage(rng, document)
    for node in document["nodes"]:
        _label(rng, node["metadata"]["labels"])
    _add_classes(storage)
    _add_drivers(storage)
    _add_csi_nodes(storage)
    _add_static_volumes(storage)
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
            _add_attachment(storage)
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


def _label(rng: Random, labels: dict[str, str]) -> None:
    zone = rng.choice(ZONES)
    if rng.random() < 0.9:
        labels[ZONE], labels[REGION] = zone, "eu-1"
    if rng.random() < 0.2:
        labels[OLD_ZONE], labels[OLD_REGION] = zone, "eu-1"
    for key in (EBS_ZONE, GCE_ZONE):
        if rng.random() < 0.6:
            labels[key] = zone


def _add_classes(storage: _Storage) -> None:
    rng = storage.rng
    for name, fields in CLASSES.items():
        if not storage.chance(0.97):
            continue
        more = {}
        if name in ("dynamic", "pools") and storage.chance(0.35):
            more["allowedTopologies"] = [
                {"matchLabelExpressions": [{"key": ZONE, "values": rng.sample(ZONES, rng.randint(1, 2))}]}
                for _ in range(rng.choice([1, 1, 2]))
            ]
        storage.add("StorageClass", "storage.k8s.io/v1", {"name": name}, **fields, **more)


def _add_drivers(storage: _Storage) -> None:
    rng = storage.rng
    picky = rng.choice([None, None, *DRIVERS])
    for driver in DRIVERS:
        if storage.chance(0.8):
            spec = {"preventPodSchedulingIfMissing": True} if driver == picky else {}
            storage.add("CSIDriver", "storage.k8s.io/v1", {"name": driver}, spec=spec)
    spec = {"storageCapacity": True} if storage.chance(0.95) else {}
    storage.add("CSIDriver", "storage.k8s.io/v1", {"name": "pools.example.com"}, spec=spec)
    selectors: list[Json] = [{"matchLabels": {ZONE: zone}} for zone in ZONES]
    selectors.append({"matchExpressions": [{"key": ZONE, "operator": "DoesNotExist"}]})
    if storage.chance(0.15):
        selectors = [{}]
    for selector in selectors:
        if not storage.chance(0.85):
            continue
        fields: Json = {"storageClassName": "pools", "capacity": str(rng.randint(5, 200) * GIB // 4)}
        if storage.chance(0.3):
            fields["maximumVolumeSize"] = str(rng.randint(5, 120) * GIB // 4)
        if storage.chance(0.95):
            fields["nodeTopology"] = selector
        metadata = {"name": storage.name("capacity"), "namespace": "kube-system"}
        storage.add("CSIStorageCapacity", "storage.k8s.io/v1", metadata, **fields)


def _add_csi_nodes(storage: _Storage) -> None:
    rng = storage.rng
    tight = rng.choice([(None, 3, 8), (0, 1, 1, 2, 3), (1, 2, None)])
    for node in storage.nodes:
        if not storage.chance(0.9):
            continue
        drivers = []
        for driver in DRIVERS:
            if storage.chance(0.8):
                count = rng.choice(tight)
                allocatable = {} if count is None else {"allocatable": {"count": count}}
                drivers.append({"name": driver, "nodeID": node, **allocatable})
        metadata: Json = {"name": node}
        migrated = [plugin for plugin in MIGRATABLE if storage.chance(0.6)]
        if migrated:
            metadata["annotations"] = {"storage.alpha.kubernetes.io/migrated-plugins": ",".join(migrated)}
        storage.add("CSINode", "storage.k8s.io/v1", metadata, spec={"drivers": drivers})


def _affinity(storage: _Storage) -> Json:
    rng = storage.rng
    kind = rng.random()
    if kind < 0.3 and storage.nodes:
        expressions = [_in("kubernetes.io/hostname", rng.sample(storage.nodes, 1))]
    elif kind < 0.85:
        key = rng.choice([ZONE, ZONE, ZONE, OLD_ZONE, EBS_ZONE])
        expressions = [_in(key, rng.sample(ZONES, rng.choice([1, 1, 2])))]
        if rng.random() < 0.2:
            expressions.append({"key": "pool", "operator": rng.choice(["Exists", "DoesNotExist"])})
    else:
        expressions = [{"key": ZONE, "operator": "NotIn", "values": [rng.choice(ZONES)]}]
    terms = [{"matchExpressions": expressions}]
    if rng.random() < 0.15:
        terms.append({"matchExpressions": [_in("pool", ["x"])]})
    return {"required": {"nodeSelectorTerms": terms}}


def _in(key: str, values: list[str]) -> Json:
    return {"key": key, "operator": "In", "values": values}


def _source(storage: _Storage) -> Json:
    rng = storage.rng
    number = rng.randint(1, 12)
    return rng.choice(
        [
            {"csi": {"driver": rng.choice(DRIVERS), "volumeHandle": f"vol-{number}"}},
            {"csi": {"driver": rng.choice(DRIVERS), "volumeHandle": f"vol-{number}"}},
            {"csi": {"driver": "fast.example.com", "volumeHandle": f"vol-{number}"}},
            {
                "awsElasticBlockStore": {
                    "volumeID": rng.choice([f"vol-{number}", f"aws://eu-1-a/vol-{number}"])
                }
            },
            {"gcePersistentDisk": {"pdName": f"disk-{number}"}},
            {"azureDisk": {"diskName": f"disk-{number}", "diskURI": f"/disk-{number}", "kind": "Managed"}},
            {"cinder": {"volumeID": f"cinder-{number}"}},
            {"portworxVolume": {"volumeID": f"px-{number}"}},
            {"azureFile": {"secretName": "secret", "shareName": "share"}},
            {"vsphereVolume": {"volumePath": "[store] path"}},
            {"hostPath": {"path": "/data"}},
            {"nfs": {"server": "server", "path": "/data"}},
        ]
    )


def _zone_labels(storage: _Storage) -> Json:
    rng, labels = storage.rng, {}
    if storage.chance(0.45):
        zones = rng.sample(ZONES, rng.choice([1, 1, 2]))
        labels[rng.choice([ZONE, ZONE, OLD_ZONE])] = "__".join(zones)
    if storage.chance(0.15):
        labels[rng.choice([REGION, OLD_REGION])] = rng.choice(["eu-1", "eu-1", "us-2", "eu-1__"])
    return labels


def _add_volume(storage: _Storage, *, class_name: str = "", claim: Json | None = None, **spec: Any) -> str:
    name = storage.name("pv")
    fields = {
        "capacity": {"storage": str(storage.size())},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_name,
        **_source(storage),
    }
    if storage.chance(0.3):
        fields["nodeAffinity"] = _affinity(storage)
    if claim is not None:
        fields["claimRef"] = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", **claim}
    metadata: Json = {"name": name, "uid": f"uid-of-{name}", "labels": _zone_labels(storage)}
    phase = "Bound" if claim is not None else "Available"
    storage.add("PersistentVolume", "v1", metadata, spec={**fields, **spec}, status={"phase": phase})
    storage.volumes.append(name)
    return name


def _add_static_volumes(storage: _Storage) -> None:
    rng = storage.rng
    for _ in range(rng.choice([0, 3, 8, 16])):
        name = storage.name("pv")
        spec: Json = {
            "capacity": {"storage": str(storage.size())},
            "accessModes": rng.sample(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"], rng.randint(1, 2)),
            "storageClassName": "static" if storage.chance(0.85) else "dynamic",
            "local": {"path": "/data"},
        }
        if storage.chance(0.7):
            spec["nodeAffinity"] = _affinity(storage)
        if storage.chance(0.1):
            spec["volumeMode"] = rng.choice(["Block", "Filesystem"])
        if storage.chance(0.05):
            spec["volumeAttributesClassName"] = "gold"
        if storage.chance(0.1):
            reference = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "somebody's"}
            spec["claimRef"] = reference
        metadata: Json = {"name": name, "uid": f"uid-of-{name}", "labels": {"tier": rng.choice("ab")}}
        if storage.chance(0.05):
            metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/hold"]}
        if storage.chance(0.05):
            metadata["annotations"] = {CLASS_ANNOTATION: "dynamic"}
        phase = "Available" if storage.chance(0.9) else rng.choice(["Pending", "Released"])
        storage.add("PersistentVolume", "v1", metadata, spec=spec, status={"phase": phase})


def _add_attachment(storage: _Storage) -> None:
    rng = storage.rng
    spec = {
        "attacher": rng.choice([*DRIVERS, "fast.example.com"]),
        "nodeName": rng.choice(storage.nodes),
        "source": {"persistentVolumeName": rng.choice([*storage.volumes, "pv-gone"])},
    }
    storage.add("VolumeAttachment", "storage.k8s.io/v1", {"name": storage.name("va")}, spec=spec)


def _use(pod: Json, volume: Json | None) -> None:
    if volume is None:
        return
    volumes = pod["spec"].setdefault("volumes", [])
    volumes.append({"name": f"data-{len(volumes)}", **volume})


def _namespace(pod: Json) -> str:
    return str(pod["metadata"].get("namespace", "default"))


def _add_claim(storage: _Storage, namespace: str, name: str, **fields: Any) -> None:
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


def _bound_claim(storage: _Storage, namespace: str, name: str, **fields: Any) -> None:
    """A claim with its volume."""
    claim = {"namespace": namespace, "name": name, "uid": f"uid-of-{namespace}-{name}"}
    volume = _add_volume(storage, claim=claim)
    _add_claim(storage, namespace, name, annotations=BOUND, phase="Bound", volumeName=volume, **fields)


def _bound_pods_volume(storage: _Storage, pod: Json) -> Json | None:
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


def _disk(storage: _Storage) -> Json:
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


def _request(storage: _Storage) -> Json:
    """Sizes of claims may be equal."""
    most = storage.rng.choice([10, 60])
    return {"requests": {"storage": str(storage.rng.randint(1, most) * GIB // 4)}}


def _incoming_volume(storage: _Storage, document: Json, trouble: float) -> Json | None:
    rng, pod = storage.rng, document["pod"]
    namespace, name = _namespace(pod), storage.name("claim")
    kind = rng.random()
    if storage.chance(trouble):
        return _troubled(storage, pod, name)
    if kind < 0.12:
        return _disk(storage)
    if kind < 0.3:
        _bound_claim(storage, namespace, name)
    elif kind < 0.42:
        _exclusive(storage, document, name)
    elif kind < 0.5:
        return _shared(document, namespace) or _disk(storage)
    elif kind < 0.58:
        claim = f"{pod['metadata']['name']}-data-{len(pod['spec'].get('volumes', ()))}"
        _waiting(storage, namespace, claim, owner=pod["metadata"]["uid"])
        return EPHEMERAL
    else:
        _waiting(storage, namespace, name)
    return {"persistentVolumeClaim": {"claimName": name}}


def _waiting(storage: _Storage, namespace: str, name: str, **fields: Any) -> None:
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
        _add_volume(storage, class_name=spec["storageClassName"], claim=reference)


def _exclusive(storage: _Storage, document: Json, name: str) -> None:
    """A claim of one pod at a time; mostly there is such a pod."""
    namespace = _namespace(document["pod"])
    _bound_claim(storage, namespace, name, accessModes=["ReadWriteOncePod"])
    others = [pod for pod in document["pods"] if _namespace(pod) == namespace]
    if others and storage.chance(0.6):
        _use(storage.rng.choice(others), {"persistentVolumeClaim": {"claimName": name}})


def _shared(document: Json, namespace: str) -> Json | None:
    """A claim that a pod on a node uses."""
    for pod in document["pods"]:
        for volume in pod["spec"].get("volumes", ()):
            if "persistentVolumeClaim" in volume and _namespace(pod) == namespace:
                return {"persistentVolumeClaim": volume["persistentVolumeClaim"]}
    return None


def _troubled(storage: _Storage, pod: Json, name: str) -> Json:
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
