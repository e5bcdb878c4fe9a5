"""On which nodes the claims of a pod can be served, and how: for all nodes at once.

A claim that is bound has to be reached; one that waits for its consumer gets the smallest free volume
that fits and that the node reaches, or one is to be made for it there. The answer depends on node objects
and on the cluster's objects, never on the pods that are placed.
Source: FindPodVolumes (pkg/scheduler/framework/plugins/volumebinding/binder.go), FindMatchingVolume
(k8s.io/component-helpers/storage/volume/pv_helpers.go).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import Bits, Mask
from scheduler.core.topology_rules import make_selector, selects
from scheduler.core.volumes.claims import (
    class_of_claim,
    is_fully_bound,
    is_reserved_for,
    requested_nanos,
    requested_storage,
    waits_for_consumer,
)
from scheduler.core.volumes.plan import SELECTED_NODE
from scheduler.core.volumes.pod_volumes import ClaimUse
from scheduler.core.volumes.pools import FILESYSTEM, FreeVolume
from scheduler.core.volumes.reach import (
    Rows,
    allowed,
    csi_nodes,
    reached,
    rows_of,
    rows_of_volume,
    selector_of,
)
from scheduler.core.volumes.sources import IN_TREE, affinity_of, provisioner_of, translated_affinity
from scheduler.quantity import QuantityError, value

NODE_CONFLICT, BIND_CONFLICT, NO_SPACE, NO_VOLUME = (np.uint64(1 << k) for k in range(4))
"""Bits of `Service.bits`: a bound volume is not reached; no volume is found or made for a claim; there
is no room to make one; a bound volume does not exist."""
NO_PROVISIONER = "kubernetes.io/no-provisioner"
_NONE = -1


class SortedClaims(NamedTuple):
    """A pod's claims by what is left to do."""

    bound: tuple[PersistentVolumeClaim, ...]
    waiting: tuple[PersistentVolumeClaim, ...]
    """Unbound until a pod that uses them is placed."""
    overdue: tuple[PersistentVolumeClaim, ...]
    """Unbound, though the volume controller does not wait for us."""


class Match(NamedTuple):
    """A claim and the volume it would get on each node."""

    claim: PersistentVolumeClaim
    volumes: Sequence[FreeVolume]
    choice: NDArray[np.int64]
    """int64[n]: index in `volumes`, -1 for none."""


class Provision(NamedTuple):
    """A claim for which a volume would be made on some nodes."""

    claim: PersistentVolumeClaim
    where: Mask
    capacity_bytes: NDArray[np.int64]
    """int64[n]: of the storage pool that it would come from, -1 where that is not known."""


class Service(NamedTuple):
    """How the claims would be served on each node."""

    bits: Bits
    """uint64[n]: why they can't be; 0 where they can."""
    matches: tuple[Match, ...] = ()
    provisions: tuple[Provision, ...] = ()


def sort_claims(uses: Sequence[ClaimUse], nodes: NodeView) -> SortedClaims:
    """GetPodVolumeClaims; claims that do not exist are left out."""
    bound, waiting, overdue = [], [], []
    for use in uses:
        claim = nodes.cluster.get(PersistentVolumeClaim, use.name, use.namespace)
        if claim is None:
            continue
        if is_fully_bound(claim):
            bound.append(claim)
        elif not claim.spec.volume_name and waits_for_consumer(claim, nodes.cluster):
            waiting.append(claim)
        else:
            overdue.append(claim)
    return SortedClaims(tuple(bound), tuple(waiting), tuple(overdue))


def serve(uses: tuple[ClaimUse, ...], nodes: NodeView) -> Service:
    """For all nodes, which `nodes` have to be. Raises QuantityError for a claim of no readable size, and
    UntranslatableVolume for a bound volume of an old kind that no driver can take over."""
    version = nodes.cluster.version(
        PersistentVolumeClaim, PersistentVolume, StorageClass, CSINode, CSIDriver, CSIStorageCapacity
    )
    now = version, nodes.object_version
    kept = nodes.volumes.services(len(uses))
    then, found = kept.get(uses) or (None, None)
    if then != now or not isinstance(found, Service):
        claims = sort_claims(uses, nodes)
        found = _wait_for_none(claims.bound, nodes)
        if claims.waiting:
            bits, matches, provisions = _find(claims.waiting, nodes)
            found = Service(found.bits | bits, matches, provisions)
        kept.put(uses, (now, found))
    return found


def _wait_for_none(claims: Sequence[PersistentVolumeClaim], nodes: NodeView) -> Service:
    """checkBoundClaims: the first claim whose volume is missing or out of reach decides."""
    bits = np.zeros(nodes.count, np.uint64)
    for claim in claims:
        volume = nodes.cluster.get(PersistentVolume, claim.spec.volume_name)
        if volume is None:
            bits[bits == 0] = NO_VOLUME
            break
        bits[(bits == 0) & ~_reached_volume(volume, nodes)] = NODE_CONFLICT
    return Service(bits)


