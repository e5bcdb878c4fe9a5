"""The scheduling cycle of one profile: filter, score, pick, for one pod against all nodes.

All nodes are looked at, always; what makes that cheap is that almost nothing is computed twice.
Pods of one kind (equal in every field the profile's plugins read) share one `_Answers`: filter
results and scores of all nodes, patched on the rows that changed since they were last used. A
placement changes one row, so the work per decision follows what changed, not nodes x plugins.
Filters that do not read usage share their answers in turn, even between pods of different sizes;
for scores that do not, see `scheduler.core.preferences`, and for plugins that look at other nodes
`scheduler.core.remote`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.filter_answers import PASSES, FilterAnswers
from scheduler.core.nodes import MEMORY, NodeTable, Rows, Stamp, narrow
from scheduler.core.plugin import FilterPlugin, Mask, PreFilterResult, ScorePlugin, Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.preferences import Preferences, StaticScore
from scheduler.core.profile import Key, Profile, WeightedScore, key_reader
from scheduler.core.recent import Recent
from scheduler.core.remote import CONTEXTS_KEPT, Context, RemoteAnswers, RemotePlugins
from scheduler.core.row_memo import RowAnswer, RowMemo

NO_NODES = "no nodes available to schedule pods"
"""ErrNoNodesAvailable (pkg/scheduler/schedule_one.go)."""

_INFEASIBLE = np.iinfo(np.int64).min
CACHED_KINDS = 256
"""Kinds of pods whose answers are kept; each takes some 26 bytes a node."""
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Placement:
    """What a cycle found. Without a node, `message` is the text of the FailedScheduling event."""

    node: str | None
    message: str = ""
    rejected_by: frozenset[str] = frozenset()
    """Plugins that rejected at least one node (or the pod as such)."""


class Choices(NamedTuple):
    """Rows that a pod could take."""

    best_first: NDArray[np.intp]
    """Where all filters pass."""
    curable: NDArray[np.intp]
    """Where it is only pods missing elsewhere that keeps it off; the rows in order."""


class _Answers:
    """All that is known of one kind of pod, but for scores that do not read usage."""

    def __init__(
        self,
        static: FilterAnswers,
        usage: FilterAnswers,
        scores: Sequence[WeightedScore],
        prefilter: PreFilterAnswer,
    ) -> None:
        self.static, self.usage, self.prefilter = static, usage, prefilter
        self.scores = scores
        """Plugins that read usage and have something to say of the pod."""
        self.versions: tuple[int, ...] = ()
        self.raw = np.empty((len(scores), 0), np.int64)
        self.alone = len(scores) == 1 and scores[0].plugin.full_resolution
        """Whether `total` decides as it is, unless there are preferences."""
        self.sums = all(s.plugin.normalized for s in scores)
        """Whether `total` is a sum of normalised scores, so that preferences can be added to it."""
        self.total = np.empty(0, np.int64)
        """Weighted sum of raw scores; lowest where the pod does not fit."""
        plugins = [*(p for _, p in usage.filters), *(s.plugin for s in scores)]
        self.memo = RowMemo() if all(p.reads_amounts_only for p in plugins) else None
        self.remote: dict[Context, RemoteAnswers] = {}
        self.failures: dict[RemoteAnswers, tuple[Stamp, Placement]] = {}


@dataclass(frozen=True)
class PreFilterAnswer:
    """All plugins' PreFilter answers as one, and who said no or narrowed the nodes."""

    result: PreFilterResult
    rejected_by: frozenset[str]


