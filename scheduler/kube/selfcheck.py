"""Compares the scheduler's picture with the API server's, on demand.

The watch lags by milliseconds, so a difference counts only when it is still there in a second look.
Model: pkg/scheduler/backend/cache/debugger/comparer.go.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from scheduler.api import Node, Pod, pod_name
from scheduler.core.engine import Engine
from scheduler.kube.client import KubeClient

SECOND_LOOK_S = 1.0


class _Pods(msgspec.Struct):
    items: list[Pod]


class _Nodes(msgspec.Struct):
    items: list[Node]


async def compare_with_api(client: KubeClient, engine: Engine, *, pod_selector: str) -> dict[str, Any]:
    """{"consistent": bool, "nodes": n, "pods": n, "differences": [text, …]}."""
    first, _, _ = await _differences(client, engine, pod_selector)
    if first:
        await asyncio.sleep(SECOND_LOOK_S)
    second, nodes, pods = await _differences(client, engine, pod_selector)
    lasting = sorted(first & second)
    return {"consistent": not lasting, "nodes": nodes, "pods": pods, "differences": lasting}


async def _differences(client: KubeClient, engine: Engine, pod_selector: str) -> tuple[set[str], int, int]:
    answer = await client.request("GET", "/api/v1/nodes")
    nodes = {node.metadata.name for node in msgspec.json.decode(answer.body, type=_Nodes).items}
    answer = await client.request("GET", "/api/v1/pods", query={"fieldSelector": pod_selector})
    pods = {pod.metadata.uid: pod for pod in msgspec.json.decode(answer.body, type=_Pods).items}
    known_nodes = set(engine.state.nodes.names)
    found = {f"node {name} is not known here" for name in nodes - known_nodes}
    found |= {f"node {name} does not exist" for name in known_nodes - nodes}
    for uid, pod in pods.items():
        placed, queued = engine.state.pods.get(uid), engine.queue.get(uid)
        node = pod.spec.node_name
        if node and (placed is None or placed.node != node):
            found.add(f"pod {pod_name(pod)} is on node {node}, here on {placed.node if placed else 'none'}")
        elif not node and placed is not None and not placed.assumed:
            found.add(f"pod {pod_name(pod)} has no node, here it is on {placed.node}")
        elif not node and placed is None and queued is None and _ours(pod, engine):
            found.add(f"pod {pod_name(pod)} waits, but not in the queue")
    found |= {
        f"pod {placed.info.name} does not exist, here it is on {placed.node}"
        for uid, placed in engine.state.pods.items()
        if uid not in pods
    }
    found |= {
        f"pod {queued.info.name} does not exist, here it waits"
        for queued in engine.queue
        if queued.info.uid not in pods
    }
    return found, len(nodes), len(pods)


def _ours(pod: Pod, engine: Engine) -> bool:
    return pod.spec.scheduler_name in engine.cycles and pod.metadata.deletion_timestamp is None
