"""What a plugin that looks beyond a node keeps of one kind of pod from one decision to the next.

A placement may change what such a plugin says of any node, but as a rule it changes it for one domain, or
for none. So the plugin may hand out *followers*, which hold an answer for all nodes and take in what has
happened to pods since they were last asked. Nothing else ever happens to a follower: when a node object or
a namespace changes, or the pod's context, it is thrown away and a new one is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scheduler.core.nodes import NodeView, Rows
    from scheduler.core.plugin import Bits, FilterPlugin, Mask, Ranking, ScorePlugin
    from scheduler.core.pod_info import PodInfo


class FilterFollower(ABC):
    """A filter's answer for all nodes."""

    bits: Bits
    """uint64[n] as in `FilterResult`, as of the last `catch_up`."""
    unresolvable: Mask
    """bool[n]."""

    @abstractmethod
    def catch_up(self) -> Rows | None:
        """Takes in what has happened; returns the rows whose answer may have changed, or None when that
        can't be done: then a new follower is made."""


class RankFollower(ABC):
    """What a score is made of, for all nodes."""

    @abstractmethod
    def catch_up(self) -> bool:
        """Takes in what has happened; False when that can't be done: then a new follower is made."""

    @abstractmethod
    def rank(self, rows: Rows) -> Ranking:
        """Scores of the feasible nodes (never none), in order, as of the last `catch_up`."""


class AskFilter(FilterFollower):
    """Of a plugin that does without: it is asked anew each time."""

    def __init__(self, plugin: FilterPlugin, pod: PodInfo, nodes: NodeView) -> None:
        self._ask = plugin, pod, nodes
        self.catch_up()

    def catch_up(self) -> Rows:
        plugin, pod, nodes = self._ask
        self.bits, self.unresolvable = plugin.filter(pod, nodes)
        return slice(0, nodes.count)


class AskRank(RankFollower):
    """The same for scores."""

    def __init__(self, plugin: ScorePlugin, pod: PodInfo, nodes: NodeView) -> None:
        self._ask = plugin, pod, nodes

    def catch_up(self) -> bool:
        return True

    def rank(self, rows: Rows) -> Ranking:
        plugin, pod, nodes = self._ask
        feasible = np.zeros(nodes.count, np.bool_)
        feasible[rows] = True
        return plugin.rank(pod, nodes, feasible)


NO_ROWS: NDArray[np.intp] = np.empty(0, np.intp)


def union(parts: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    """The rows that are in any of the parts; some may be there twice."""
    if not parts:
        return NO_ROWS
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
