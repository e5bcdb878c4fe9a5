"""What of a pod's volumes scheduling has rules about: its claims, and the disks it names itself.

Sources: plugins/volumerestrictions, k8s.io/component-helpers/storage/ephemeral.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from scheduler.api import Pod
from scheduler.api_objects import PersistentVolumeClaim
from scheduler.core.volumes.sources import Attachable, UntranslatableVolume, inline_volume

DiskKey = tuple[str, ...]
"""What makes two disks the same one."""


class ClaimUse(NamedTuple):
    """A claim by name, in the pod's namespace."""

    namespace: str
    name: str
    owner: str = ""
    """For a generic ephemeral volume: uid of the pod, which has to own the claim."""

    def owns(self, claim: PersistentVolumeClaim) -> bool:
        """Whether the claim may be used so (VolumeIsForPod)."""
        owners = claim.metadata.owner_references or ()
        return not self.owner or any(o.controller and o.uid == self.owner for o in owners)


class Disk(NamedTuple):
    """A disk that pods on one node cannot share, or only while all of them just read it."""

    keys: tuple[DiskKey, ...]
    """Disks with any key in common are the same one."""
    read_only: bool


class PodVolumes(NamedTuple):
    """In the order of the pod's spec; a claim that it names twice is there once."""

    claims: tuple[ClaimUse, ...] = ()
    disks: tuple[Disk, ...] = ()
    attached: tuple[Attachable, ...] = ()
    """Volumes of CSI drivers that the pod names itself."""
    untranslatable: str = ""
    """Why one of the volumes that the pod names itself can't be attached."""

    @property
    def shared_claims(self) -> tuple[ClaimUse, ...]:
        """Without those of ephemeral volumes, which some rules leave alone."""
        return tuple(claim for claim in self.claims if not claim.owner)


NO_VOLUMES = PodVolumes()


def pod_volumes(pod: Pod) -> PodVolumes:
    """NO_VOLUMES itself when no rule has anything to say of the pod's volumes."""
    claims: list[ClaimUse] = []
    disks: list[Disk] = []
    attached: list[Attachable] = []
    untranslatable = ""
    namespace = pod.metadata.namespace
    for volume in pod.spec.volumes or ():
        claim = volume.get("persistentVolumeClaim")
        if isinstance(claim, dict):
            claims.append(ClaimUse(namespace, str(claim.get("claimName") or "")))
            continue
        if volume.get("ephemeral") is not None:
            name = f"{pod.metadata.name}-{volume.get('name')}"
            claims.append(ClaimUse(namespace, name, pod.metadata.uid))
            continue
        disks.extend(_disks(volume))
        try:
            found = inline_volume(volume)
        except UntranslatableVolume as error:
            untranslatable = f"converting volume({volume.get('name')}) from inline to csi: {error}"
            continue
        if found is not None:
            attached.append(found)
    if not (claims or disks or attached or untranslatable):
        return NO_VOLUMES
    return PodVolumes(tuple(dict.fromkeys(claims)), tuple(disks), tuple(attached), untranslatable)


def _disks(volume: Mapping[str, Any]) -> Iterator[Disk]:
    """isVolumeConflict (plugins/volumerestrictions/volume_restrictions.go)."""
    for kind in ("gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd"):
        source = volume.get(kind)
        if not isinstance(source, dict):
            continue
        read_only = source.get("readOnly") is True
        if kind == "gcePersistentDisk":
            yield Disk(((kind, _text(source, "pdName")),), read_only)
        elif kind == "awsElasticBlockStore":
            yield Disk(((kind, _text(source, "volumeID")),), False)
        elif kind == "iscsi":
            yield Disk(((kind, _text(source, "iqn")),), read_only)
        else:
            image = (_text(source, "pool"), _text(source, "image"))
            yield Disk(tuple((kind, *image, str(m)) for m in source.get("monitors") or ()), read_only)


def _text(source: Mapping[str, Any], field: str) -> str:
    return str(source.get(field) or "")
