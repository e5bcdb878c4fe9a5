"""Which volume each claim gets on a node, one node and one volume after the other: no arrays, no caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler.api_objects import PersistentVolume, PersistentVolumeClaim
from scheduler.core.volumes.claims import is_reserved_for
from scheduler.quantity import value


def reaches(volume: PersistentVolume, labels: Mapping[str, str]) -> bool:
    affinity = volume.spec.node_affinity
    if affinity is None or affinity.required is None:
        return True
    return any(
        all(labels.get(r.key) in (r.values or ()) for r in term.match_expressions or ())
        for term in affinity.required.node_selector_terms or ()
    )


def matches(
    claims: Sequence[PersistentVolumeClaim], volumes: Sequence[PersistentVolume], labels: Mapping[str, str]
) -> dict[str, str]:
    """Claim → volume, for those that get one; volumes are of one class, of different sizes."""
    chosen: dict[str, str] = {}
    for claim in sorted(claims, key=_size):
        found = _match(claim, [v for v in volumes if v.metadata.name not in chosen.values()], labels)
        if found is not None:
            chosen[claim.metadata.name] = found.metadata.name
    return chosen


def _match(
    claim: PersistentVolumeClaim, volumes: Sequence[PersistentVolume], labels: Mapping[str, str]
) -> PersistentVolume | None:
    fitting = [v for v in volumes if _capacity(v) >= _size(claim)]
    for volume in fitting:
        if is_reserved_for(volume, claim):
            return volume if reaches(volume, labels) else None
    free = [v for v in fitting if v.spec.claim_ref is None and reaches(v, labels)]
    return min(free, key=_capacity, default=None)


def _size(claim: PersistentVolumeClaim) -> int:
    resources = claim.spec.resources
    return value((resources.requests or {})["storage"]) if resources is not None else 0


def _capacity(volume: PersistentVolume) -> int:
    return value((volume.spec.capacity or {})["storage"])
