"""Asks a profile's plugins to help a pod that fits nowhere.

Source: RunPostFilterPlugins (pkg/scheduler/framework/runtime/framework.go).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import PodDisruptionBudget
from scheduler.core.budgets import Budgets
from scheduler.core.cycle import Cycle
from scheduler.core.placement import Within
from scheduler.core.plugin import PostFilterResult
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key
from scheduler.core.state import ClusterState
from scheduler.core.victims import Victims


class PostFilters:
    """For all profiles."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._budgets, self._version = Budgets(state.nodes.cluster, state.condemned), (0, 0)
        self.victims = Victims(state)

    def ask(
        self, cycle: Cycle, pod: PodInfo, key: Key, within: Within | None = None
    ) -> PostFilterResult | None:
        """The first plugin's answer that is a preemption, else all answers together. None when there is
        nobody to ask, or no node to ask about."""
        plugins, nodes = cycle.profile.post_filters, self._state.nodes
        if not plugins or not len(nodes):
            return None
        rows = np.flatnonzero(within.mask) if within is not None else None
        attempt = cycle.attempt(pod, key, self._state.placed, self.budgets, rows)
        results = []
        for plugin in plugins:
            result = plugin.post_filter(attempt)
            if result.preemption is not None:
                whole = self.victims.whole(result.preemption.victims)
                return result._replace(preemption=replace(result.preemption, victims=whole))
            results.append(result)
        return PostFilterResult(
            ", ".join(result.message for result in results),
            keeps_nomination=all(result.keeps_nomination for result in results),
            unfinished=any(result.unfinished for result in results),
        )

    def might_help(self, cycle: Cycle, pod: PodInfo, key: Key, rows: NDArray[np.intp]) -> bool:
        """Whether any of them may find something to do on these nodes now."""
        plugins, placed = cycle.profile.post_filters, self._state.placed
        if not plugins or not len(rows) or not placed.any_below(pod.priority):
            return False
        placed.update()
        lower, _ = placed.below(pod.priority, len(self._state.nodes))
        rows = rows[lower[rows] > 0]
        if not len(rows):
            return False
        attempt = cycle.attempt(pod, key, placed, self.budgets, rows)
        return any(plugin.might_help(attempt) for plugin in plugins)

    @property
    def budgets(self) -> Budgets:
        """As they stand now."""
        cluster, condemned = self._state.nodes.cluster, self._state.condemned
        version = cluster.version(PodDisruptionBudget), condemned.version
        if self._version != version:
            self._budgets, self._version = Budgets(cluster, condemned), version
        return self._budgets
