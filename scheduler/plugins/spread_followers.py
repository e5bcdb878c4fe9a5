"""PodTopologySpread's answers for one kind of pod, and how they follow pods that come and go.

A pod that comes changes the sum of one domain. Other domains' nodes are looked at again only when the
lowest sum, which all are measured against, has changed as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.core.following import FilterFollower, RankFollower, union
from scheduler.core.nodes import NodeView, Rows
from scheduler.core.plugin import MAX_NODE_SCORE, FilterPlugin, Mask, Ranking, Scores
from scheduler.core.pod_index import Query
from scheduler.core.pod_info import PodInfo
from scheduler.core.tally import Tally
from scheduler.core.topology_rules import SpreadConstraint, Who
from scheduler.plugins.domains import HOSTNAME, Domains, DomainSums
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.taint_toleration import TaintToleration

REASON = "node(s) didn't match pod topology spread constraints"
REASONS = (REASON, f"{REASON} (missing required label)")
SKEWED, _UNLABELLED = np.uint64(1), np.uint64(2)
_AFFINITY, _TAINTS = NodeAffinity(), TaintToleration()


class SpreadFilter(FilterFollower):
    """Hard constraints; the first one that a node breaks is the one that counts."""

    def __init__(self, pod: PodInfo, nodes: NodeView, constraints: Sequence[SpreadConstraint]) -> None:
        domains = [Domains(nodes, constraint.topology_key) for constraint in constraints]
        included = _Included(pod, nodes, _in_all(domains))
        self._bounds = [
            _Bound(constraint, of, _matching(constraint, pod, nodes), included.by(constraint))
            for constraint, of in zip(constraints, domains, strict=True)
        ]
        self.bits = np.zeros(nodes.count, np.uint64)
        self.unresolvable = np.zeros(nodes.count, np.bool_)
        self._compose(slice(0, nodes.count))

    def catch_up(self) -> NDArray[np.intp] | None:
        changed = []
        for bound in self._bounds:
            rows = bound.catch_up()
            if rows is None:
                return None
            if len(rows):
                changed.append(rows)
        every = union(changed)
        if len(every):
            self._compose(every)
        return every

    def _compose(self, rows: Rows) -> None:
        bits = self._bounds[0].broken[rows]
        for bound in self._bounds[1:]:
            bits = np.where(bits == 0, bound.broken[rows], bits)
        self.bits[rows], self.unresolvable[rows] = bits, bits == _UNLABELLED


class _Bound:
    """One hard constraint."""

    def __init__(self, constraint: SpreadConstraint, domains: Domains, tally: Tally, counted: Mask) -> None:
        self._constraint = constraint
        self._sums = DomainSums(domains, tally, counted)
        self._existing = np.flatnonzero(np.bincount(domains.ids[counted]))
        """Numbers of the domains that have a node that counts."""
        self._enough = len(self._existing) >= constraint.min_domains
        self._fewest = self._find_fewest()
        self.broken = self._judge_all()
        """uint64[n]: why the node won't do, 0 if it will."""

    def catch_up(self) -> NDArray[np.intp] | None:
        """The rows that are judged otherwise than before."""
        sums, fewest = self._sums, self._fewest
        before = sums.catch_up()
        if before is None:
            return None
        if any(amount == fewest or sums.per_domain[number] < fewest for number, amount in before.items()):
            self._fewest = self._find_fewest()
        if self._fewest != fewest:
            old, self.broken = self.broken, self._judge_all()
            return np.flatnonzero(self.broken != old)
        changed = []
        for number, amount in before.items():
            skewed = self._is_skewed(int(sums.per_domain[number]))
            if skewed != self._is_skewed(amount):
                rows = sums.domains.rows(number)
                self.broken[rows] = SKEWED if skewed else 0
                changed.append(rows)
        return union(changed)

    def _is_skewed(self, amount: int) -> bool:
        skew = amount + self._constraint.self_matches - self._fewest
        return skew > self._constraint.max_skew

    def _find_fewest(self) -> int:
        if not self._enough or not len(self._existing):
            return 0
        return int(self._sums.per_domain[self._existing].min())

    def _judge_all(self) -> NDArray[np.uint64]:
        skew = self._sums.per_domain + (int(self._constraint.self_matches) - self._fewest)
        judged = np.where(skew > self._constraint.max_skew, SKEWED, np.uint64(0))
        judged[0] = _UNLABELLED
        return judged[self._sums.domains.ids]


