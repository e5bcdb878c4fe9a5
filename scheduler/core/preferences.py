"""Scores that do not read usage: taints to avoid, labels and images to prefer.

They change with node objects alone, so they are kept apart from the answers that placements change,
each by the pod fields that its own plugin reads: a thousand pods of different sizes that tolerate the
same taints share one column. Most of the time such a plugin has nothing to say at all: no node has
such a taint, the pod prefers nothing, no node has the image. Then its scores are equal on all nodes,
and what is equal everywhere is left out, which is exact (equal raw scores normalise to equal ones, and
a constant changes no maximum) and spares plain pods the cost of mixing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import numpy as np

from scheduler.core.nodes import NodeTable, narrow
from scheduler.core.plugin import ScorePlugin, Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Key, WeightedScore, field_reader, key_reader
from scheduler.core.recent import Recent


class StaticScore:
    """One plugin's raw scores of all nodes for pods that agree in what it reads."""

    def __init__(self, weighted: WeightedScore) -> None:
        self.plugin: ScorePlugin = weighted.plugin
        self.weight = weighted.weight
        self.raw: Scores = np.empty(0, np.int64)
        self.varies = False
        """Whether it makes a difference which node is chosen."""
        self._generation = -1
        self._version = 0

    def refresh(self, pod: PodInfo, nodes: NodeTable) -> None:
        """Redoes the rows whose node objects changed, or all when the plugin's version did."""
        if self._generation >= nodes.last_object_change:
            return
        n, version = len(nodes), self.plugin.version(nodes.view())
        since = self._generation if version == self._version else -1
        rows = nodes.objects_changed_since(since)
        if len(self.raw) != n:
            self.raw = np.resize(self.raw, n)
        if len(rows):
            part = narrow(rows, n)
            self.raw[part] = self.plugin.score(pod, nodes.view(part))
        self.varies = bool(n) and bool((self.raw != self.raw[0]).any())
        self._generation, self._version = nodes.generation, version


class _Kind:
    """The columns that matter to pods of one kind."""

    def __init__(self, scores: Sequence[StaticScore]) -> None:
        self.scores = scores
        self.varying: Sequence[StaticScore] = ()
        self.generation = -1


class Preferences:
    """The static scores of one profile over one node table.

    `known` are the fields of a pod that its key tells already: only further ones have to be read.
    """

    def __init__(
        self, scores: Sequence[WeightedScore], nodes: NodeTable, *, known: Set[str], cached_kinds: int
    ) -> None:
        self._nodes = nodes
        self._read_rest = field_reader({field for s in scores for field in s.plugin.reads} - known)
        self._kinds: Recent[tuple[Key, Key], _Kind] = Recent(cached_kinds)
        self._columns: list[tuple[WeightedScore, Callable[[PodInfo], Key], Recent[Key, StaticScore]]] = [
            (s, key_reader([s.plugin]), Recent(cached_kinds)) for s in scores
        ]

    def of(self, pod: PodInfo, key: Key) -> Sequence[StaticScore]:
        """The scores that differ between nodes, as things stand; empty for most pods."""
        return self._up_to_date(pod, key).varying if self._columns else ()

    def raw(self, pod: PodInfo, key: Key) -> dict[str, Scores]:
        """int64[n] of every plugin that has something to say of the pod, by its name."""
        return {score.plugin.name: score.raw for score in self._up_to_date(pod, key).scores}

    def _up_to_date(self, pod: PodInfo, key: Key) -> _Kind:
        nodes, whole_key = self._nodes, (key, self._read_rest(pod))
        kind = self._kinds.get(whole_key)
        if kind is None:
            kind = self._kinds.put(whole_key, _Kind(self._columns_of(pod)))
        if kind.generation < nodes.last_object_change:
            for score in kind.scores:
                score.refresh(pod, nodes)
            kind.varying = [score for score in kind.scores if score.varies]
            kind.generation = nodes.generation
        return kind

    def _columns_of(self, pod: PodInfo) -> list[StaticScore]:
        found = []
        for weighted, read_key, columns in self._columns:
            if weighted.plugin.rates(pod):
                key = read_key(pod)
                found.append(columns.get(key) or columns.put(key, StaticScore(weighted)))
        return found
