"""How much memory gangs may hold at once, by namespace and in all.

Anybody who may create pods may have room held that others need, so a profile caps it. A gang over the cap
loses nothing but the holding: its members are tried again and again, and when all that it needs fit at
once they are placed, whatever the caps say, as nothing is held for that. So caps can't make gangs wait
for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from scheduler.core.gangs.gang import STRATEGY, GangPolicy
from scheduler.core.gangs.ref import GangRef
from scheduler.core.nodes import MEMORY, NodeTable
from scheduler.core.pod_info import PodInfo

if TYPE_CHECKING:
    from scheduler.core.gangs.hoarding import Holding

_MIB = 1 << 20


def held_bytes(info: PodInfo) -> int:
    """Memory that a hold of this pod keeps from others."""
    return info.usage.get("memory", 0)


class HoldCaps:
    """For one decision; what `refuse` lets pass counts as held for the next call."""

    def __init__(self, nodes: NodeTable, policy: GangPolicy, holdings: Iterable[Holding]) -> None:
        self._policy, self._all_bytes = policy, int(nodes.capacity[MEMORY])
        self._held: Counter[str] = Counter()
        for holding in holdings:
            self._held[holding.gang.ref.namespace] += holding.memory_bytes

    def refuse(self, ref: GangRef, info: PodInfo) -> str:
        """Why this member's room may not be held, and what would help; empty if it may, and then it is.

        The text has no amounts that change by the second, so that it is not written again and again."""
        more, policy, held = held_bytes(info), self._policy, self._held
        for cap, fraction, before in (
            ("namespace", policy.max_held_by_namespace, held[ref.namespace]),
            ("cluster", policy.max_held, held.total()),
        ):
            if before + more > fraction * self._all_bytes:
                whose = f"of namespace {ref.namespace}" if cap == "namespace" else "of all namespaces"
                return (
                    f"gang {ref} may hold no more: with this member, gangs {whose} would hold more memory "
                    f"than gangs.maxHeldFraction.{cap} of profile {policy.profile} allows ({fraction:g} of "
                    f"the cluster's {self._all_bytes // _MIB}Mi). It is placed when others hold less, or "
                    f"when all members that it needs fit at once. With annotation {STRATEGY}: atomic it "
                    "would hold nothing"
                )
        self._held[ref.namespace] += more
        return ""
