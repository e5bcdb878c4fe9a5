"""Asks a profile's plugins to help a pod that fits nowhere.

Source: RunPostFilterPlugins (pkg/scheduler/framework/runtime/framework.go).
"""

from __future__ import annotations

from scheduler.api_objects import PodDisruptionBudget
from scheduler.core.budgets import Budgets
from scheduler.core.cycle import Cycle
from scheduler.core.plugin import PostFilterResult
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key
from scheduler.core.state import ClusterState


class PostFilters:
    """For all profiles."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._budgets, self._version = Budgets(state.nodes.cluster), 0

    def ask(self, cycle: Cycle, pod: PodInfo, key: Key) -> PostFilterResult | None:
        """The first plugin's answer that is a preemption, else all answers together. None when there is
        nobody to ask, or no node to ask about."""
        plugins, nodes = cycle.profile.post_filters, self._state.nodes
        if not plugins or not len(nodes):
            return None
        version = nodes.cluster.version(PodDisruptionBudget)
        if self._version != version:
            self._budgets, self._version = Budgets(nodes.cluster), version
        attempt = cycle.attempt(pod, key, self._state.placed, self._budgets)
        results = []
        for plugin in plugins:
            result = plugin.post_filter(attempt)
            if result.preemption is not None:
                return result
            results.append(result)
        return PostFilterResult(
            ", ".join(result.message for result in results),
            keeps_nomination=all(result.keeps_nomination for result in results),
            unfinished=any(result.unfinished for result in results),
        )
