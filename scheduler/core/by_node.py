"""Counts by node name: what is gone to zero is not kept, so that a count is as large as what it counts."""

from __future__ import annotations


def bump(by_node: dict[str, int], node: str, amount: int) -> int:
    """Adds to a node's count; returns what it is then."""
    left = by_node.get(node, 0) + amount
    if left:
        by_node[node] = left
    else:
        by_node.pop(node, None)
    return left
