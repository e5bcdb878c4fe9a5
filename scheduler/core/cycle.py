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

import numpy as np
from numpy.typing import NDArray

from scheduler.core.attempt import Attempt
from scheduler.core.budgets import Budgets
from scheduler.core.dry_run import DryRun
from scheduler.core.filter_answers import PASSES, FilterAnswers, resized
from scheduler.core.nodes import MEMORY, NodeTable, Rows, Stamp, narrow
from scheduler.core.nominations import Nominations
from scheduler.core.overlay import Kept, Overlay, Overlays
from scheduler.core.placed_pods import PlacedPods
from scheduler.core.plugin import FilterPlugin, Mask, Plugin, PreFilterResult, Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.preferences import Preferences, StaticScore
from scheduler.core.prefilter import PreFilterAnswer, run_prefilters
from scheduler.core.profile import Key, Profile, WeightedScore, key_reader
from scheduler.core.questions import Questions, Statuses
from scheduler.core.recent import Recent
from scheduler.core.remote import CONTEXTS_KEPT, Context, RemoteAnswers, RemotePlugins
from scheduler.core.row_memo import RowAnswer, RowMemo
from scheduler.core.volumes.plan import VolumePlan

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
        self.rejections: tuple[Stamp, RemoteAnswers, Statuses] | None = None
        """What all filters together said when they were last put together."""
        self.nominated: Kept = {}
        self.dry_run: DryRun | None = None