class Cycle:
    """Decides for one profile against one node table."""

    def __init__(self, profile: Profile, nodes: NodeTable, *, cached_kinds: int = CACHED_KINDS) -> None:
        self.profile, self._nodes = profile, nodes
        filters = list(enumerate(profile.filters))
        self._static_filters = [(i, p) for i, p in filters if p.row_local and not p.reads_usage]
        self._usage_filters = [(i, p) for i, p in filters if p.row_local and p.reads_usage]
        self.remote = RemotePlugins(profile, nodes)
        self._read_static_key = key_reader([p for _, p in self._static_filters])
        self._usage_scores = [s for s in profile.scores if s.plugin.row_local and s.plugin.reads_usage]
        plugins: list[FilterPlugin | ScorePlugin] = [
            *profile.filters,
            *(s.plugin for s in profile.scores if not _is_static(s)),
        ]
        self.read_key: Callable[[PodInfo], Key] = key_reader(plugins)
        self._preferences = Preferences(
            [s for s in profile.scores if _is_static(s)],
            nodes,
            known={field for plugin in plugins for field in plugin.reads},
            cached_kinds=cached_kinds,
        )
        self._static: Recent[Key, FilterAnswers] = Recent(cached_kinds)
        self._kinds: Recent[Key, _Answers] = Recent(cached_kinds)

    def place(self, pod: PodInfo, key: Key | None = None, *, within: Mask | None = None) -> Placement:
        """The best node for the pod as things stand, of those in bool[n] `within` if that is given;
        nothing is changed by asking."""
        n = len(self._nodes)
        if n == 0:
            return Placement(None, NO_NODES)
        key = self.read_key(pod) if key is None else key
        answers = self._answers(pod, key)
        prefilter = answers.prefilter.result
        if prefilter.rejection is not None:
            message = f"0/{n} nodes are available: {prefilter.rejection}."
            return Placement(None, message, answers.prefilter.rejected_by)
        remote = self.remote.answers(pod, answers.remote)
        totals = answers.total
        if remote.filters is not None:
            totals = np.where(remote.filters.first == PASSES, totals, _INFEASIBLE)
        candidates = None
        if within is not None:
            totals = np.where(within, totals, _INFEASIBLE)
        if prefilter.node_names is not None:
            candidates = self._rows_named(prefilter.node_names)
            totals = totals[candidates]
        best = totals.max(initial=_INFEASIBLE)
        if best == _INFEASIBLE:
            return self._failure(pod, answers, remote, candidates)
        preferences = self._preferences.of(pod, key)
        if preferences or remote.scores or not (answers.alone or answers.sums):
            rows = np.flatnonzero(totals != _INFEASIBLE)
            if candidates is not None:
                rows = candidates[rows]
            ties = self._best_of_mixed(pod, answers, preferences, remote, rows)
        else:
            ties = np.flatnonzero(totals == best)
            if candidates is not None:
                ties = candidates[ties]
        row = int(ties[0]) if len(ties) == 1 else self._break_tie(pod, ties)
        return Placement(self._nodes.names[row])

    def choices(self, pod: PodInfo, key: Key, within: Mask | None = None) -> Choices:
        """All that `place` could choose from, in the order of its preference; bool[n] `within` limits
        the nodes."""
        none = np.empty(0, np.intp)
        if not len(self._nodes):
            return Choices(none, none)
        answers = self._answers(pod, key)
        prefilter = answers.prefilter.result
        if prefilter.rejection is not None:
            return Choices(none, none)
        allowed = answers.total != _INFEASIBLE
        if within is not None:
            allowed = allowed & within
        if prefilter.node_names is not None:
            named = np.zeros(len(self._nodes), np.bool_)
            named[self._rows_named(prefilter.node_names)] = True
            allowed = allowed & named
        remote = self.remote.answers(pod, answers.remote)
        curable = none
        if remote.filters is not None:
            passes = remote.filters.first == PASSES
            curable = np.flatnonzero(allowed & ~passes & remote.filters.curable())
            allowed = allowed & passes
        rows = np.flatnonzero(allowed)
        if not len(rows):
            return Choices(none, curable)
        totals, finer = self._totals(pod, answers, self._preferences.of(pod, key), remote, rows)
        nodes = self._nodes
        free = nodes.allocatable[MEMORY].take(rows) - nodes.requested[MEMORY].take(rows)
        hashed = (nodes.name_hash.take(rows) ^ np.uint64(pod.uid_hash)) * _HASH_FACTOR
        return Choices(rows[np.lexsort((~hashed, free, *(-raw for raw in finer), -totals))], curable)

    def rejected_by(self, pod: PodInfo, rows: NDArray[np.intp]) -> frozenset[str] | None:
        """Who rejects the pod on these rows, the first plugin of each; None when one of them fits."""
        prefilter = run_prefilters(self.profile, pod)
        if prefilter.result.rejection is not None:
            return prefilter.rejected_by
        rejected_by = set(prefilter.rejected_by)
        names = prefilter.result.node_names
        if names is not None:
            named, given = self._rows_named(names), np.zeros(len(self._nodes), np.bool_)
            given[rows] = True
            rows = named[given[named]]
        nodes = self._nodes.view(rows)
        left = np.ones(len(rows), np.bool_)
        for plugin in self.profile.filters:
            if not left.any():
                break
            if not plugin.row_local:
                everywhere = self.remote.rejecting(plugin, pod)
                rejecting = everywhere[rows] if everywhere is not None else None
            else:
                rejecting = plugin.filter(pod, nodes).reason_bits != 0 if plugin.applies(pod) else None
            if rejecting is not None and (left & rejecting).any():
                rejected_by.add(plugin.name)
                left &= ~rejecting
        return None if left.any() else frozenset(rejected_by)

    def explain(self, pod: PodInfo) -> tuple[list[FilterAnswers], dict[str, Scores]]:
        """(answers of the groups of filters, raw scores int64[n] by plugin), for tools that show them.
        Plugins that have nothing to say of the pod are left out, and so are the scores of those that
        are not row-local."""
        key = self.read_key(pod)
        answers = self._answers(pod, key)
        remote = self.remote.answers(pod, answers.remote)
        raw = dict(zip((s.plugin.name for s in answers.scores), answers.raw, strict=True))
        return _groups(answers, remote), raw | self._preferences.raw(pod, key)

    # ---- internals

    def _rows_named(self, names: Iterable[str]) -> NDArray[np.intp]:
        """Rows of those of the nodes that exist."""
        row_of = self._nodes.row_of
        return np.array(sorted(row_of[name] for name in names if name in row_of), np.intp)

    def _answers(self, pod: PodInfo, key: Key) -> _Answers:
        """The pod's kind, brought up to date with the table."""
        nodes, n = self._nodes, len(self._nodes)
        answers = self._kinds.get(key)
        if answers is None:
            static_key = self._read_static_key(pod)
            static = self._static.get(static_key)
            if static is None:
                static = self._static.put(static_key, _applying(self._static_filters, pod))
            usage = _applying(self._usage_filters, pod)
            scores = [s for s in self._usage_scores if s.plugin.rates(pod)]
            answers = _Answers(static, usage, scores, run_prefilters(self.profile, pod))
            self._kinds.put(key, answers)
        static, usage = answers.static, answers.usage
        generation = nodes.generation
        if static.generation != generation:
            static.resize(n)
            rows = nodes.objects_changed_since(static.generation)
            if len(rows):
                part = narrow(rows, n)
                static.refresh(pod, part, nodes.view(part))
            static.generation = generation
        everything = nodes.view()
        versions = tuple([s.plugin.version(everything) for s in answers.scores])
        if versions != answers.versions:
            answers.versions, usage.generation = versions, -1
            if answers.memo is not None:
                answers.memo.clear()
        if usage.generation != generation:
            usage.resize(n)
            if answers.total.size != n:
                answers.total = np.resize(answers.total, n)
                answers.raw = np.resize(answers.raw.T, (n, answers.raw.shape[0])).T.copy()
            rows = nodes.changed_since(usage.generation)
            if len(rows) == 1 and answers.memo is not None:
                self._refresh_row(pod, answers, answers.memo, int(rows[0]))
            elif len(rows):
                self._refresh_usage(pod, answers, narrow(rows, n))
            usage.generation = generation
        return answers

    def _refresh_row(self, pod: PodInfo, answers: _Answers, memo: RowMemo, row: int) -> None:
        """The usual case: the one row that the last placement has changed."""
        usage = answers.usage
        key, known = memo.get(self._nodes, row)
        if known is None:
            total = int(self._refresh_usage(pod, answers, slice(row, row + 1))[0])
            raw = answers.raw[:, row].copy()
            memo.put(key, RowAnswer(usage.first[row], usage.bits[row], usage.unresolvable[row], raw, total))
            return
        usage.first[row], usage.bits[row], usage.unresolvable[row] = known[:3]
        answers.raw[:, row] = known.raw
        fits = known.first == PASSES and answers.static.first[row] == PASSES
        answers.total[row] = known.total if fits else _INFEASIBLE

    def _refresh_usage(self, pod: PodInfo, answers: _Answers, rows: Rows) -> Scores:
        """Redoes these rows; returns their weighted sums of raw scores, whether they fit or not."""
        nodes = self._nodes.view(rows)
        answers.usage.refresh(pod, rows, nodes)
        total = np.zeros(nodes.count, np.int64)
        for i, weighted in enumerate(answers.scores):
            raw = weighted.plugin.score(pod, nodes)
            answers.raw[i, rows] = raw
            total += raw * weighted.weight
        feasible = (answers.usage.first[rows] == PASSES) & (answers.static.first[rows] == PASSES)
        answers.total[rows] = np.where(feasible, total, _INFEASIBLE)
        return total

    def _best_of_mixed(
        self,
        pod: PodInfo,
        answers: _Answers,
        preferences: Sequence[StaticScore],
        remote: RemoteAnswers,
        rows: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        """Those of the rows that fit with the highest weighted sum of normalised scores; normalisation
        looks at these rows only. Among them a plugin of full resolution decides."""
        totals, finer = self._totals(pod, answers, preferences, remote, rows)
        best = totals == totals.max()
        for raw in finer:
            best &= raw == raw[best].max()
        ties: NDArray[np.intp] = rows[best]
        return ties

    def _totals(
        self,
        pod: PodInfo,
        answers: _Answers,
        preferences: Sequence[StaticScore],
        remote: RemoteAnswers,
        rows: NDArray[np.intp],
    ) -> tuple[Scores, list[Scores]]:
        """Of these rows, all of which fit: weighted sums of normalised scores, and raw scores that
        decide between equal ones, in turn."""
        if answers.sums:
            totals = answers.total[rows]
        else:
            totals = np.zeros(len(rows), np.int64)
            for raw, weighted in zip(answers.raw, answers.scores, strict=True):
                totals += weighted.plugin.normalize(raw[rows]) * weighted.weight
        for score in preferences:
            totals += score.plugin.normalize(score.raw[rows]) * score.weight
        if remote.scores:
            feasible = np.zeros(len(self._nodes), np.bool_)
            feasible[rows] = True
            totals += self.remote.scores(pod, remote, feasible)
        finer = zip(answers.raw, answers.scores, strict=True)
        return totals, [raw[rows] for raw, weighted in finer if weighted.plugin.full_resolution]

    def _break_tie(self, pod: PodInfo, rows: NDArray[np.intp]) -> int:
        """Less free memory first, then a hash of (uid, node): the same in every process, and
        spread out, so that two schedulers on one cluster seldom pick the same node."""
        nodes = self._nodes
        free = nodes.allocatable[MEMORY].take(rows) - nodes.requested[MEMORY].take(rows)
        rows = rows[free == free.min()]
        if len(rows) == 1:
            return int(rows[0])
        mixed = (nodes.name_hash.take(rows) ^ np.uint64(pod.uid_hash)) * _HASH_FACTOR
        return int(rows[np.argmax(mixed)])

    def _failure(
        self,
        pod: PodInfo,
        answers: _Answers,
        remote: RemoteAnswers,
        candidates: NDArray[np.intp] | None,
    ) -> Placement:
        """FitError.Error() (pkg/scheduler/framework/types.go), kept until the table changes."""
        stamp, n = self._nodes.stamp, len(self._nodes)
        kept = answers.failures.get(remote)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        counts: Counter[str] = Counter()
        rejected_by = set(answers.prefilter.rejected_by)
        rows = np.arange(n) if candidates is None else candidates
        groups = _groups(answers, remote)
        first = np.minimum.reduce([group.first[rows] for group in groups])
        for group in groups:
            for index, plugin in group.filters:
                bits = group.bits[rows[first == index]]
                if not len(bits):
                    continue
                rejected_by.add(plugin.name)
                for k, text in enumerate(plugin.reasons(pod)):
                    counts[text] += int(np.count_nonzero(bits & np.uint64(1 << k)))
        if candidates is not None:
            plugins = " ".join(sorted(answers.prefilter.rejected_by))
            counts[f"node(s) didn't satisfy plugin(s) [{plugins}]"] += n - len(candidates)
        texts = sorted(f"{count} {text}" for text, count in counts.items() if count)
        message = f"0/{n} nodes are available: {', '.join(texts)}."
        placement = Placement(None, message, frozenset(rejected_by))
        if kept is None and len(answers.failures) >= CONTEXTS_KEPT:
            answers.failures.clear()
        answers.failures[remote] = (stamp, placement)
        return placement


def run_prefilters(profile: Profile, pod: PodInfo) -> PreFilterAnswer:
    """All plugins' PreFilter answers merged, as RunPreFilterPlugins does
    (pkg/scheduler/framework/runtime/framework.go)."""
    names: frozenset[str] | None = None
    limiting: list[str] = []
    for plugin in profile.filters:
        result = plugin.prefilter(pod)
        if result.rejection is not None:
            return PreFilterAnswer(result, frozenset([plugin.name]))
        if result.node_names is None:
            continue
        limiting.append(plugin.name)
        names = result.node_names if names is None else names & result.node_names
        if not names:
            which = (
                f"(s) [{' '.join(sorted(limiting))}] simultaneously" if limiting[1:] else f" {limiting[0]}"
            )
            text = f"node(s) didn't satisfy plugin{which}"
            return PreFilterAnswer(PreFilterResult(rejection=text), frozenset(limiting))
    return PreFilterAnswer(PreFilterResult(node_names=names), frozenset(limiting))


def _applying(filters: Iterable[tuple[int, FilterPlugin]], pod: PodInfo) -> FilterAnswers:
    return FilterAnswers((index, plugin) for index, plugin in filters if plugin.applies(pod))


def _groups(answers: _Answers, remote: RemoteAnswers) -> list[FilterAnswers]:
    groups = [answers.static, answers.usage]
    return groups if remote.filters is None else [*groups, remote.filters]


def _is_static(score: WeightedScore) -> bool:
    return score.plugin.row_local and not score.plugin.reads_usage