def _reached_volume(volume: PersistentVolume, nodes: NodeView) -> Mask:
    mask, provisioner = reached(affinity_of(volume), nodes), provisioner_of(volume)
    migrated = csi_nodes(nodes).migrated(provisioner) if provisioner in IN_TREE else None
    if migrated is None:
        return mask
    return np.where(migrated, reached(translated_affinity(volume), nodes), mask)


def _find(claims: Sequence[PersistentVolumeClaim], nodes: NodeView) -> Service:
    """Volumes for claims that wait."""
    n = nodes.count
    bits = np.zeros(n, np.uint64)
    to_make: list[tuple[PersistentVolumeClaim, Mask]] = []
    to_match = []
    for claim in claims:
        selected = (claim.metadata.annotations or {}).get(SELECTED_NODE)
        if selected is None:
            to_match.append(claim)
        else:
            here = np.zeros(n, np.bool_)
            if selected in nodes.row_of:
                here[nodes.row_of[selected]] = True
            bits[~here] = BIND_CONFLICT
            to_make.append((claim, here))
    to_match.sort(key=requested_nanos)
    matches: list[Match] = []
    taken = _Taken()
    for claim in to_match:
        match = _match(claim, taken, nodes)
        taken.note(match)
        matches.append(match)
        to_make.append((claim, match.choice == _NONE))
    provisions = []
    for claim, where in to_make:
        where = where & (bits == 0)
        if where.any():
            provision, why_not = _provision(claim, where, nodes)
            bits |= why_not
            provisions.append(provision)
    return Service(bits, tuple(matches), tuple(provisions))


class _Taken:
    """The volumes that a pod's claims have got so far on each node, as numbers."""

    def __init__(self) -> None:
        self.by_claim: list[NDArray[np.int64]] = []
        """Of each claim that gets any: int64[n], -1 for none."""
        self._numbers: dict[str, int] = {}
        self._uses: Counter[int] = Counter()
        """On how many nodes a volume is taken."""

    def numbers(self, volumes: Sequence[FreeVolume]) -> NDArray[np.int64]:
        """Of the volumes, and -1 at the end."""
        known = self._numbers
        return np.array([*(known.setdefault(v.name, len(known)) for v in volumes), _NONE], np.int64)

    def note(self, match: Match) -> None:
        """One more claim has got its volumes."""
        if not match.volumes:
            return
        numbers = self.numbers(match.volumes)[match.choice]
        self.by_claim.append(numbers)
        found, counts = np.unique(numbers[numbers != _NONE], return_counts=True)
        self._uses.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))

    def uses(self, volume: FreeVolume) -> int:
        """On how many nodes the volume is taken."""
        return self._uses[self._numbers.get(volume.name, _NONE)]


def _match(claim: PersistentVolumeClaim, taken: _Taken, nodes: NodeView) -> Match:
    """The smallest volume on each node that an earlier claim of the pod has not got there."""
    reserved = _reserved(claim, nodes)
    if reserved is not None:
        choice = np.full(nodes.count, _NONE, np.int64)
        choice[rows_of_volume(reserved, nodes)] = 0
        return Match(claim, [reserved], choice)
    volumes = list(_candidates(claim, taken, nodes))
    if not volumes:
        return Match(claim, volumes, _nothing(nodes))
    rows = [rows_of_volume(volume, nodes) for volume in volumes]
    at = np.concatenate(rows)
    which = np.repeat(np.arange(len(volumes)), [len(part) for part in rows])
    numbers = taken.numbers(volumes)
    for earlier in taken.by_claim:
        left = earlier[at] != numbers[which]
        at, which = at[left], which[left]
    choice = np.full(nodes.count, _NONE, np.int64)
    choice[at[::-1]] = which[::-1]  # the last assignment to a row stands: that of the smallest volume
    return Match(claim, volumes, choice)


def _nothing(nodes: NodeView) -> NDArray[np.int64]:
    """int64[n] of -1, which takes no room: a pod may have hundreds of claims."""
    return np.broadcast_to(np.int64(_NONE), nodes.count)


def _reserved(claim: PersistentVolumeClaim, nodes: NodeView) -> FreeVolume | None:
    """A volume that somebody has reserved for the claim: it gets this one or none."""
    found = [
        volume
        for volume in nodes.volumes.pools.reserved(claim.metadata.namespace, claim.metadata.name)
        if is_reserved_for(volume.volume, claim)
        and volume.class_name == class_of_claim(claim)
        and _suits(volume, claim, requested_nanos(claim))
    ]
    return min(found, key=lambda volume: volume.name, default=None)


