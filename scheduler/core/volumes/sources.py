"""Volumes of the drivers that once were part of Kubernetes, as volumes of the CSI drivers that replaced them.

An old manifest still says `awsElasticBlockStore`; the node that runs the pod attaches it with the CSI
driver, so that it counts for that driver's limit and its zone is that driver's zone.
Sources: k8s.io/csi-translation-lib (translate.go, plugins/*.go). azureFile and vsphereVolume can be
translated, too, but kube-scheduler never asks for it (isCSIMigrationOn in plugins/nodevolumelimits/utils.go).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from scheduler.api import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from scheduler.api_objects import PersistentVolume

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
OLD_ZONE, OLD_REGION = (
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
ZONES_DELIMITER = "__"
_AWS_VOLUME = re.compile(r"vol-[^/]*")


class Attachable(NamedTuple):
    """A volume that takes one of a driver's places on a node."""

    driver: str
    handle: str
    in_tree: bool = False
    """Whether it is of an old source: nodes without a CSINode attach it themselves."""


class UntranslatableVolume(ValueError):
    """A source that the CSI driver has no word for; the message says why."""


class _InTree(NamedTuple):
    field: str
    """Of the volume, in a pod's spec and in a PersistentVolume's."""
    driver: str
    topology_key: str
    """The label of nodes that stands for the zone; empty when the driver's volumes keep their affinity."""
    handle: Callable[[Mapping[str, Any]], str]


def _ebs_handle(source: Mapping[str, Any]) -> str:
    """KubernetesVolumeIDToEBSVolumeID: `aws://zone/vol-1`, `aws:///vol-1` or `vol-1`."""
    text = str(source.get("volumeID") or "")
    if not text.startswith("aws://"):
        return text
    try:
        name = urlsplit(text).path.strip("/")
    except ValueError as error:
        raise UntranslatableVolume(f"Invalid disk name ({text}): {error}") from error
    if not _AWS_VOLUME.fullmatch(name):
        raise UntranslatableVolume(f"Invalid format for AWS volume ({text})")
    return name


def _azure_handle(source: Mapping[str, Any]) -> str:
    kind = source.get("kind")
    if kind is not None and str(kind).lower() != "managed":
        raise UntranslatableVolume(f"kind({kind}) is not supported in csi migration")
    return str(source.get("diskURI") or "")


def _id_handle(source: Mapping[str, Any]) -> str:
    return str(source.get("volumeID") or "")


def _gce_handle(source: Mapping[str, Any]) -> str:
    return f"projects/UNSPECIFIED/zones/UNSPECIFIED/disks/{source.get('pdName') or ''}"


IN_TREE: Mapping[str, _InTree] = {
    "kubernetes.io/aws-ebs": _InTree(
        "awsElasticBlockStore", "ebs.csi.aws.com", "topology.ebs.csi.aws.com/zone", _ebs_handle
    ),
    "kubernetes.io/gce-pd": _InTree(
        "gcePersistentDisk", "pd.csi.storage.gke.io", "topology.gke.io/zone", _gce_handle
    ),
    "kubernetes.io/azure-disk": _InTree("azureDisk", "disk.csi.azure.com", "", _azure_handle),
    "kubernetes.io/cinder": _InTree(
        "cinder", "cinder.csi.openstack.org", "topology.cinder.csi.openstack.org/zone", _id_handle
    ),
    "kubernetes.io/portworx-volume": _InTree("portworxVolume", "pxd.portworx.com", "", _id_handle),
}
"""By the name of the provisioner that Kubernetes once had."""
NOT_COUNTED = frozenset({"kubernetes.io/azure-file", "kubernetes.io/vsphere-volume"})
"""Provisioners whose volumes are nobody's, as no driver is said to have taken them over."""
_SOURCES = tuple(IN_TREE.values())


def inline_volume(volume: Mapping[str, Any]) -> Attachable | None:
    """What a volume in a pod's spec is to the CSI driver that serves it; None without one.

    Raises UntranslatableVolume.
    """
    for source in _SOURCES:
        found = volume.get(source.field)
        if isinstance(found, dict):
            return Attachable(source.driver, source.handle(found), in_tree=True)
    return None


def attachable_volume(volume: PersistentVolume) -> Attachable | None:
    """What the volume is to a CSI driver; None when it is nothing to any, or can't be told."""
    csi = volume.spec.csi
    if csi is not None:
        driver, handle = csi.get("driver"), csi.get("volumeHandle")
        return Attachable(str(driver), str(handle)) if driver and handle else None
    provisioner, found = _source_of(volume)
    if found is None:
        return None
    in_tree = IN_TREE[provisioner]
    try:
        handle = in_tree.handle(found)
        if in_tree.field == "gcePersistentDisk":
            handle = _gce_volume_handle(volume, str(found.get("pdName") or ""))
    except UntranslatableVolume:
        return None
    return Attachable(in_tree.driver, handle, in_tree=True) if handle else None


