"""What a preemption is: the pods that must leave a node so that a pod of higher priority fits there.

The core only says which; deleting them is the edge's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.core.pod_info import PodInfo


@dataclass(frozen=True, slots=True)
class Preemption:
    """Pods to delete on `node` for the pod of the decision that carries this."""

    node: str
    victims: tuple[PodInfo, ...]
    """Most important first. Never empty; some may be terminating already and need no delete."""
    pdb_violations: int
    """How many of the victims' disruption budgets are overdrawn by this."""
    displaced: tuple[PodInfo, ...] = ()
    """Waiting pods of lower priority that were nominated to the node: they are no more, so that their
    `status.nominatedNodeName` is to be cleared."""
