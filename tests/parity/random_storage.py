"""Random storage: classes, volumes near some nodes, drivers with limits, pools; see `random_volumes`.

Kube-scheduler's answer is arbitrary where two volumes are of one size, or two storage pools reach one
node; neither is made here.
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


class Storage:
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


def label(rng: Random, labels: dict[str, str]) -> None:
    zone = rng.choice(ZONES)
    if rng.random() < 0.9:
        labels[ZONE], labels[REGION] = zone, "eu-1"
    if rng.random() < 0.2:
        labels[OLD_ZONE], labels[OLD_REGION] = zone, "eu-1"
    for key in (EBS_ZONE, GCE_ZONE):
        if rng.random() < 0.6:
            labels[key] = zone


def add_classes(storage: Storage) -> None:
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


def add_drivers(storage: Storage) -> None:
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


def add_csi_nodes(storage: Storage) -> None:
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


def _affinity(storage: Storage) -> Json:
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


def _source(storage: Storage) -> Json:
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


def _zone_labels(storage: Storage) -> Json:
    rng, labels = storage.rng, {}
    if storage.chance(0.45):
        zones = rng.sample(ZONES, rng.choice([1, 1, 2]))
        labels[rng.choice([ZONE, ZONE, OLD_ZONE])] = "__".join(zones)
    if storage.chance(0.15):
        labels[rng.choice([REGION, OLD_REGION])] = rng.choice(["eu-1", "eu-1", "us-2", "eu-1__"])
    return labels


def add_volume(storage: Storage, *, class_name: str = "", claim: Json | None = None, **spec: Any) -> str:
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


def add_static_volumes(storage: Storage) -> None:
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


def add_attachment(storage: Storage) -> None:
    rng = storage.rng
    spec = {
        "attacher": rng.choice([*DRIVERS, "fast.example.com"]),
        "nodeName": rng.choice(storage.nodes),
        "source": {"persistentVolumeName": rng.choice([*storage.volumes, "pv-gone"])},
    }
    storage.add("VolumeAttachment", "storage.k8s.io/v1", {"name": storage.name("va")}, spec=spec)
