"""What is known of one kind of pod, kept and brought up to date row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler.core.dry_run import DryRun
from scheduler.core.filter_answers import PASSES, FilterAnswers, resized
from scheduler.core.nodes import NodeTable, Rows, Stamp, narrow
from scheduler.core.overlay import Kept
from scheduler.core.placement import Placement
from scheduler.core.plugin import Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.prefilter import PreFilterAnswer
from scheduler.core.profile import WeightedScore
from scheduler.core.questions import Statuses
from scheduler.core.remote import Context, RemoteAnswers
from scheduler.core.row_memo import RowAnswer, RowMemo

INFEASIBLE = np.iinfo(np.int64).min
"""In `Answers.total`: the pod does not fit."""


class Answers:
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

    def refresh(self, pod: PodInfo, nodes: NodeTable) -> None:
        """Takes in what has happened to the table."""
        static, usage, n = self.static, self.usage, len(nodes)
        generation = nodes.generation
        if static.generation != generation:
            static.resize(n)
            rows = nodes.objects_changed_since(static.generation)
            if len(rows):
                part = narrow(rows, n)
                static.refresh(pod, part, nodes.view(part))
            static.generation = generation
        everything = nodes.view()
        versions = tuple([s.plugin.version(everything) for s in self.scores])
        if versions != self.versions:
            self.versions, usage.generation = versions, -1
            if self.memo is not None:
                self.memo.clear()
        if usage.generation != generation:
            usage.resize(n)
            if self.total.size != n:
                self.total, self.raw = resized(self.total, n), resized(self.raw, n)
            rows = nodes.changed_since(usage.generation)
            if len(rows) == 1 and self.memo is not None:
                self._refresh_row(pod, self.memo, nodes, int(rows[0]))
            elif len(rows):
                self._refresh_usage(pod, nodes, narrow(rows, n))
            usage.generation = generation

    def _refresh_row(self, pod: PodInfo, memo: RowMemo, nodes: NodeTable, row: int) -> None:
        """The usual case: the one row that the last placement has changed."""
        usage = self.usage
        key, known = memo.get(nodes, row)
        if known is None:
            total = int(self._refresh_usage(pod, nodes, slice(row, row + 1))[0])
            raw = self.raw[:, row].copy()
            memo.put(key, RowAnswer(usage.first[row], usage.bits[row], usage.unresolvable[row], raw, total))
            return
        usage.first[row], usage.bits[row], usage.unresolvable[row] = known[:3]
        self.raw[:, row] = known.raw
        fits = known.first == PASSES and self.static.first[row] == PASSES
        self.total[row] = known.total if fits else INFEASIBLE

    def _refresh_usage(self, pod: PodInfo, table: NodeTable, rows: Rows) -> Scores:
        """Redoes these rows; returns their weighted sums of raw scores, whether they fit or not."""
        nodes = table.view(rows)
        self.usage.refresh(pod, rows, nodes)
        total = np.zeros(nodes.count, np.int64)
        for i, weighted in enumerate(self.scores):
            raw = weighted.plugin.score(pod, nodes)
            self.raw[i, rows] = raw
            total += raw * weighted.weight
        feasible = (self.usage.first[rows] == PASSES) & (self.static.first[rows] == PASSES)
        self.total[rows] = np.where(feasible, total, INFEASIBLE)
        return total


def statuses_of(answers: FilterAnswers) -> Statuses:
    """Of all nodes, without copying."""
    return Statuses(answers.first, answers.bits, answers.unresolvable)