def _candidates(claim: PersistentVolumeClaim, taken: _Taken, nodes: NodeView) -> Iterator[FreeVolume]:
    """Smallest first. Of volumes that the same nodes reach, none that is taken on all of them, and none
    after the first that is taken on none."""
    selector = make_selector(claim.spec.selector)
    modes, requested = frozenset(claim.spec.access_modes or ()), requested_nanos(claim)
    enough: set[bytes] = set()
    for volume in nodes.volumes.pools.free(class_of_claim(claim)):
        if (
            volume.affinity_key not in enough
            and volume.available
            and _suits(volume, claim, requested)
            and modes <= volume.access_modes
            and (claim.spec.selector is None or selects(selector, volume.labels))
        ):
            uses = taken.uses(volume)
            if not uses:
                enough.add(volume.affinity_key)
            if uses < len(rows_of_volume(volume, nodes)):
                yield volume


def _suits(volume: FreeVolume, claim: PersistentVolumeClaim, requested_nanos: int) -> bool:
    """What holds for reserved volumes, too."""
    return (
        volume.capacity_nanos >= requested_nanos
        and volume.volume_mode == (claim.spec.volume_mode or FILESYSTEM)
        and volume.attributes_class == (claim.spec.volume_attributes_class_name or "")
        and not volume.terminating
    )


def _provision(claim: PersistentVolumeClaim, where: Mask, nodes: NodeView) -> tuple[Provision, Bits]:
    """checkVolumeProvisions for one claim; bits only on the nodes of `where`."""
    n, class_name = nodes.count, class_of_claim(claim)
    bits, capacity = np.zeros(n, np.uint64), _nothing(nodes)
    storage_class = nodes.cluster.get(StorageClass, class_name)
    if storage_class is None or storage_class.provisioner in ("", NO_PROVISIONER):
        bits[where] = BIND_CONFLICT
        return Provision(claim, np.zeros(n, np.bool_), capacity), bits
    fits = allowed(storage_class.allowed_topologies, nodes)
    bits[where & ~fits] = BIND_CONFLICT
    size, driver = requested_storage(claim), nodes.cluster.get(CSIDriver, storage_class.provisioner)
    if size is not None and driver is not None and driver.spec.storage_capacity:
        capacity = _capacity(class_name, value(size), nodes)
        bits[where & fits & (capacity == _NONE)] = NO_SPACE
    return Provision(claim, where & (bits == 0), capacity), bits


class _StoragePools(NamedTuple):
    """The CSIStorageCapacity objects of a class, each with the nodes that reach it, in one."""

    rows: Rows
    limit_bytes: NDArray[np.int64]
    """By entry of `rows`: the largest volume that may be made."""
    capacity_bytes: NDArray[np.int64]


def _capacity(class_name: str, size_bytes: int, nodes: NodeView) -> NDArray[np.int64]:
    """int64[n]: capacity of the first storage pool that has room for the volume, -1 for none."""
    found = np.full(nodes.count, _NONE, np.int64)
    pools = _storage_pools(class_name, nodes)
    enough = pools.limit_bytes >= size_bytes
    found[pools.rows[enough][::-1]] = pools.capacity_bytes[enough][::-1]
    return found


def _storage_pools(class_name: str, nodes: NodeView) -> _StoragePools:
    answers = nodes.volumes.answers
    version = nodes.cluster.version(CSIStorageCapacity)
    key = ("storage pools", class_name, version, nodes.object_version)
    found = answers.get(key)
    if isinstance(found, _StoragePools):
        return found
    pools = [p for p in nodes.cluster.all(CSIStorageCapacity) if p.storage_class_name == class_name]
    pools.sort(key=lambda pool: (pool.metadata.namespace, pool.metadata.name))
    rows: list[Rows] = []
    limits: list[int] = []
    capacities: list[int] = []
    for pool in pools:
        capacity, largest = _bytes(pool.capacity), _bytes(pool.maximum_volume_size)
        limit = capacity if largest is None else largest
        if pool.node_topology is None or limit is None:
            continue
        rows.append(rows_of(selector_of(pool.node_topology), nodes))
        limits.append(limit)
        capacities.append(capacity or 0)
    sizes = [len(part) for part in rows]
    made = _StoragePools(
        np.concatenate(rows) if rows else np.empty(0, np.intp),
        np.repeat(np.array(limits, np.int64), sizes),
        np.repeat(np.array(capacities, np.int64), sizes),
    )
    answers.put(key, made)
    return made


def _bytes(text: str | None) -> int | None:
    try:
        return value(text) if text is not None else None
    except QuantityError:
        return None
