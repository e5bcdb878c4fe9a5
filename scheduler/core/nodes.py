"""The node table: one row per node, one numpy column per quantity that decisions read.

Rows are dense: a removed node's row is filled by the last one, so that every column is a plain
slice without a validity mask. Each row carries a generation, bumped by whatever can change a
decision (pods, allocatable, labels, taints, unschedulable; never heartbeats), so that a cache
finds the rows it has to redo with one comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from scheduler.api import Node
from scheduler.core.images import ImageTable
from scheduler.core.labels import InternedColumn
from scheduler.core.mix import FrozenMix
from scheduler.core.objects import ClusterObjects
from scheduler.core.plugin import Mask, Wake
from scheduler.core.pod_index import Carried, PodIndex, Query
from scheduler.core.pod_info import HostPort, PodInfo
from scheduler.core.tally import Tally
from scheduler.core.volumes.index import VolumeIndex
from scheduler.core.volumes.pod_volumes import NO_VOLUMES
from scheduler.quantity import resource_amount

CPU, MEMORY, EPHEMERAL_STORAGE = 0, 1, 2
"""Rows of the resource arrays that always exist; extended resources follow as they are seen."""

NodeTaint = tuple[str, str, str]
"""(key, value, effect)."""

Stamp = tuple[int, int, int]
Layout = tuple[int, int]
Rows = slice | NDArray[np.intp]
_MIN_CAPACITY = 64
_MAX_LABEL_COLUMNS = 256
_MIN_RESOURCES_TO_COMPACT = 64
_FEW = 64
_TOUCHED_KEPT = 4096


class NodeTable:
    """Mutable columns of all nodes; `view` hands them to plugins."""

    def __init__(self, mix: FrozenMix) -> None:
        self.mix = mix
        self.names: list[str] = []
        self.row_of: dict[str, int] = {}
        self.resources = {"cpu": CPU, "memory": MEMORY, "ephemeral-storage": EPHEMERAL_STORAGE}
        self._compact_resources_at = _MIN_RESOURCES_TO_COMPACT
        self.generation = 0
        self._touched: list[int] = []
        """Row of each generation after `_touched_base`: a short cut to the rows that changed last."""
        self._touched_base = 0
        self.last_object_change = 0
        """The generation in which a node object was last added, changed or removed."""
        capacity = _MIN_CAPACITY
        self.allocatable = np.zeros((3, capacity), np.int64)
        self.requested = np.zeros((3, capacity), np.int64)
        self.nonzero_requested = np.zeros((2, capacity), np.int64)
        self.pod_count = np.zeros(capacity, np.int64)
        self.pod_limit = np.zeros(capacity, np.int64)
        self.port_count = np.zeros(capacity, np.int64)
        self.unschedulable = np.zeros(capacity, np.bool_)
        self.name_hash = np.zeros(capacity, np.uint64)
        self.row_generation = np.zeros(capacity, np.int64)
        self.object_generation = np.zeros(capacity, np.int64)
        self.taints: InternedColumn[tuple[NodeTaint, ...]] = InternedColumn((), capacity)
        self.labels: dict[str, InternedColumn[str | None]] = {}
        self._capacity: NDArray[np.int64] | None = None
        self.declared_features: InternedColumn[tuple[str, ...]] = InternedColumn((), capacity)
        self.objects: list[Node] = []
        self.ports: list[Counter[HostPort]] = []
        self.images = ImageTable()
        self.pods = PodIndex(self.row_of, capacity)
        self.cluster = ClusterObjects()
        self.volumes = VolumeIndex(self.row_of, capacity, self.cluster)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def stamp(self) -> Stamp:
        """Differs as soon as anything has changed that any decision reads."""
        return self.generation, self.pods.version, self.cluster.changes

    @property
    def layout(self) -> Layout:
        """Differs as soon as a node object or a namespace's labels have changed. While it stays, so do row
        numbers, labels, taints and which pods a rule means; only pods come and go."""
        return self.last_object_change, self.pods.namespaces_version

    def sketch(self) -> NodeTable:
        """An empty table of the same cluster, for rows that are to be thought through. Its own `volumes` hear
        of no objects, and would keep it alive if they did: rules about volumes look beyond a node and are
        never asked here."""
        table = NodeTable(self.mix)
        table.cluster = self.cluster
        return table

    def view(self, rows: Rows | None = None) -> NodeView:
        """All rows, or the given ones (a slice shares memory, an index array copies)."""
        return NodeView(self, slice(0, len(self.names)) if rows is None else rows)

    def changed_since(self, generation: int) -> NDArray[np.intp]:
        """Rows whose generation is newer."""
        newest = (
            self._touched[generation - self._touched_base :] if generation >= self._touched_base else None
        )
        if newest is not None and len(newest) <= _FEW:
            n = len(self.names)
            return np.array(sorted({row for row in newest if row < n}), np.intp)
        return np.flatnonzero(self.row_generation[: len(self.names)] > generation)

    def objects_changed_since(self, generation: int) -> NDArray[np.intp]:
        """Rows whose node object changed later; placements do not count."""
        if generation >= self.last_object_change:
            return np.empty(0, np.intp)
        return np.flatnonzero(self.object_generation[: len(self.names)] > generation)

    # ---- nodes

    def upsert(self, node: Node) -> Wake:
        """Adds or updates a node; returns what about it may help a waiting pod.

        Raises QuantityError when the node's allocatable can't be read; the row is then unchanged.
        """
        amounts = {
            name: resource_amount(name, text) for name, text in (node.status.allocatable or {}).items()
        }
        row = self.row_of.get(node.metadata.name)
        if row is None:
            row = self._append(node.metadata.name)
            self._write(row, node, amounts)
            return Wake.NODE_ADD
        old = self.objects[row]
        change = Wake.NOTHING
        if (old.status.allocatable or {}) != (node.status.allocatable or {}):
            change |= Wake.NODE_ALLOCATABLE
        if (old.metadata.labels or {}) != (node.metadata.labels or {}):
            change |= Wake.NODE_LABELS
        if (old.spec.taints or []) != (node.spec.taints or []):
            change |= Wake.NODE_TAINTS
        if bool(old.spec.unschedulable) != bool(node.spec.unschedulable):
            change |= Wake.NODE_SCHEDULABLE
        if (old.status.declared_features or []) != (node.status.declared_features or []):
            change |= Wake.NODE_FEATURES
        if change or not self.images.shows(row, node):
            self._write(row, node, amounts)
        else:
            self.objects[row] = _without_images(node)
        return change

    def remove(self, name: str) -> None:
        row, last = self.row_of.pop(name), len(self.names) - 1
        self._capacity = None
        if row != last:
            for column in self._columns():
                column[..., row] = column[..., last]
            moved = self.names[row] = self.names[last]
            self.row_of[moved] = row
            self.objects[row], self.ports[row] = self.objects[last], self.ports[last]
        self.images.remove(row)
        self.touch(row, node_changed=True)  # also when no row moves: there is one less
        for column in self._columns():
            column[..., last] = 0
        self.names.pop()
        self.objects.pop()
        self.ports.pop()

    def label_column(self, key: str) -> InternedColumn[str | None]:
        """Interned values of one label key (id 0: no such label); indexed on first use.

        Which keys there are is up to whoever writes pods, so only those used last are kept.
        """
        column = self.labels.pop(key, None)
        if column is None:
            if len(self.labels) >= _MAX_LABEL_COLUMNS:
                del self.labels[next(iter(self.labels))]
            column = InternedColumn(None, self.row_generation.size)
            for row, node in enumerate(self.objects):
                column.set(row, (node.metadata.labels or {}).get(key))
        self.labels[key] = column
        return column

    @property
    def capacity(self) -> NDArray[np.int64]:
        """int64[R]: allocatable of all nodes together."""
        if self._capacity is None:
            self._capacity = self.allocatable.sum(axis=1)
        return self._capacity

    def amounts(self, row: int) -> bytes:
        """Everything numeric of one row that `Plugin.reads_amounts_only` allows to be read, as one value.
        Comparable while `resources` is the same object."""
        return b"".join(
            (
                self.allocatable[:, row].tobytes(),
                self.requested[:, row].tobytes(),
                self.nonzero_requested[:, row].tobytes(),
                self.pod_count[row].tobytes(),
                self.pod_limit[row].tobytes(),
            )
        )

    # ---- pods on nodes

    def add_pod(self, row: int, pod: PodInfo, sign: int = 1, *, hidden: bool = False) -> None:
        """Accounts for a pod on a row (`sign` -1: no longer); `hidden` from caches for what will be undone
        before they are asked again."""
        for name, amount in pod.usage.items():
            resource = self.resource_row(name)  # first: a new one replaces the arrays
            self.requested[resource, row] += sign * amount
        cpu_milli, memory_bytes = pod.nonzero_requests
        self.nonzero_requested[0, row] += sign * cpu_milli
        self.nonzero_requested[1, row] += sign * memory_bytes
        self.pod_count[row] += sign
        if pod.host_ports:
            ports = self.ports[row]
            for port in pod.host_ports:
                ports[port] += sign
                if not ports[port]:
                    del ports[port]
            self.port_count[row] = len(ports)
        if pod.volumes is not NO_VOLUMES:
            self.volumes.attached.add(self.names[row], pod.volumes, sign)
        self.pods.add(self.names[row], row, pod, sign)
        if not hidden:
            self.touch(row)

    def resource_row(self, name: str) -> int:
        """The resource's row in the 2-D arrays, added when it is new."""
        row = self.resources.get(name)
        if row is None:
            if len(self.resources) >= self._compact_resources_at:
                self._compact_resources()
            row = self.resources[name] = len(self.resources)
            extra = np.zeros((1, self.row_generation.size), np.int64)
            self.allocatable = np.concatenate([self.allocatable, extra])
            self.requested = np.concatenate([self.requested, extra])
            self._capacity = None
        return row

    # ---- internals

    def _compact_resources(self) -> None:
        """Forgets resources that no node offers and no pod takes any more: anybody may make up names."""
        used: Mask = np.asarray(self.allocatable.any(axis=1) | self.requested.any(axis=1))
        used[: EPHEMERAL_STORAGE + 1] = True
        self.allocatable, self.requested = self.allocatable[used], self.requested[used]
        names = [name for name, row in self.resources.items() if used[row]]
        self.resources = {name: row for row, name in enumerate(names)}
        self._compact_resources_at = max(_MIN_RESOURCES_TO_COMPACT, 2 * len(self.resources))

    def _interned(self) -> Iterator[InternedColumn[Any]]:
        yield from (self.taints, self.declared_features)
        yield from self.labels.values()

    def _columns(self) -> Iterator[NDArray[np.generic]]:
        yield from (self.allocatable, self.requested, self.nonzero_requested)
        yield from (self.pod_count, self.pod_limit, self.port_count, self.unschedulable, self.name_hash)
        yield from (self.row_generation, self.object_generation)
        for interned in self._interned():
            yield interned.ids
        yield from self.pods.columns()
        yield from self.volumes.attached.columns()

    def _append(self, name: str) -> int:
        row = len(self.names)
        self._capacity = None
        if row == self.row_generation.size:
            self._grow(2 * row)
        self.names.append(name)
        self.row_of[name] = row
        self.objects.append(Node())
        self.ports.append(Counter())
        self.images.append()
        self.volumes.attached.add_node(name, row)
        self.name_hash[row] = crc32(name.encode())
        return row

    def _grow(self, capacity: int) -> None:
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                widened = np.zeros((*column.shape[:-1], capacity), column.dtype)
                widened[..., : column.shape[-1]] = column
                setattr(self, name, widened)
        for interned in self._interned():
            interned.grow(capacity)
        self.pods.grow(capacity)
        self.volumes.attached.grow(capacity)

    def _write(self, row: int, node: Node, amounts: Mapping[str, int]) -> None:
        self.images.set(row, node)
        self.objects[row] = _without_images(node)
        self._capacity = None
        self.allocatable[:, row] = 0
        for name, amount in amounts.items():
            if name == "pods":
                continue
            resource = self.resource_row(name)  # first: a new one replaces the arrays
            self.allocatable[resource, row] = amount
        self.pod_limit[row] = amounts.get("pods", 0)
        self.unschedulable[row] = bool(node.spec.unschedulable)
        self.taints.set(row, tuple((t.key, t.value or "", t.effect) for t in node.spec.taints or ()))
        self.declared_features.set(row, tuple(node.status.declared_features or ()))
        labels = node.metadata.labels or {}
        for key, column in self.labels.items():
            column.set(row, labels.get(key))
        for interned in self._interned():
            interned.compact(len(self.names))
        self.touch(row, node_changed=True)

    def touch(self, row: int, *, node_changed: bool = False) -> None:
        """Something has changed on this row."""
        self.generation += 1
        self.row_generation[row] = self.generation
        self._touched.append(row)
        if len(self._touched) > _TOUCHED_KEPT:
            del self._touched[:-_FEW]
            self._touched_base = self.generation - _FEW
        if node_changed:
            self.object_generation[row] = self.last_object_change = self.generation


