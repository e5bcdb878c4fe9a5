"""What the core asks for when a gang has found all the places that it needs, and the marks that tell later
what became of it.

No memory outlives a leader, so that a gang was complete must be read from its pods. Each member that was
bound for its gang says so; while no commit of the gang is under way, that means that one was complete.
The exception are members that stayed bound though their gang was given up: they say that, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.api import Pod
from scheduler.core.gangs.ref import GangRef

TXN_ANNOTATION = "wholepod.io/txn"
"""Names the transaction that a member was bound in."""
SINGLY = "singly"
"""In the place of a transaction: bound for itself, to join a gang that was complete already."""
GANG_GIVEN_UP = "wholepod.io/GangGivenUp"
"""Type of the condition of a member that is bound still, though its gang was given up."""


def is_bound(pod: Pod) -> bool:
    """Whether the pod has a node and does not leave it."""
    return bool(pod.spec.node_name) and pod.metadata.deletion_timestamp is None


def shows_complete(pod: Pod) -> bool:
    """Whether the pod shows that its gang was complete, if no commit of the gang is under way."""
    given_up = any(c.type == GANG_GIVEN_UP and c.status == "True" for c in pod.status.conditions or ())
    return is_bound(pod) and TXN_ANNOTATION in (pod.metadata.annotations or {}) and not given_up


@dataclass(frozen=True, slots=True)
class GangCommit:
    """Members that are to be bound together, or none of them."""

    ref: GangRef
    min_count: int
    """So many members must have a node in the end."""
    placed_before: int
    """So many were bound already, or are being bound."""
    nodes: Mapping[str, str]
    """uid → node of those placed now."""
