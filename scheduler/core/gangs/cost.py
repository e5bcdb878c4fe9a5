"""What co-scheduling costs, by strategy: memory kept from others, and how often plans came to nothing.

Never by gang, pod or node: these come and go by the thousand, and a series for each would never end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field

DURATION_BOUNDS_S = tuple(0.01 * 2**i for i in range(20))
"""Those of kube-scheduler's pod_scheduling_sli_duration_seconds: 10 ms to 87 minutes."""


@dataclass
class Durations:
    """A histogram of times in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    """By the first bound that is not exceeded; the last one: all bounds are."""
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def __len__(self) -> int:
        return sum(self.counts)


@dataclass
class GangCost:
    """Counted up since the start of the process. Keys are strategies unless said otherwise."""

    held_byte_seconds: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(strategy, "used" if the hold ended in a commit, "wasted" if it was released) → memory held, times
    how long; counted when the hold ends."""
    reserved_byte_seconds: Counter[str] = field(default_factory=Counter)
    """Free memory of nodes that were kept for a starving gang, times how long."""
    incomplete_byte_seconds: Counter[str] = field(default_factory=Counter)
    """Memory of bound members of gangs of which fewer than minCount are bound, while others of them wait
    that could be bound, times how long: it works for nobody."""
    free_byte_seconds: Counter[str] = field(default_factory=Counter)
    """Memory that was free, though gangs that had all the members they need had been refused: on nodes
    that would take one of their members, and no more than these members ask for, times how long."""
    commits: Counter[str] = field(default_factory=Counter)
    """Plans that were complete."""
    conflicts: Counter[str] = field(default_factory=Counter)
    """Claims whose room others had taken when it came to the commit."""
    rollbacks: Counter[str] = field(default_factory=Counter)
    """Plans given up after members had places in them."""
    infeasible: Counter[str] = field(default_factory=Counter)
    """Attempts that found no plan, by the gang's own needs."""
    searches_given_up: Counter[str] = field(default_factory=Counter)
    """Those of them whose search had spent its budget: there may have been a plan."""
    compensations: Counter[str] = field(default_factory=Counter)
    """Commits that were given up with members bound, which had to go."""
    planning_cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Processor time of the thread that plans."""
    deadlocks: int = 0
    """Times a gang had to give up its holds for a senior one that it blocked."""
    since_first_member: dict[str, Durations] = field(default_factory=dict)
    """From the moment a gang was first seen until minCount members of it were bound."""
    since_min_count: dict[str, Durations] = field(default_factory=dict)
    """The same, from the moment minCount members existed."""