def narrow(rows: NDArray[np.intp], n: int) -> Rows:
    """A slice where that is cheaper than an index array: one row, or most of n."""
    if len(rows) == 1:
        return slice(int(rows[0]), int(rows[0]) + 1)
    return slice(0, n) if 2 * len(rows) > n else rows


def _without_images(node: Node) -> Node:
    """Hundreds of names a node, and the table has them already, each once."""
    if node.status.images is None:
        return node
    return msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, images=None))


class NodeView:
    """Rows of the table as a plugin sees them. Arrays are read-only by agreement; [R, n] arrays are
    indexed by `resources` (cpu in millicores, all others in bytes or units)."""

    __slots__ = ("_rows", "_table", "count")

    def __init__(self, table: NodeTable, rows: Rows) -> None:
        self._table, self._rows = table, rows
        self.count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)

    @property
    def names(self) -> list[str]:
        names, rows = self._table.names, self._rows
        return names[rows] if isinstance(rows, slice) else [names[i] for i in rows]

    @property
    def resources(self) -> Mapping[str, int]:
        return self._table.resources

    @property
    def allocatable(self) -> NDArray[np.int64]:
        """int64[R, n]."""
        return self._table.allocatable[:, self._rows]

    @property
    def requested(self) -> NDArray[np.int64]:
        """int64[R, n]: requests of the pods on each node, assumed pods included."""
        return self._table.requested[:, self._rows]

    @property
    def nonzero_requested(self) -> NDArray[np.int64]:
        """int64[2, n]: cpu and memory, with defaults for containers that ask for nothing."""
        return self._table.nonzero_requested[:, self._rows]

    @property
    def pod_count(self) -> NDArray[np.int64]:
        return self._table.pod_count[self._rows]

    @property
    def pod_limit(self) -> NDArray[np.int64]:
        return self._table.pod_limit[self._rows]

    @property
    def unschedulable(self) -> Mask:
        return self._table.unschedulable[self._rows]

    @property
    def taints(self) -> tuple[InternedColumn[tuple[NodeTaint, ...]], NDArray[np.int32]]:
        """The interned column and these rows' ids in it."""
        return self._table.taints, self._table.taints.ids[self._rows]

    @property
    def declared_features(self) -> tuple[InternedColumn[tuple[str, ...]], NDArray[np.int32]]:
        """`status.declaredFeatures`: the interned column and these rows' ids in it."""
        return self._table.declared_features, self._table.declared_features.ids[self._rows]

    def image(self, name: str) -> tuple[NDArray[np.int64], float]:
        """int64[n]: size of the image in bytes where it is present, else 0; and the share of all the
        cluster's nodes that have it."""
        holders, nodes = self._table.images.holders(name), len(self._table)
        if len(holders) < self.count:
            column = np.zeros(nodes, np.int64)
            column[list(holders)] = list(holders.values())
            sizes = column[self._rows]
        else:
            rows = self._row_numbers().tolist()
            sizes = np.fromiter((holders.get(row, 0) for row in rows), np.int64, self.count)
        return sizes, len(holders) / max(nodes, 1)

    @property
    def image_generation(self) -> int:
        """Changes whenever a node's images or the number of nodes do."""
        return self._table.images.generation

    def label(self, key: str) -> tuple[InternedColumn[str | None], NDArray[np.int32]]:
        """The interned column of a label key and these rows' ids in it."""
        column = self._table.label_column(key)
        return column, column.ids[self._rows]

    def matching(self, query: Query) -> Tally:
        """Pods on each node that the query means, in rows of the table."""
        return self._table.pods.counts(query)

    def concerning(self, pod: PodInfo) -> tuple[Carried, ...]:
        """The affinity terms of pods on nodes that mean this pod."""
        return self._table.pods.concerning(pod)

    def carrying(self, carried: Carried) -> Tally:
        """Pods on each node that carry the term, or the sum of their weights, in rows of the table."""
        return self._table.pods.weights(carried)

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Empty for a namespace that is not known (yet)."""
        return self._table.pods.namespace_labels(name)

    @property
    def cluster(self) -> ClusterObjects:
        """Objects beside nodes and pods, as far as plugins watch them."""
        return self._table.cluster

    @property
    def volumes(self) -> VolumeIndex:
        """What is attached where and which volumes are free; its columns are of all nodes."""
        return self._table.volumes

    @property
    def object_version(self) -> int:
        """Changes whenever a node object comes, changes or goes; placements do not count."""
        return self._table.last_object_change

    @property
    def row_of(self) -> Mapping[str, int]:
        """Of all nodes."""
        return self._table.row_of

    def named(self, name: str) -> Mask:
        """bool[n]: the node of this name."""
        row = self._table.row_of.get(name, -1)
        return np.asarray(self._row_numbers() == row, np.bool_)

    def ports(self) -> Iterator[tuple[int, Counter[HostPort]]]:
        """(position in this view, ports in use) of the nodes with any host port in use."""
        in_use = self._table.port_count[self._rows]
        rows = self._row_numbers()
        for position in np.flatnonzero(in_use):
            yield int(position), self._table.ports[rows[position]]

    @property
    def capacity(self) -> NDArray[np.int64]:
        """int64[R]: allocatable of the whole cluster."""
        return self._table.capacity

    @property
    def mix(self) -> FrozenMix:
        """The mix of pods seen, as frozen for the current epoch."""
        return self._table.mix

    def _row_numbers(self) -> NDArray[np.intp]:
        rows = self._rows
        return np.arange(rows.start, rows.stop, dtype=np.intp) if isinstance(rows, slice) else rows
