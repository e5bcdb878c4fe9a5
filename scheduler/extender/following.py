"""Keeps an engine's state equal to the API server's, and knows how far it has got.

kube-scheduler asks about a pod at a version that it has seen. If our watch of pods has not come as far, our
picture is older than the one the question was asked on, and the answer waits for it for a moment.
resourceVersions of one resource can be compared as numbers (KEP-5504), and where they can't, nothing waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic

import structlog

from scheduler.api import Namespace, Node, Pod, pod_name
from scheduler.core.engine import Engine
from scheduler.core.objects import K

log = structlog.get_logger(__name__)

Unreadable = Callable[[str, str, Exception], None]
"""(resource, name, why) of an object that had to be skipped."""


class Progress:
    """The newest version of pods that the state shows."""

    def __init__(self) -> None:
        self._version = 0
        self._moved = asyncio.Event()

    def reached(self, version: str) -> None:
        number = _number(version)
        if number > self._version:
            self._version = number
            self._moved.set()

    def restart(self) -> None:
        """A new list may be of an API server that has forgotten everything."""
        self._version = 0

    async def wait_for(self, version: str, timeout_s: float) -> bool:
        """Whether it was reached in time."""
        number = _number(version)
        if number <= self._version:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                while number > self._version:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() and len(version) < 20 else 0


class _Handler:
    def on_sync_changed(self, synced: bool, /) -> None:
        """Asked for where it matters."""


class PodFollower(_Handler):
    def __init__(self, engine: Engine, progress: Progress, unreadable: Unreadable) -> None:
        self._engine, self._progress, self._unreadable = engine, progress, unreadable

    def replace(self, pods: list[Pod], /) -> None:
        for pod, error in self._engine.replace_pods(pods):
            self._unreadable("pods", pod_name(pod), error)
        self._progress.restart()
        for pod in pods:
            self._progress.reached(pod.metadata.resource_version)

    def upsert(self, pod: Pod, /) -> None:
        try:
            self._engine.upsert_pod(pod)
        except ValueError as error:
            self._unreadable("pods", pod_name(pod), error)
        self._progress.reached(pod.metadata.resource_version)

    def delete(self, pod: Pod, /) -> None:
        self._engine.remove_pod(pod.metadata.uid)
        self._progress.reached(pod.metadata.resource_version)


class NodeFollower(_Handler):
    def __init__(self, engine: Engine, unreadable: Unreadable) -> None:
        self._engine, self._unreadable = engine, unreadable

    def replace(self, nodes: list[Node], /) -> None:
        for node, error in self._engine.replace_nodes(nodes):
            self._unreadable("nodes", node.metadata.name, error)

    def upsert(self, node: Node, /) -> None:
        try:
            self._engine.upsert_node(node)
        except ValueError as error:
            self._unreadable("nodes", node.metadata.name, error)

    def delete(self, node: Node, /) -> None:
        self._engine.remove_node(node.metadata.name)


class NamespaceFollower(_Handler):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.replace: Callable[[list[Namespace]], Any] = engine.replace_namespaces
        self.upsert: Callable[[Namespace], Any] = engine.upsert_namespace

    def delete(self, namespace: Namespace, /) -> None:
        self._engine.remove_namespace(namespace.metadata.name)


class ObjectFollower(_Handler, Generic[K]):
    """Of another kind of object."""

    def __init__(self, engine: Engine, kind: type[K]) -> None:
        self._engine, self._kind = engine, kind

    def replace(self, items: list[K], /) -> None:
        self._engine.replace_objects(self._kind, items)

    def upsert(self, item: K, /) -> None:
        self._engine.upsert_object(item)

    def delete(self, item: K, /) -> None:
        self._engine.remove_object(item)
