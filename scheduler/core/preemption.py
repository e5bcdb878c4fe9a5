"""What a preemption is: the pods that must leave a node so that a pod of higher priority fits there, or
several nodes so that a gang does.

The core only says which; deleting them is the edge's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.core.pod_info import PodInfo

CLUSTER = "cluster"
"""Where the victims of a gang are, as kube-scheduler's events say."""


@dataclass(frozen=True, slots=True)
class GangRoom:
    """Of a gang that waits for room."""

    name: str
    """What the victims' owners are told: a kind, and a uid or a name."""
    kind: str
    nodes: Mapping[str, str]
    """uid → node of each member that there is going to be room for."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """Pods to delete on `node` for the pod of the decision that carries this; with `gang`, on any nodes,
    for all members that wait, each of whose decisions carries it."""

    node: str
    victims: tuple[PodInfo, ...]
    """Most important first. Never empty; some may be terminating already and need no delete."""
    pdb_violations: int
    """How many of the victims' disruption budgets are overdrawn by this."""
    displaced: tuple[PodInfo, ...] = ()
    """Waiting pods of lower priority that were nominated to the node: they are no more, so that their
    `status.nominatedNodeName` is to be cleared."""
    gang: GangRoom | None = None
