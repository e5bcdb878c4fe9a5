"""InterPodAffinity's answers for one kind of pod, and how they follow pods that come and go.

A term changes its mind about a domain when the first pod that it means arrives there or the last one
leaves, and only the nodes of that domain are looked at again then. Scores change with every such pod, but
again for one domain at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from scheduler.core.following import FilterFollower, RankFollower, union
from scheduler.core.nodes import NodeView, Rows
from scheduler.core.plugin import MAX_NODE_SCORE, Ranking, Scores
from scheduler.core.pod_index import Query, Role
from scheduler.core.pod_info import PodInfo
from scheduler.core.tally import Tally
from scheduler.core.topology_rules import AffinityTerm
from scheduler.plugins.domains import Domains, DomainSums

REASONS = (
    "node(s) didn't match pod affinity rules",
    "node(s) didn't match pod anti-affinity rules",
    "node(s) didn't satisfy existing pods anti-affinity rules",
)
AFFINITY, _ANTI_AFFINITY, _EXISTING = (np.uint64(1 << k) for k in range(len(REASONS)))


class _Layer:
    """Terms that reject nodes for one reason: where a pod that they mean is near, or (`wanted`) is not."""

    def __init__(self, bit: np.uint64, terms: Iterable[DomainSums], n: int, *, wanted: bool = False) -> None:
        self.bit, self.terms, self._wanted = bit, list(terms), wanted
        self.objections: NDArray[np.int64] = np.zeros(n, np.int64)
        """int64[n]: terms that reject the node."""
        for sums in self.terms:
            self.objections += (sums.per_node > 0) != wanted

    def catch_up(self) -> list[NDArray[np.intp]] | None:
        """The rows of each domain about which a term has changed its mind."""
        changed = []
        for sums in self.terms:
            before = sums.catch_up()
            if before is None:
                return None
            for number, amount in before.items():
                near = sums.per_domain[number] > 0
                if near != (amount > 0):
                    rows = sums.domains.rows(number)
                    self.objections[rows] += 1 if near != self._wanted else -1
                    changed.append(rows)
        return changed


class AffinityFilter(FilterFollower):
    """The required terms of the pod, and the required anti-affinity of pods on nodes that mean it."""

    def __init__(self, pod: PodInfo, nodes: NodeView) -> None:
        n, rules, found = nodes.count, pod.rules, _FoundDomains(nodes)

        def sums(term: AffinityTerm, tally: Tally) -> DomainSums:
            return DomainSums(found[term.topology_key], tally)

        existing = [
            sums(carried.term, nodes.carrying(carried))
            for carried in nodes.concerning(pod)
            if carried.role is Role.ANTI_AFFINITY
        ]
        apart = [sums(term, nodes.matching(Query([term.who]))) for term in rules.anti_affinity]
        # What counts for affinity is a pod that *all* terms mean.
        wanted = Query([term.who for term in rules.affinity])
        near = [sums(term, nodes.matching(wanted)) for term in rules.affinity]
        self._near = _Layer(AFFINITY, near, n, wanted=True)
        # In this order, since the last reason is the one that counts.
        layers = (_Layer(_EXISTING, existing, n), _Layer(_ANTI_AFFINITY, apart, n), self._near)
        self._layers = [layer for layer in layers if layer.terms]
        self._may_be_first = bool(near) and _means_itself(pod, nodes)
        self._is_first = self._would_be_first()
        if self._is_first:
            self._near.objections = np.sum([~term.domains.labelled for term in near], axis=0, dtype=np.int64)
        self.bits = np.zeros(n, np.uint64)
        self.unresolvable = np.zeros(n, np.bool_)
        self._compose(slice(0, n))

    def catch_up(self) -> NDArray[np.intp] | None:
        changed = []
        for layer in self._layers:
            rows = layer.catch_up()
            if rows is None:
                return None
            changed += rows
        if changed and self._would_be_first() != self._is_first:
            return None
        every = union(changed)
        if len(every):
            self._compose(every)
        return every

    def _would_be_first(self) -> bool:
        """Whether the pod that all of its own terms mean would be the first such pod in any domain; it may
        go wherever the labels are."""
        return self._may_be_first and not any(term.per_domain.any() for term in self._near.terms)

    def _compose(self, rows: Rows) -> None:
        bits = np.zeros_like(self.bits[rows])
        for layer in self._layers:
            bits[layer.objections[rows] > 0] = layer.bit
        self.bits[rows], self.unresolvable[rows] = bits, bits == AFFINITY


class AffinityRank(RankFollower):
    """Raw: the sum of weights of all that is near."""

    def __init__(self, pod: PodInfo, nodes: NodeView, *, hard_weight: int) -> None:
        found = _FoundDomains(nodes)
        self._parts = [
            (
                DomainSums(found[preferred.term.topology_key], nodes.matching(Query([preferred.term.who]))),
                preferred.weight,
            )
            for preferred in pod.rules.preferred
        ]
        for carried in nodes.concerning(pod):
            if carried.role is not Role.ANTI_AFFINITY:
                sums = DomainSums(found[carried.term.topology_key], nodes.carrying(carried))
                self._parts.append((sums, 1 if carried.role is Role.PREFERRED else hard_weight))
        self._raw: Scores = np.zeros(nodes.count, np.int64)
        for sums, weight in self._parts:
            self._raw += sums.per_node * weight

    def catch_up(self) -> bool:
        for sums, weight in self._parts:
            before = sums.catch_up()
            if before is None:
                return False
            for number, amount in before.items():
                more = int(sums.per_domain[number]) - amount
                self._raw[sums.domains.rows(number)] += more * weight
        return True

    def rank(self, rows: Rows) -> Ranking:
        raw = self._raw[rows]
        return Ranking(raw, _stretched(raw))


class _FoundDomains(dict[str, Domains]):
    """Topology key → its domains."""

    def __init__(self, nodes: NodeView) -> None:
        super().__init__()
        self._nodes = nodes

    def __missing__(self, topology_key: str) -> Domains:
        domains = self[topology_key] = Domains(self._nodes, topology_key)
        return domains


def _means_itself(pod: PodInfo, nodes: NodeView) -> bool:
    labels = nodes.namespace_labels(pod.namespace)
    return pod.rules.selects_itself and all(
        term.who.matches(pod.namespace, pod.labels, labels) for term in pod.rules.affinity
    )


def _stretched(raw: Scores) -> Scores:
    """Lowest to highest over 0 … 100; all 0 when they are equal."""
    lowest, span = raw.min(), raw.max() - raw.min()
    if not span:
        return np.zeros_like(raw)
    # As the original computes it: in floating point, cut off.
    return np.asarray(MAX_NODE_SCORE * ((raw - lowest) / span), np.int64)