class SpreadRank(RankFollower):
    """Soft constraints. Raw: matching pods in the node's domains, each domain weighted by how many there
    are of its sort; 0 for nodes that lack one of the labels, which are normalised to 0 too.

    `lenient`, as under the system's defaults: a label that a node lacks counts for nothing, and the others
    count.
    """

    def __init__(
        self, pod: PodInfo, nodes: NodeView, constraints: Sequence[SpreadConstraint], *, lenient: bool
    ) -> None:
        domains = [Domains(nodes, c.topology_key, with_unlabelled=lenient) for c in constraints]
        self._ranked = np.ones(nodes.count, np.bool_) if lenient else _in_all(domains)
        self._all_ranked, self._lenient = bool(self._ranked.all()), lenient
        included = _Included(pod, nodes, self._ranked)
        self._sorts = [
            (_Hosts if constraint.topology_key == HOSTNAME else _Sort)(
                constraint, of, _matching(constraint, pod, nodes), included.by(constraint)
            )
            for constraint, of in zip(constraints, domains, strict=True)
        ]
        self._rows: Rows | None = None
        """The feasible rows of last time; from them follow the weights."""
        self._weights: list[float] = []
        self._raw: Scores = np.zeros(nodes.count, np.int64)
        self._stale: list[Rows] = []
        """Parts of `_raw` that are out of date."""

    def catch_up(self) -> bool:
        for sort in self._sorts:
            rows = sort.catch_up()
            if rows is None:
                return False
            self._stale += rows
        return True

    def rank(self, rows: Rows) -> Ranking:
        ranked = self._ranked[rows]
        if not _same(rows, self._rows):
            self._weigh(np.arange(len(self._raw))[rows][ranked])
            self._rows = rows
        for part in self._stale:
            self._raw[part] = self._score(part)
        self._stale.clear()
        raw = self._raw[rows]
        if ranked.all():
            return Ranking(raw, _inverted(raw))
        normalized = np.zeros_like(raw)
        if ranked.any():
            normalized[ranked] = _inverted(raw[ranked])
        return Ranking(raw, normalized)

    def _weigh(self, candidates: NDArray[np.intp]) -> None:
        weights = [math.log(sort.size(candidates) + 2) for sort in self._sorts]
        if weights != self._weights:
            self._weights, self._stale = weights, [slice(0, len(self._raw))]

    def _score(self, rows: Rows) -> Scores:
        score = np.zeros_like(self._raw[rows], np.float64)
        for sort, weight in zip(self._sorts, self._weights, strict=True):
            weighed = sort.amounts[rows] * weight + (sort.constraint.max_skew - 1)
            if self._lenient and not sort.everywhere:
                weighed = np.where(sort.domains.labelled[rows], weighed, 0)
            score += weighed
        return _rounded(score) if self._all_ranked else np.where(self._ranked[rows], _rounded(score), 0)


class _Sort:
    """One soft constraint: the domains of one topology."""

    def __init__(self, constraint: SpreadConstraint, domains: Domains, tally: Tally, counted: Mask) -> None:
        self.constraint, self.domains = constraint, domains
        self.everywhere = bool(domains.labelled.all())
        self._sums = DomainSums(domains, tally, counted)
        self.amounts = self._sums.per_node
        """int64[n]: matching pods in the node's domain."""

    def size(self, candidates: NDArray[np.intp]) -> int:
        """How many domains these nodes are in."""
        return int(np.count_nonzero(np.bincount(self.domains.ids[candidates])))

    def catch_up(self) -> list[NDArray[np.intp]] | None:
        """The rows whose amounts have changed."""
        before = self._sums.catch_up()
        if before is None:
            return None
        changed = []
        for number in before:
            rows = self.domains.rows(number)
            self.amounts[rows] = self._sums.per_domain[number]
            changed.append(rows)
        return changed


