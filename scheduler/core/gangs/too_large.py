"""Whether the room that there is rules a gang out, whichever nodes its members choose.

A gang that does not fit is planned again whenever something has changed that might help, and a search
through its members' choices costs a thousand times what this does. It must never be wrong: of members that
ask for at least as much as one of a certain size, no more can be placed than copies of that one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from scheduler.core.gangs.rooms import Member
from scheduler.core.nodes import CPU, MEMORY, NodeTable
from scheduler.core.plugin import Mask

NODE_RESOURCES_FIT = "NodeResourcesFit"
"""The filter by which nodes have only so much room; it can't be told to overlook CPU, memory and pods."""
_SIZES_LOOKED_AT = 32


def is_too_large(members: Sequence[Member], need: int, nodes: NodeTable, within: Mask | None) -> bool:
    """Whether there can't be places for `need` of the members, on these nodes or on all."""
    cycles = {id(member.cycle): member.cycle for member in members}.values()
    if not all(
        any(plugin.name == NODE_RESOURCES_FIT for plugin in cycle.profile.filters) for cycle in cycles
    ):
        return False
    n = len(nodes)
    cpu, memory = (nodes.allocatable[row, :n] - nodes.requested[row, :n] for row in (CPU, MEMORY))
    slots = np.maximum(nodes.pod_limit[:n] - nodes.pod_count[:n], 0)
    if within is not None:
        slots = np.where(within, slots, 0)
    sizes = Counter((m.info.requests.get("cpu", 0), m.info.requests.get("memory", 0)) for m in members)
    for size, _ in sizes.most_common(_SIZES_LOOKED_AT):
        copies = slots
        for free, amount in zip((cpu, memory), size, strict=True):
            if amount:
                copies = np.minimum(copies, np.maximum(free, 0) // amount)
        smaller = sum(count for other, count in sizes.items() if other[0] < size[0] or other[1] < size[1])
        if smaller + int(copies.sum()) < need:
            return True
    return False