class Cycle:
    """Decides for one profile against one node table."""

    def __init__(
        self,
        profile: Profile,
        nodes: NodeTable,
        nominations: Nominations | None = None,
        *,
        cached_kinds: int = CACHED_KINDS,
    ) -> None:
        self.profile, self._nodes = profile, nodes
        if nominations is None:  # (an empty one is false)
            nominations = Nominations(nodes, lambda node: ())
        self._nominations = nominations
        filters = list(enumerate(profile.filters))
        self._static_filters = [(i, p) for i, p in filters if p.row_local and not p.reads_usage]
        self._usage_filters = [(i, p) for i, p in filters if p.row_local and p.reads_usage]
        self.remote = RemotePlugins(profile, nodes)
        self._overlays = Overlays(nodes, self._nominations)
        self._read_static_key = key_reader([p for _, p in self._static_filters])
        self._usage_scores = [s for s in profile.scores if s.plugin.row_local and s.plugin.reads_usage]
        plugins: list[Plugin] = [
            *profile.filters,
            *(s.plugin for s in profile.scores if not _is_static(s)),
            *profile.post_filters,
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

    def place(self, pod: PodInfo, key: Key | None = None) -> Placement:
        """The best node for the pod as things stand; nothing is changed by asking."""
        n = len(self._nodes)
        if n == 0:
            return Placement(None, NO_NODES)
        key = self.read_key(pod) if key is None else key
        if self._kinds.get(key) is None:
            only = self._only_node(pod)
            if only is not None and self.rejected_by(pod, only) is None:
                return Placement(self._nodes.names[only[0]])
        answers = self._answers(pod, key)
        prefiltered = self._prefiltered(pod, answers)
        prefilter = prefiltered.result
        if prefilter.rejection is not None:
            message = f"0/{n} nodes are available: {prefilter.rejection}."
            return Placement(None, message, prefiltered.rejected_by)
        remote = self.remote.answers(pod, answers.remote)
        totals = answers.total
        if remote.filters is not None:
            totals = np.where(remote.filters.first == PASSES, totals, _INFEASIBLE)
        overlay, own = self._overlay(pod, answers, remote), -1
        if overlay is not None:
            totals = totals.copy()
            totals[overlay.rows] = _INFEASIBLE
            own = self._own_row(pod)
            if own >= 0 and totals[own] != _INFEASIBLE:
                return Placement(self._nodes.names[own])
        candidates = self._considered(prefilter, own)
        if candidates is not None:
            totals = totals[candidates]
        best = totals.max(initial=_INFEASIBLE)
        if best == _INFEASIBLE:
            return self._failure(pod, answers, remote, prefiltered.rejected_by, candidates, overlay, own)
        preferences = self._preferences.of(pod, key)
        if preferences or remote.scores or not (answers.alone or answers.sums):
            rows = _rows_where(totals != _INFEASIBLE)
            if candidates is not None:
                rows = candidates[rows]
            ties = self._best_of_mixed(pod, answers, preferences, remote, rows)
        else:
            ties = np.flatnonzero(totals == best)
            if candidates is not None:
                ties = candidates[ties]
        row = int(ties[0]) if len(ties) == 1 else self._break_tie(pod, ties)
        return Placement(self._nodes.names[row])

    def attempt(
        self,
        pod: PodInfo,
        key: Key,
        placed: PlacedPods,
        budgets: Budgets,
        rows: NDArray[np.intp] | None = None,
    ) -> Attempt:
        """What can be found out for a pod that `place` has found no node for, on these rows or on all."""
        nodes, n = self._nodes, len(self._nodes)
        answers = self._answers(pod, key)
        remote = self.remote.answers(pod, answers.remote)
        prefilter = self._prefiltered(pod, answers).result
        questions = self._questions(pod, answers, remote)
        considered = np.full(n, prefilter.rejection is None)
        for only in (self._considered(prefilter, self._own_row(pod)), rows):
            if only is not None:
                considered &= np.isin(np.arange(n), only)
        dry_run = answers.dry_run if questions.amounts_only else None
        if dry_run is None:
            dry_run = DryRun(nodes, placed, self._nominations)
            answers.dry_run = dry_run if questions.amounts_only else None
        return Attempt(
            questions,
            nodes,
            placed,
            self._nominations,
            budgets,
            statuses=self._rejections(answers, remote, self._overlay(pod, answers, remote)),
            considered=considered,
            dry_run=dry_run,
            count_reasons=lambda statuses: self._count_reasons(pod, statuses),
        )

    def rejected_by(self, pod: PodInfo, rows: NDArray[np.intp]) -> frozenset[str] | None:
        """Who rejects the pod on these rows, the first plugin of each; None when one of them fits."""
        prefilter = run_prefilters(self.profile, pod, self._nodes.view())
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
        if left.any() and self._nominations:
            answers = self._answers(pod, self.read_key(pod))
            questions = self._questions(pod, answers, self.remote.answers(pod, answers.remote))
            overlay = self._overlays.of_few(questions, rows[left])
            rejected_by.update(self.profile.filters[i].name for i in overlay.statuses.first.tolist())
            left[left] = ~np.isin(rows[left], overlay.rows)
        return None if left.any() else frozenset(rejected_by)

    def rejections(self, pod: PodInfo) -> Statuses:
        """Of all nodes, what `place` goes by, for tools that show it."""
        answers = self._answers(pod, self.read_key(pod))
        remote = self.remote.answers(pod, answers.remote)
        return self._rejections(answers, remote, self._overlay(pod, answers, remote))

    def plan(self, pod: PodInfo, node: str) -> VolumePlan | None:
        """What has to be written before the pod can be bound to the node, on which it fits."""
        return self.remote.plan(pod, self._nodes.row_of[node])

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

    def _own_row(self, pod: PodInfo) -> int:
        """Of the node that the pod is nominated to; -1 if there is none."""
        return self._nodes.row_of.get(self._nominations.node_of(pod.uid) or "", -1)

    def _considered(self, prefilter: PreFilterResult, own: int) -> NDArray[np.intp] | None:
        """Rows of the only nodes that are looked at, None for all; the pod's own is looked at anyway."""
        if prefilter.node_names is None:
            return None
        rows = self._rows_named(prefilter.node_names)
        return rows if own < 0 or own in rows else np.append(rows, own)

    def _only_node(self, pod: PodInfo) -> NDArray[np.intp] | None:
        """The row of the one node that the pod can go to, as its spec says. Each pod of a DaemonSet is of
        its own kind, so that looking at all nodes for it would be for nothing."""
        names = run_prefilters(self.profile, pod, self._nodes.view()).result.node_names
        if names is None or len(names) != 1 or self._own_row(pod) >= 0:
            return None
        rows = self._rows_named(names)
        return rows if len(rows) else None

    def _prefiltered(self, pod: PodInfo, answers: _Answers) -> PreFilterAnswer:
        """The kind's answer, unless what concerns this very pod may change it."""
        if not self.remote.may_refuse(pod):
            return answers.prefilter
        return run_prefilters(self.profile, pod, self._nodes.view())

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
                answers.total, answers.raw = resized(answers.total, n), resized(answers.raw, n)
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
        rows: Rows,
    ) -> NDArray[np.intp]:
        """Those of the rows that fit with the highest weighted sum of normalised scores; normalisation
        looks at these rows only. Among them a plugin of full resolution decides."""
        fitting = answers.total[rows]
        totals = fitting if answers.sums else np.zeros_like(fitting)
        if not answers.sums:
            for raw, weighted in zip(answers.raw, answers.scores, strict=True):
                totals += weighted.plugin.normalize(raw[rows]) * weighted.weight
        for score in preferences:
            totals = totals + score.plugin.normalize(score.raw[rows]) * score.weight
        if remote.scores:
            totals = totals + remote.rank(rows, len(totals))
        ties = np.flatnonzero(totals == totals.max())
        if not isinstance(rows, slice):
            ties = rows[ties]
        for raw, weighted in zip(answers.raw, answers.scores, strict=True):
            if weighted.plugin.full_resolution:
                ties = ties[raw[ties] == raw[ties].max()]
        return ties

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

    def _overlay(self, pod: PodInfo, answers: _Answers, remote: RemoteAnswers) -> Overlay | None:
        if not self._nominations:
            return None
        everywhere = None if remote.filters is None else _statuses(remote.filters)
        return self._overlays.of(self._questions(pod, answers, remote), answers.nominated, everywhere)

    def _questions(self, pod: PodInfo, answers: _Answers, remote: RemoteAnswers) -> Questions:
        return Questions(
            pod,
            self._nodes,
            static=_statuses(answers.static),
            usage=answers.usage.filters,
            remote=remote.filters.filters if remote.filters is not None else (),
        )

    def _rejections(self, answers: _Answers, remote: RemoteAnswers, overlay: Overlay | None) -> Statuses:
        """Of all nodes; not to be written to."""
        stamp, kept = self._nodes.stamp, answers.rejections
        if kept is not None and kept[0] == stamp and kept[1] is remote and overlay is None:
            return kept[2]
        static, *others = _groups(answers, remote)
        statuses = _statuses(static).copy()
        for group in others:
            statuses.merge(_statuses(group))
        if overlay is not None:
            statuses.update(overlay.rows, overlay.statuses)
        else:
            answers.rejections = stamp, remote, statuses
        return statuses

    def _failure(
        self,
        pod: PodInfo,
        answers: _Answers,
        remote: RemoteAnswers,
        narrowed_by: frozenset[str],
        candidates: NDArray[np.intp] | None,
        overlay: Overlay | None,
        own: int,
    ) -> Placement:
        """Why not, kept until the table changes."""
        stamp, n = self._nodes.stamp, len(self._nodes)
        kept = answers.failures.get(remote)
        if kept is not None and kept[0] == stamp and overlay is None:
            return kept[1]
        rejected_by = set(narrowed_by)
        statuses = self._rejections(answers, remote, overlay)
        if own >= 0:  # tried first, and who rejected it there is named, too
            narrowed_by |= {self.profile.filters[statuses.first[own]].name}
        if candidates is not None:
            statuses = statuses.take(candidates)
        counts = self._count_reasons(pod, statuses)
        rejected_by.update(self.profile.filters[index].name for index in np.unique(statuses.first).tolist())
        if candidates is not None:
            plugins = " ".join(sorted(narrowed_by))
            counts[f"node(s) didn't satisfy plugin(s) [{plugins}]"] += n - len(candidates)
        placement = Placement(None, fit_error(n, counts), frozenset(rejected_by))
        if overlay is not None:
            return placement
        if kept is None and len(answers.failures) >= CONTEXTS_KEPT:
            answers.failures.clear()
        answers.failures[remote] = (stamp, placement)
        return placement

    def _count_reasons(self, pod: PodInfo, statuses: Statuses) -> Counter[str]:
        """How many of the nodes, none of which passes, have each reason."""
        counts: Counter[str] = Counter()
        for index in np.unique(statuses.first).tolist():
            bits = statuses.bits[statuses.first == index]
            for k, text in enumerate(self.profile.filters[index].reasons(pod)):
                counts[text] += int(np.count_nonzero(bits & np.uint64(1 << k)))
        return counts


def fit_error(n: int, counts: Counter[str]) -> str:
    """FitError.Error() (pkg/scheduler/framework/types.go) of n nodes."""
    texts = sorted(f"{count} {text}" for text, count in counts.items() if count)
    return f"0/{n} nodes are available: {', '.join(texts)}."


def _applying(filters: Iterable[tuple[int, FilterPlugin]], pod: PodInfo) -> FilterAnswers:
    return FilterAnswers((index, plugin) for index, plugin in filters if plugin.applies(pod))


def _groups(answers: _Answers, remote: RemoteAnswers) -> list[FilterAnswers]:
    groups = [answers.static, answers.usage]
    return groups if remote.filters is None else [*groups, remote.filters]


def _statuses(answers: FilterAnswers) -> Statuses:
    return Statuses(answers.first, answers.bits, answers.unresolvable)


def _rows_where(mask: Mask) -> Rows:
    """All rows as a slice, which copies nothing, when it is all of them."""
    rows = np.flatnonzero(mask)
    return slice(0, len(mask)) if len(rows) == len(mask) else rows


def _is_static(score: WeightedScore) -> bool:
    return score.plugin.row_local and not score.plugin.reads_usage