class _Hosts(_Sort):
    """Each node is taken for its own domain, whatever its label says, and whether it counts or not."""

    def __init__(self, constraint: SpreadConstraint, domains: Domains, tally: Tally, _: Mask) -> None:
        self.constraint, self.domains = constraint, domains
        self.everywhere = bool(domains.labelled.all())
        self._tally, self._seen = tally, tally.version
        self.amounts = tally.amounts[: len(domains.ids)].copy()

    def size(self, candidates: NDArray[np.intp]) -> int:
        return len(candidates)

    def catch_up(self) -> list[NDArray[np.intp]] | None:
        changes = self._tally.since(self._seen)
        if changes is None:
            return None
        self._seen = self._tally.version
        rows = np.array([row for row, _ in changes], np.intp)
        self.amounts[rows] = self._tally.amounts[rows]
        return [rows]


class _Included:
    """Which nodes a constraint counts, by its node inclusion policies."""

    def __init__(self, pod: PodInfo, nodes: NodeView, labelled: Mask) -> None:
        self._pod, self._nodes, self._labelled = pod, nodes, labelled
        self._allowed: dict[str, Mask] = {}

    def by(self, constraint: SpreadConstraint) -> Mask:
        """bool[n]."""
        mask = self._labelled
        if constraint.honors_affinity:
            mask = mask & self._passes(_AFFINITY)
        if constraint.honors_taints:
            mask = mask & self._passes(_TAINTS)
        return mask

    def _passes(self, plugin: FilterPlugin) -> Mask | bool:
        if not plugin.applies(self._pod):
            return True
        if plugin.name not in self._allowed:
            self._allowed[plugin.name] = plugin.filter(self._pod, self._nodes).reason_bits == 0
        return self._allowed[plugin.name]


def _in_all(domains: Sequence[Domains]) -> Mask:
    """bool[n]: nodes that have the labels of all constraints; others count for none."""
    labelled = domains[0].labelled
    for of in domains[1:]:
        labelled = labelled & of.labelled
    return labelled


def _matching(constraint: SpreadConstraint, pod: PodInfo, nodes: NodeView) -> Tally:
    """Pods that the constraint counts; an empty selector counts none."""
    if not constraint.selector:
        return Tally(nodes.count)
    who = Who((pod.namespace,), None, constraint.selector)
    return nodes.matching(Query([who], living=True))


def _same(rows: Rows, others: Rows | None) -> bool:
    if isinstance(rows, slice) or isinstance(others, slice) or others is None:
        return rows is others or (isinstance(rows, slice) and isinstance(others, slice) and rows == others)
    return np.array_equal(rows, others)


def _rounded(score: NDArray[np.float64]) -> Scores:
    """Go's math.Round, halves away from zero, of scores: none lies between 0 and ½, where adding ½ may
    round up what lies just below it (a single pod counts at least ln 2)."""
    return (score + 0.5).astype(np.int64)


def _inverted(raw: Scores) -> Scores:
    """Few is good: 100 for the best."""
    lowest, highest = int(raw.min()), int(raw.max())
    if highest == 0:
        return np.full_like(raw, MAX_NODE_SCORE)
    if highest - lowest < len(raw):  # one division for each value there may be, not for each node
        values = np.arange(highest, lowest - 1, -1)
        return np.asarray((MAX_NODE_SCORE * values // highest)[raw - lowest], np.int64)
    return np.asarray(MAX_NODE_SCORE * (highest + lowest - raw) // highest, np.int64)
