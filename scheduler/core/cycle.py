"""The scheduling cycle of one profile: filter, score, pick, for one pod against all nodes.

All nodes are looked at, always; what makes that cheap is that almost nothing is computed twice.
Pods of one kind (equal in every field the profile's plugins read) share one `Answers`: filter
results and scores of all nodes, patched on the rows that changed since they were last used. A
placement changes one row, so the work per decision follows what changed, not nodes x plugins.
Filters that do not read usage share their answers in turn, even between pods of different sizes;
for scores that do not, see `scheduler.core.preferences`, and for plugins that look at other nodes
`scheduler.core.remote`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.core.answers import INFEASIBLE, Answers, statuses_of
from scheduler.core.attempt import Attempt
from scheduler.core.budgets import Budgets
from scheduler.core.dry_run import DryRun
from scheduler.core.filter_answers import PASSES, FilterAnswers
from scheduler.core.nodes import MEMORY, NodeTable, Rows
from scheduler.core.nominations import Nominations
from scheduler.core.overlay import Overlay, Overlays
from scheduler.core.placed_pods import PlacedPods
from scheduler.core.placement import NO_CHOICES, Choices, Offer, Placement, Within
from scheduler.core.plugin import FilterPlugin, Mask, Plugin, PreFilterResult, Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.preferences import Preferences, StaticScore
from scheduler.core.prefilter import PreFilterAnswer, run_prefilters
from scheduler.core.profile import Key, Profile, WeightedScore, key_reader
from scheduler.core.questions import Questions, Statuses
from scheduler.core.recent import Recent
from scheduler.core.remote import CONTEXTS_KEPT, RemoteAnswers, RemotePlugins
from scheduler.core.volumes.plan import VolumePlan

__all__ = ["Cycle", "Placement", "fit_error"]

NO_NODES = "no nodes available to schedule pods"
"""ErrNoNodesAvailable (pkg/scheduler/schedule_one.go)."""

CACHED_KINDS = 256
"""Kinds of pods whose answers are kept; each takes some 26 bytes a node."""
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


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
        self._kinds: Recent[Key, Answers] = Recent(cached_kinds)

    def place(self, pod: PodInfo, key: Key | None = None, *, within: Within | None = None) -> Placement:
        """The best node for the pod as things stand; nothing is changed by asking."""
        n = len(self._nodes)
        if n == 0:
            return Placement(None, NO_NODES)
        key = self.read_key(pod) if key is None else key
        if self._kinds.get(key) is None:
            only = self._only_node(pod)
            if only is not None and within is not None:
                only = only[within.mask[only]]
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
            totals = np.where(remote.filters.first == PASSES, totals, INFEASIBLE)
        if within is not None:
            totals = np.where(within.mask, totals, INFEASIBLE)
        overlay, own = self._overlay(pod, answers, remote), -1
        if overlay is not None:
            totals = totals.copy()
            totals[overlay.rows] = INFEASIBLE
            own = self._own_row(pod)
            if own >= 0 and within is not None and not within.mask[own]:
                own = -1
            if own >= 0 and totals[own] != INFEASIBLE:
                return Placement(self._nodes.names[own])
        candidates = self._considered(prefilter, own)
        if candidates is not None:
            totals = totals[candidates]
        best = totals.max(initial=INFEASIBLE)
        if best == INFEASIBLE:
            narrowed_by = prefiltered.rejected_by
            return self._failure(pod, answers, remote, narrowed_by, candidates, overlay, own, within)
        preferences = self._preferences.of(pod, key)
        if preferences or remote.scores or not (answers.alone or answers.sums):
            rows = _rows_where(totals != INFEASIBLE)
            if candidates is not None:
                rows = candidates[rows]
            totals = self._normalized_totals(answers, preferences, remote, rows)
            ties = self._best_of_mixed(answers, totals, rows)
        else:
            ties = np.flatnonzero(totals == best)
            if candidates is not None:
                ties = candidates[ties]
        row = int(ties[0]) if len(ties) == 1 else self._break_tie(pod, ties)
        return Placement(self._nodes.names[row])

    def choices(self, pod: PodInfo, key: Key, within: Within | None = None) -> Choices:
        """All that `place` could choose from, in the order of its preference."""
        if not len(self._nodes):
            return NO_CHOICES
        answers = self._answers(pod, key)
        prefilter = self._prefiltered(pod, answers).result
        if prefilter.rejection is not None:
            return NO_CHOICES
        remote = self.remote.answers(pod, answers.remote)
        statuses = self._rejections(answers, remote, self._overlay(pod, answers, remote))
        own = self._own_row(pod)
        allowed = answers.total != INFEASIBLE
        if within is not None:
            allowed &= within.mask
        considered = self._considered(prefilter, own)
        if considered is not None:
            allowed &= np.isin(np.arange(len(self._nodes)), considered)
        curable = np.flatnonzero(allowed & self._curable(statuses))
        rows = np.flatnonzero(allowed & statuses.passing)
        if not len(rows):
            return Choices(rows, curable)
        totals = self._normalized_totals(answers, self._preferences.of(pod, key), remote, rows)
        finer = [-answers.raw[i, rows] for i in _of_full_resolution(answers)]
        nodes = self._nodes
        free = nodes.allocatable[MEMORY].take(rows) - nodes.requested[MEMORY].take(rows)
        mixed = (nodes.name_hash.take(rows) ^ np.uint64(pod.uid_hash)) * _HASH_FACTOR
        order = np.lexsort((~mixed, free, *reversed(finer), -totals, rows != own))
        return Choices(rows[order], curable)

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

    def offer(self, pod: PodInfo, key: Key) -> Offer:
        """What `place` would choose from, for who chooses elsewhere; arrays are not to be written to."""
        answers = self._answers(pod, key)
        prefiltered = self._prefiltered(pod, answers)
        remote = self.remote.answers(pod, answers.remote)
        statuses = self._rejections(answers, remote, self._overlay(pod, answers, remote))
        only = self._considered(prefiltered.result, self._own_row(pod))
        return Offer(statuses, prefiltered.result.rejection, only, prefiltered.rejected_by)

    def rate(self, pod: PodInfo, key: Key, rows: NDArray[np.intp]) -> tuple[Scores, Mask]:
        """(int64[rows], bool[rows]): what each of these nodes, all of which pass (at least one), is worth to
        the pod beside the others, more being better; and which of them are the best."""
        answers = self._answers(pod, key)
        remote = self.remote.answers(pod, answers.remote)
        preferences = self._preferences.of(pod, key)
        if not (preferences or remote.scores) and (answers.alone or answers.sums):
            totals = answers.total[rows]
            return totals, np.asarray(totals == totals.max(), np.bool_)
        totals = self._normalized_totals(answers, preferences, remote, rows)
        return totals, np.isin(rows, self._best_of_mixed(answers, totals, rows))

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

    def _prefiltered(self, pod: PodInfo, answers: Answers) -> PreFilterAnswer:
        """The kind's answer, unless what concerns this very pod may change it."""
        if not self.remote.may_refuse(pod):
            return answers.prefilter
        return run_prefilters(self.profile, pod, self._nodes.view())

    def _rows_named(self, names: Iterable[str]) -> NDArray[np.intp]:
        """Rows of those of the nodes that exist."""
        row_of = self._nodes.row_of
        return np.array(sorted(row_of[name] for name in names if name in row_of), np.intp)

    def _answers(self, pod: PodInfo, key: Key) -> Answers:
        """The pod's kind, brought up to date with the table."""
        nodes = self._nodes
        answers = self._kinds.get(key)
        if answers is None:
            static_key = self._read_static_key(pod)
            static = self._static.get(static_key)
            if static is None:
                static = self._static.put(static_key, _applying(self._static_filters, pod))
            usage = _applying(self._usage_filters, pod)
            scores = [s for s in self._usage_scores if s.plugin.rates(pod)]
            answers = Answers(static, usage, scores, run_prefilters(self.profile, pod))
            self._kinds.put(key, answers)
        answers.refresh(pod, nodes)
        return answers

    def _best_of_mixed(self, answers: Answers, totals: Scores, rows: Rows) -> NDArray[np.intp]:
        """Those of the rows that fit with the highest weighted sum of normalised scores. Among them a
        plugin of full resolution decides."""
        ties = np.flatnonzero(totals == totals.max())
        if not isinstance(rows, slice):
            ties = rows[ties]
        for i in _of_full_resolution(answers):
            raw = answers.raw[i]
            ties = ties[raw[ties] == raw[ties].max()]
        return ties

    def _normalized_totals(
        self,
        answers: Answers,
        preferences: Sequence[StaticScore],
        remote: RemoteAnswers,
        rows: Rows,
    ) -> Scores:
        """Weighted sums of normalised scores of rows that fit; normalisation looks at these rows only."""
        fitting = answers.total[rows]
        totals = fitting if answers.sums else np.zeros_like(fitting)
        if not answers.sums:
            for raw, weighted in zip(answers.raw, answers.scores, strict=True):
                totals += weighted.plugin.normalize(raw[rows]) * weighted.weight
        for score in preferences:
            totals = totals + score.plugin.normalize(score.raw[rows]) * score.weight
        if remote.scores:
            totals = totals + remote.rank(rows, len(totals))
        return totals

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

    def _overlay(self, pod: PodInfo, answers: Answers, remote: RemoteAnswers) -> Overlay | None:
        if not self._nominations:
            return None
        everywhere = None if remote.filters is None else statuses_of(remote.filters)
        return self._overlays.of(self._questions(pod, answers, remote), answers.nominated, everywhere)

    def _questions(self, pod: PodInfo, answers: Answers, remote: RemoteAnswers) -> Questions:
        return Questions(
            pod,
            self._nodes,
            static=statuses_of(answers.static),
            usage=answers.usage.filters,
            remote=remote.filters.filters if remote.filters is not None else (),
        )

    def _rejections(self, answers: Answers, remote: RemoteAnswers, overlay: Overlay | None) -> Statuses:
        """Of all nodes; not to be written to."""
        stamp, kept = self._nodes.stamp, answers.rejections
        if kept is not None and kept[0] == stamp and kept[1] is remote and overlay is None:
            return kept[2]
        static, *others = _groups(answers, remote)
        statuses = statuses_of(static).copy()
        for group in others:
            statuses.merge(statuses_of(group))
        if overlay is not None:
            statuses.update(overlay.rows, overlay.statuses)
        else:
            answers.rejections = stamp, remote, statuses
        return statuses

    def _failure(
        self,
        pod: PodInfo,
        answers: Answers,
        remote: RemoteAnswers,
        narrowed_by: frozenset[str],
        candidates: NDArray[np.intp] | None,
        overlay: Overlay | None,
        own: int,
        within: Within | None,
    ) -> Placement:
        """Why not, kept until the table changes."""
        stamp, n = self._nodes.stamp, len(self._nodes)
        kept = answers.failures.get(remote)
        if kept is not None and kept[0] == stamp and overlay is None and within is None:
            return kept[1]
        rejected_by = set(narrowed_by)
        statuses = self._rejections(answers, remote, overlay)
        if own >= 0:  # tried first, and who rejected it there is named, too
            narrowed_by |= {self.profile.filters[statuses.first[own]].name}
        considered = candidates
        if within is not None:
            inside = within.mask
            considered = np.flatnonzero(inside) if candidates is None else candidates[inside[candidates]]
        if considered is not None:
            statuses = statuses.take(considered)
        counts = self._count_reasons(pod, statuses)
        rejected_by.update(self.profile.filters[index].name for index in np.unique(statuses.first).tolist())
        if within is not None:
            counts[within.others] += (n if candidates is None else len(candidates)) - len(statuses.first)
            # Nobody has been asked about the others: once they are in question, any plugin may matter.
            rejected_by.update(plugin.name for plugin in self.profile.filters)
        if candidates is not None:
            plugins = " ".join(sorted(narrowed_by))
            counts[f"node(s) didn't satisfy plugin(s) [{plugins}]"] += n - len(candidates)
        placement = Placement(None, fit_error(n, counts), frozenset(rejected_by))
        if overlay is not None or within is not None:
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

    def _curable(self, statuses: Statuses) -> Mask:
        """bool[n]: where what rejects the pod first may be cured by pods placed elsewhere."""
        found = np.zeros(len(statuses.first), np.bool_)
        for index, plugin in enumerate(self.profile.filters):
            if plugin.cured_by_pods:
                lasting = ~np.uint64(plugin.cured_by_pods)
                found |= (statuses.first == index) & (statuses.bits & lasting == 0)
        return found


def fit_error(n: int, counts: Counter[str]) -> str:
    """FitError.Error() (pkg/scheduler/framework/types.go) of n nodes."""
    texts = sorted(f"{count} {text}" for text, count in counts.items() if count)
    return f"0/{n} nodes are available: {', '.join(texts)}."


def _applying(filters: Iterable[tuple[int, FilterPlugin]], pod: PodInfo) -> FilterAnswers:
    return FilterAnswers((index, plugin) for index, plugin in filters if plugin.applies(pod))


def _groups(answers: Answers, remote: RemoteAnswers) -> list[FilterAnswers]:
    groups = [answers.static, answers.usage]
    return groups if remote.filters is None else [*groups, remote.filters]


def _of_full_resolution(answers: Answers) -> list[int]:
    """Places of scores that decide between nodes with equal sums, in turn."""
    return [i for i, weighted in enumerate(answers.scores) if weighted.plugin.full_resolution]


def _rows_where(mask: Mask) -> Rows:
    """All rows as a slice, which copies nothing, when it is all of them."""
    rows = np.flatnonzero(mask)
    return slice(0, len(mask)) if len(rows) == len(mask) else rows


def _is_static(score: WeightedScore) -> bool:
    return score.plugin.row_local and not score.plugin.reads_usage