def provisioner_of(volume: PersistentVolume) -> str:
    """Name of the old provisioner that a CSI driver may have replaced; empty for other volumes."""
    return _source_of(volume)[0]


def affinity_of(volume: PersistentVolume) -> NodeSelector | None:
    """As it is written."""
    return volume.spec.node_affinity.required if volume.spec.node_affinity is not None else None


def translated_affinity(volume: PersistentVolume) -> NodeSelector | None:
    """The affinity on nodes where the CSI driver has taken over. Raises UntranslatableVolume."""
    provisioner, found = _source_of(volume)
    affinity = affinity_of(volume)
    if found is None:
        return affinity
    in_tree = IN_TREE[provisioner]
    in_tree.handle(found)
    if in_tree.field == "gcePersistentDisk":
        _gce_volume_handle(volume, "")
    if in_tree.topology_key:
        affinity = _with_topology(affinity, volume.metadata.labels or {}, in_tree.topology_key)
    return affinity


def _source_of(volume: PersistentVolume) -> tuple[str, Mapping[str, Any] | None]:
    spec = volume.spec
    if spec.csi is not None:
        return "", None
    if spec.aws_elastic_block_store is not None:
        return "kubernetes.io/aws-ebs", spec.aws_elastic_block_store
    if spec.gce_persistent_disk is not None:
        return "kubernetes.io/gce-pd", spec.gce_persistent_disk
    if spec.azure_disk is not None:
        return "kubernetes.io/azure-disk", spec.azure_disk
    if spec.cinder is not None:
        return "kubernetes.io/cinder", spec.cinder
    if spec.portworx_volume is not None:
        return "kubernetes.io/portworx-volume", spec.portworx_volume
    return "", None


def _gce_volume_handle(volume: PersistentVolume, name: str) -> str:
    labels = volume.metadata.labels or {}
    zones = (labels.get(OLD_ZONE) or labels.get(ZONE) or "").split(ZONES_DELIMITER)
    if len(zones) == 1:
        return f"projects/UNSPECIFIED/zones/{zones[0] or 'UNSPECIFIED'}/disks/{name}"
    regions = set()
    for zone in zones:
        parts = zone.split("-")
        if len(parts) != 3:
            raise UntranslatableVolume(
                "failed to get region from zones: zone in unexpected format, "
                f"expected: {{locale}}-{{region}}-{{zone}}, got: {zone}"
            )
        regions.add("-".join(parts[:2]))
    if len(regions) != 1:
        raise UntranslatableVolume(f"failed to get region from zones: multiple regions in {zones}")
    return f"projects/UNSPECIFIED/regions/{regions.pop()}/disks/{name}"


def _with_topology(
    affinity: NodeSelector | None, labels: Mapping[str, str], topology_key: str
) -> NodeSelector | None:
    """translateTopologyFromInTreeToCSI: the zone under the driver's key, taken from the affinity or else
    from the volume's labels; an old region key under the present one."""
    terms = list(affinity.node_selector_terms or ()) if affinity is not None else []
    keys = {r.key for term in terms for r in term.match_expressions or ()}
    if ZONE in keys:
        zone_key, old = ZONE, False
    elif OLD_ZONE in keys:
        zone_key, old = OLD_ZONE, True
    else:
        old = ZONE not in labels and OLD_ZONE in labels
        zone_key = OLD_ZONE if old else ZONE
    if _values(terms, zone_key):
        terms = _renamed(terms, zone_key, topology_key)
    elif zone_key in labels:
        zones = sorted({z.strip() for z in labels[zone_key].split(ZONES_DELIMITER)} - {""})
        if zones:
            terms = _required_in_all(terms, NodeSelectorRequirement(topology_key, "In", zones))
    if old and _values(terms, OLD_REGION):
        terms = _renamed(terms, OLD_REGION, REGION)
    return NodeSelector(terms) if terms or affinity is not None else None


def _values(terms: list[NodeSelectorTerm], key: str) -> bool:
    """Whether the key comes with any value."""
    return any(r.values for term in terms for r in term.match_expressions or () if r.key == key)


def _renamed(terms: list[NodeSelectorTerm], key: str, new: str) -> list[NodeSelectorTerm]:
    return [
        msgspec.structs.replace(
            term,
            match_expressions=[
                msgspec.structs.replace(r, key=new) if r.key == key else r
                for r in term.match_expressions or ()
            ],
        )
        for term in terms
    ]


def _required_in_all(
    terms: list[NodeSelectorTerm], requirement: NodeSelectorRequirement
) -> list[NodeSelectorTerm]:
    return [
        msgspec.structs.replace(term, match_expressions=[*(term.match_expressions or ()), requirement])
        for term in terms or [NodeSelectorTerm()]
    ]
