"""Sees every change of every pod from the beginning to the end of a run, and names what must never be."""

from __future__ import annotations

import time
from typing import Any

from scheduler.quantity import value
from tests.integration.observer import Observer, Server, node_of

Json = dict[str, Any]
OURS = "wholepod"


class Witness(Observer):
    """`problems` names pods that changed nodes, nodes given more memory than they have, and pods that a
    kubelet turned away: what was bound to a node has to fit there by the kubelet's own sums."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, "/api/v1/pods")
        self.problems: list[str] = []
        self.bound_at: dict[str, float] = {}
        """When a pod of ours was first seen with a node (time.monotonic()), by uid."""
        nodes = server.api.get("/api/v1/nodes")["items"]
        self._room = {
            node["metadata"]["name"]: value(node["status"]["allocatable"]["memory"]) for node in nodes
        }
        self._places: dict[str, tuple[str, int]] = {}
        self._turned_away: set[str] = set()

    def _list(self) -> str:
        version = super()._list()
        there = {pod["metadata"]["uid"] for pod in self.objects.values()}
        for uid in self._places.keys() - there:
            del self._places[uid]
        for pod in self.objects.values():
            self._see(pod)
        return version

    def _apply(self, event: Json) -> None:
        super()._apply(event)
        if event["type"] == "DELETED":
            self._places.pop(event["object"]["metadata"]["uid"], None)
        elif event["type"] != "BOOKMARK":
            self._see(event["object"])

    def _see(self, pod: Json) -> None:
        uid, name, node = pod["metadata"]["uid"], pod["metadata"]["name"], node_of(pod)
        if not node:
            return
        ours = pod["spec"]["schedulerName"] == OURS
        if ours:
            self.bound_at.setdefault(uid, time.monotonic())
        status = pod["status"]
        if ours and status.get("reason", "").startswith("OutOf") and uid not in self._turned_away:
            self._turned_away.add(uid)
            self.problems.append(f"the kubelet of {node} turned {name} away: {status['message']}")
        if status.get("phase") in ("Succeeded", "Failed"):
            self._places.pop(uid, None)
            return
        before, _ = self._places.get(uid, (node, 0))
        if before != node:
            self.problems.append(f"{name} moved from {before} to {node}")
        self._places[uid] = node, memory_of(pod)
        held = sum(memory for place, memory in self._places.values() if place == node)
        if held > self._room[node]:
            self.problems.append(f"{node} was given {held} bytes of {self._room[node]} with {name}")


def memory_of(pod: Json) -> int:
    """What it asks for in bytes; nothing here has init containers that end."""
    containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    return sum(value(c.get("resources", {}).get("requests", {}).get("memory", "0")) for c in containers)
