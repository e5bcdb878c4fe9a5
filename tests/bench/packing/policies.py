"""What is compared: the scheduler's own score plugins, and the simple policies of the literature.

The simple ones see the same node table, score in the same arrays, and break ties as their original
does. kube-scheduler's default is this project's profile `kube`, which differential tests hold to
the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scheduler.core.nodes import CPU, MEMORY, NodeView
from scheduler.core.pod_info import PodInfo
from scheduler.core.waste import TUNING, Tuning
from scheduler.plugins.memory_fit import MemoryFit
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit

Scores = NDArray[np.int64] | NDArray[np.float64]
Ties = Literal["first", "random", "least free memory"]


@dataclass(frozen=True)
class Policy:
    """score(pod, nodes): higher is better; of equal nodes `ties` says which one is taken."""

    name: str
    score: Callable[[PodInfo, NodeView], Scores]
    ties: Ties
    ours: bool = False


def memory_fit(objective: str, tuning: Tuning = TUNING) -> Policy:
    """The plugin as a profile would make it."""

    class Tuned(MemoryFit):
        pass

    Tuned.tuning = tuning
    return Policy(f"MemoryFit {objective}", Tuned({"objective": objective}).score, "least free memory", True)


def simple_policies() -> list[Policy]:
    fit, balance = NodeResourcesFit(), NodeResourcesBalancedAllocation()

    def kube_default(pod: PodInfo, nodes: NodeView) -> Scores:
        return fit.score(pod, nodes) + balance.score(pod, nodes)

    return [
        Policy("first fit", _indifferent, "first"),
        Policy("random", _indifferent, "random"),
        Policy("best fit by memory", lambda pod, nodes: -_free_after(pod, nodes)[1], "first"),
        Policy("most allocated", lambda pod, nodes: -_free_after(pod, nodes).sum(axis=0), "random"),
        Policy("least allocated", fit.score, "random"),
        Policy("kube-scheduler's default", kube_default, "random"),
        Policy("Tetris (dot product)", _alignment, "first"),
    ]


def _indifferent(pod: PodInfo, nodes: NodeView) -> Scores:
    return np.zeros(nodes.count, np.int64)


def _shares(pod: PodInfo, nodes: NodeView) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64[2, n] each: the request and the free room as shares of the node."""
    allocatable = nodes.allocatable[:2]
    request = np.zeros((2, 1), np.int64)
    request[CPU], request[MEMORY] = pod.requests.get("cpu", 0), pod.requests.get("memory", 0)
    return request / allocatable, (allocatable - nodes.requested[:2]) / allocatable


def _free_after(pod: PodInfo, nodes: NodeView) -> NDArray[np.float64]:
    request, free = _shares(pod, nodes)
    return free - request


def _alignment(pod: PodInfo, nodes: NodeView) -> Scores:
    """Grandl et al., "Multi-resource packing for cluster schedulers" (SIGCOMM 2014)."""
    request, free = _shares(pod, nodes)
    return np.asarray((request * free).sum(axis=0), np.float64)
