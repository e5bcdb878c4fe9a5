"""What the core asks for when a gang has found all the places that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.core.gangs.ref import GangRef


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
