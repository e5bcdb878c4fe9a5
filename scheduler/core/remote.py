"""Answers of plugins that look at other nodes: affinity and spreading.

A placement may change what they say of any node, so rows alone don't tell what to redo: plugins follow what
happens by themselves (`scheduler.core.following`). What the cluster holds for or against a pod beyond its own
fields is its *context*; in a context in which no such plugin has anything to say, finding that out is all the
cost, and so it is for most pods.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from scheduler.core.filter_answers import FilterAnswers
from scheduler.core.following import FilterFollower, RankFollower
from scheduler.core.nodes import Layout, NodeTable, NodeView, Rows, Stamp
from scheduler.core.plugin import FilterPlugin, Mask, Plugin, Scores, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile, WeightedScore
from scheduler.core.volumes.plan import VolumePlan

CONTEXTS_KEPT = 16
"""Of one kind of pod."""

Context = tuple[Hashable, ...]


class RemoteAnswers:
    """What these plugins say of a kind in one context."""

    def __init__(self, filters: list[tuple[int, FilterPlugin]], scores: list[WeightedScore]) -> None:
        """Those that have something to say."""
        self.filters = FilterAnswers(filters) if filters else None
        self.scores = scores
        self._filter_followers: list[FilterFollower] = []
        self._rank_followers: list[RankFollower] = []
        self._stamp: Stamp | None = None
        self._layout: Layout | None = None

    def catch_up(self, pod: PodInfo, nodes: NodeTable) -> None:
        """Takes in what has happened to nodes and pods."""
        if self._stamp == nodes.stamp:
            return
        if self._layout != nodes.layout:
            self._filter_followers.clear()
            self._rank_followers.clear()
        self._layout = None  # should a plugin fail, all of them begin anew
        if self.filters is not None:
            self._catch_up_filters(self.filters, pod, nodes)
        self._catch_up_ranks(pod, nodes.view())
        self._layout, self._stamp = nodes.layout, nodes.stamp

    def rank(self, rows: Rows, n: int) -> Scores:
        """int64[n]: the weighted sum of normalised scores of these rows, which are n."""
        total = np.zeros(n, np.int64)
        for weighted, follower in zip(self.scores, self._rank_followers, strict=True):
            total += follower.rank(rows).normalized * weighted.weight
        return total

    def _catch_up_filters(self, answers: FilterAnswers, pod: PodInfo, nodes: NodeTable) -> None:
        followers, everything = self._filter_followers, nodes.view()
        answers.resize(everything.count)
        changed: list[Rows] = []
        for i, (_, plugin) in enumerate(answers.filters):
            rows = followers[i].catch_up() if i < len(followers) else None
            if rows is None:
                followers[i : i + 1] = [plugin.follow_filter(pod, everything)]
                rows = slice(0, everything.count)
            changed.append(rows)
        for rows in changed:
            if isinstance(rows, slice) or len(rows):
                answers.put(rows, [(f.bits[rows], f.unresolvable[rows]) for f in followers])

    def _catch_up_ranks(self, pod: PodInfo, everything: NodeView) -> None:
        followers = self._rank_followers
        for i, weighted in enumerate(self.scores):
            if i >= len(followers) or not followers[i].catch_up():
                followers[i : i + 1] = [weighted.plugin.follow_rank(pod, everything)]


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
            self._nodes.pods.carries_terms or self._reads_workloads or any(self.filter_context(pod))
        )

    def filter_context(self, pod: PodInfo) -> Context:
        """What of the cluster concerns filters of the pod beyond its key."""
        nodes = self._nodes.view()
        contexts = [(p, p.context(pod, nodes)) for _, p in self._filters]
        return tuple([context if context and p.applies_in(context) else () for p, context in contexts])

    def is_silent(self, pod: PodInfo) -> bool:
        """Whether no filter has anything to say of the pod as things stand, wherever it goes."""
        return not any(self._concerns(plugin, pod) for _, plugin in self._filters)

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
            answers = kept[context] = RemoteAnswers(
                [(i, p) for i, p in self._filters if self._concerns(p, pod)],
                [s for s in self._scores if s.plugin.prefers(pod, nodes)],
            )
        answers.catch_up(pod, self._nodes)
        return answers

    def rejecting(self, plugin: FilterPlugin, pod: PodInfo) -> Mask | None:
        """bool[all nodes]: where this one plugin rejects the pod; None when it has nothing to say."""
        if not self._concerns(plugin, pod):
            return None
        return np.asarray(plugin.filter(pod, self._nodes.view()).reason_bits != 0, np.bool_)

    def _concerns(self, plugin: FilterPlugin, pod: PodInfo) -> bool:
        if plugin.applies(pod):
            return True
        context = plugin.context(pod, self._nodes.view())
        return bool(context) and plugin.applies_in(context)
