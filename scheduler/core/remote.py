"""Answers of plugins that look at other nodes: affinity and spreading.

A placement may change what they say of any node, so that nothing is patched: they are asked anew at each
decision, with all nodes. That is a few passes over arrays, and it is spared to most pods. What the cluster
holds for or against a pod beyond its own fields is its *context*; in a context in which no such plugin has
anything to say, finding that out is all the cost.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from scheduler.core.filter_answers import FilterAnswers
from scheduler.core.nodes import NodeTable, Stamp
from scheduler.core.plugin import FilterPlugin, Mask, Plugin, Scores, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile, WeightedScore
from scheduler.core.volumes.plan import VolumePlan

CONTEXTS_KEPT = 16
"""Of one kind of pod."""

Context = tuple[Hashable, ...]


class RemoteAnswers:
    """What these plugins say of a kind in one context."""

    def __init__(self, filters: FilterAnswers | None, scores: list[WeightedScore]) -> None:
        self.filters = filters
        """None when no filter has anything to say."""
        self.scores = scores
        """Those that have something to say."""
        self.stamp: Stamp | None = None


class RemotePlugins:
    """The plugins of one profile that are not row-local."""

    def __init__(self, profile: Profile, nodes: NodeTable) -> None:
        self._nodes = nodes
        self._filters = [(i, p) for i, p in enumerate(profile.filters) if not p.row_local]
        self._scores = [s for s in profile.scores if not s.plugin.row_local]
        self._refusing = [p for _, p in self._filters if type(p).refuses is not FilterPlugin.refuses]
        self._planning = [p for _, p in self._filters if type(p).plan is not FilterPlugin.plan]
        plugins: list[Plugin] = [plugin for _, plugin in self._filters]
        self._plugins = list(dict.fromkeys([*plugins, *(s.plugin for s in self._scores)]))
        self._reads_workloads = any(p.wakes_on & Wake.WORKLOAD for _, p in self._filters)

    def has_filter_contexts(self, pod: PodInfo) -> bool:
        """Whether pods of this one's key may differ in their filter context as things stand."""
        return bool(self._filters) and (
            self._nodes.pods.carries_terms or self._reads_workloads or self.may_refuse(pod)
        )

    def filter_context(self, pod: PodInfo) -> Context:
        """What of the cluster concerns filters of the pod beyond its key."""
        nodes = self._nodes.view()
        contexts = [(p, p.context(pod, nodes)) for _, p in self._filters]
        return tuple([context if context and p.applies_in(context) else () for p, context in contexts])

    def may_refuse(self, pod: PodInfo) -> bool:
        """Whether any plugin may have to say before it looks at nodes that the pod fits none."""
        nodes = self._nodes.view()
        return any(plugin.context(pod, nodes) for plugin in self._refusing)

    def plan(self, pod: PodInfo, row: int) -> VolumePlan | None:
        """What is to be written before the pod can be bound to this row's node."""
        nodes = self._nodes.view()
        plans = (p.plan(pod, nodes, row) for p in self._planning if self._concerns(p, pod))
        return next((plan for plan in plans if plan is not None), None)

    def context(self, pod: PodInfo) -> Context:
        """What of the cluster concerns the pod beyond its key."""
        nodes = self._nodes.view()
        return tuple([plugin.context(pod, nodes) for plugin in self._plugins])

    def answers(self, pod: PodInfo, kept: dict[Context, RemoteAnswers]) -> RemoteAnswers:
        """Of things as they stand; `kept` are those of the pod's kind."""
        context, nodes = self.context(pod), self._nodes.view()
        answers = kept.get(context)
        if answers is None:
            if len(kept) >= CONTEXTS_KEPT:
                kept.clear()
            concerned = [(i, p) for i, p in self._filters if self._concerns(p, pod)]
            answers = kept[context] = RemoteAnswers(
                FilterAnswers(concerned) if concerned else None,
                [s for s in self._scores if s.plugin.prefers(pod, nodes)],
            )
        if answers.filters is not None and answers.stamp != self._nodes.stamp:
            answers.filters.resize(nodes.count)
            answers.filters.refresh(pod, slice(0, nodes.count), nodes)
            answers.stamp = self._nodes.stamp
        return answers

    def rejecting(self, plugin: FilterPlugin, pod: PodInfo) -> Mask | None:
        """bool[all nodes]: where this one plugin rejects the pod; None when it has nothing to say."""
        if not self._concerns(plugin, pod):
            return None
        return np.asarray(plugin.filter(pod, self._nodes.view()).reason_bits != 0, np.bool_)

    def scores(self, pod: PodInfo, answers: RemoteAnswers, feasible: Mask) -> Scores:
        """int64[feasible]: the weighted sum of normalised scores."""
        nodes = self._nodes.view()
        total = np.zeros(int(np.count_nonzero(feasible)), np.int64)
        for weighted in answers.scores:
            total += weighted.plugin.rank(pod, nodes, feasible).normalized * weighted.weight
        return total

    def _concerns(self, plugin: FilterPlugin, pod: PodInfo) -> bool:
        if plugin.applies(pod):
            return True
        context = plugin.context(pod, self._nodes.view())
        return bool(context) and plugin.applies_in(context)
