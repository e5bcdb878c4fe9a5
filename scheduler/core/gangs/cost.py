"""What co-scheduling costs, by strategy: memory kept from others, and how often plans came to nothing.

Never by gang, pod or node: these come and go by the thousand, and a series for each would never end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class GangCost:
    """Counted up since the start of the process."""

    held_byte_seconds: Counter[str] = field(default_factory=Counter)
    """"used" if the hold ended in a commit, "wasted" if it was released → memory held, times how long."""
    commits: Counter[str] = field(default_factory=Counter)
    """strategy → plans that were complete."""
    conflicts: Counter[str] = field(default_factory=Counter)
    """strategy → claims whose room others had taken when it came to the commit."""
    rollbacks: Counter[str] = field(default_factory=Counter)
    """strategy → plans given up after members had places in them."""
    infeasible: Counter[str] = field(default_factory=Counter)
    """strategy → attempts that found no plan, by the gang's own needs."""
    reserved_byte_seconds: int = 0
    """Free memory of nodes that were kept for a starving gang, times how long."""
    deadlocks: int = 0
    """Times a gang had to give up its holds for a senior one that it blocked."""
