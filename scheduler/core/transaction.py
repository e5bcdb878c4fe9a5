"""What if: pods put on nodes or taken off them tentatively, and undone exactly.

Two sorts. An *open* transaction is for placing several pods that only make sense together: decisions
are made on what it has done, caches follow it row by row, and a rollback is one more change to them.
A *hidden* one is for questions ("would it fit without these?"): generations stand still, so that
caches neither see it nor have anything to redo afterwards. Whoever asks meanwhile must ask plugins
directly, never a cache.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from scheduler.core.nodes import NodeTable
from scheduler.core.pod_info import PodInfo


class Transaction:
    """Rolled back when its `with` block ends without `commit`. One at a time may be hidden."""

    def __init__(self, nodes: NodeTable, *, hidden: bool = False) -> None:
        self._nodes, self._hidden = nodes, hidden
        self._log: list[tuple[str, PodInfo, int]] = []
        """(node, pod, sign) of each step."""

    def __enter__(self) -> Self:
        if self._hidden:
            self._nodes.pods.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rollback()
        if self._hidden:
            self._nodes.pods.release()

    def add(self, row: int, pod: PodInfo) -> None:
        """The pod is on the node of this row."""
        self._apply(row, pod, 1)

    def remove(self, row: int, pod: PodInfo) -> None:
        """The pod, which is on the node of this row, is not."""
        self._apply(row, pod, -1)

    def checkpoint(self) -> int:
        """What `rollback` can come back to."""
        return len(self._log)

    def rollback(self, to: int = 0) -> None:
        """Undoes all that was done since the checkpoint, or since the beginning."""
        while len(self._log) > to:
            node, pod, sign = self._log.pop()
            self._nodes.add_pod(self._nodes.row_of[node], pod, -sign, hidden=self._hidden)

    def commit(self) -> None:
        """What was done stays; also what a hidden transaction did, which everybody sees from now on."""
        if self._hidden:
            for node in {node for node, _, _ in self._log}:
                self._nodes.touch(self._nodes.row_of[node])
        self._log.clear()

    def _apply(self, row: int, pod: PodInfo, sign: int) -> None:
        self._nodes.add_pod(row, pod, sign, hidden=self._hidden)
        self._log.append((self._nodes.names[row], pod, sign))
