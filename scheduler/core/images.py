"""Which container images lie on which nodes, as kubelets report them (`status.images`).

Kept by image, since a pod asks for a few of the thousands that a cluster has: each name is stored
once, with the rows that hold it. A kubelet reports its 50 largest images unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.api import Node

_NOWHERE: Mapping[int, int] = {}


class ImageTable:
    """Rows are the node table's: dense, a removed one is filled by the last."""

    def __init__(self) -> None:
        self.generation = 0
        """Bumped whenever any node's images or the number of nodes change."""
        self._holders: dict[str, dict[int, int]] = {}
        self._on_row: list[dict[str, int]] = []

    def holders(self, name: str) -> Mapping[int, int]:
        """Row → size in bytes, for the nodes that have the image."""
        return self._holders.get(name, _NOWHERE)

    def on(self, row: int) -> Mapping[str, int]:
        """Name → size in bytes, of the row's images."""
        return self._on_row[row]

    def shows(self, row: int, node: Node) -> bool:
        """Whether the row's images are those of this version of its node."""
        return self._on_row[row] == _sizes(node)

    def append(self) -> None:
        """One more row, without images."""
        self.generation += 1
        self._on_row.append({})

    def set(self, row: int, node: Node) -> None:
        sizes = _sizes(node)
        if sizes != self._on_row[row]:
            self.generation += 1
            self._replace(row, sizes)

    def remove(self, row: int) -> None:
        """The last row takes the place of this one."""
        self.generation += 1
        last = len(self._on_row) - 1
        moved = self._on_row[last]
        self._replace(last, {})
        if row != last:
            self._replace(row, moved)
        self._on_row.pop()

    def _replace(self, row: int, sizes: dict[str, int]) -> None:
        for name in self._on_row[row]:
            holders = self._holders[name]
            del holders[row]
            if not holders:
                del self._holders[name]
        for name, size in sizes.items():
            self._holders.setdefault(name, {})[row] = size
        self._on_row[row] = sizes


def _sizes(node: Node) -> dict[str, int]:
    return {name: image.size_bytes for image in node.status.images or () for name in image.names or ()}
