"""Pods on nodes as rules about other pods see them: counts per node, kept up to date pod by pod.

Two questions are answered with one column over the node table's rows each. *Which pods match?* A
query (namespaces and labels) is counted once, when it is first asked, and from then on changes with
each pod that comes or goes. *Which rules of pods on nodes concern this pod?* Terms that placed pods
carry are kept once per distinct term, with the nodes that have them.

Pods are interned by what a rule can see of them, their signature; so a pod that comes costs a few
dictionary look-ups, however many queries there are. Counts live by node name first, since rows move;
a column is made from them when a decision asks for it, and the ones asked for last are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from scheduler.core.by_node import bump
from scheduler.core.pod_info import PodInfo, Signature
from scheduler.core.tally import Tally
from scheduler.core.topology_rules import AffinityTerm, Who

COLUMNS_KEPT = 512
"""Columns of queries and of carried terms, each; one takes 8 bytes a node."""
_NO_LABELS: Mapping[str, str] = {}


class Query:
    """Pods that all of `whos` mean; without those being deleted if `living`."""

    __slots__ = ("_hash", "living", "whos")

    def __init__(self, whos: Iterable[Who], *, living: bool = False) -> None:
        self.whos, self.living = tuple(whos), living
        self._hash = hash((self.whos, living))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and (self.whos, self.living) == (other.whos, other.living)


class Role(IntEnum):
    """What a term is to the pod that carries it."""

    ANTI_AFFINITY = 0
    AFFINITY = 1
    PREFERRED = 2


class Carried:
    """A term that pods on nodes carry."""

    def __init__(self, role: Role, term: AffinityTerm, serial: int) -> None:
        self.role, self.term, self.serial = role, term, serial
        self.carriers = 0
        self.by_node: dict[str, int] = {}
        """Node name → number of carriers, or sum of their weights for a preference."""


class _Signed:
    """All placed pods of one signature."""

    def __init__(self, signature: Signature) -> None:
        self.namespace, items, self.terminating = signature
        self.labels = dict(items)
        self.by_node: dict[str, int] = {}
        self.tallies: dict[Query, Tally] = {}
        """Those of the kept ones that count these pods."""


class _Held:
    """What things were like when the index was held, and the terms that have lost all carriers since."""

    def __init__(self, version: int, serial: int) -> None:
        self.version, self.serial = version, serial
        self.emptied: dict[Carried, None] = {}


class PodIndex:
    """`row_of` is the node table's own map from node names to rows; pods on other nodes don't count."""

    def __init__(self, row_of: Mapping[str, int], capacity: int, *, columns_kept: int = COLUMNS_KEPT) -> None:
        self._row_of, self._capacity, self._columns_kept = row_of, capacity, columns_kept
        self.version = 0
        """Bumped when other terms are carried than before, or namespaces' labels have changed."""
        self.namespaces_version = 0
        """Bumped in the latter case alone."""
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._signed: dict[str, dict[Signature, _Signed]] = {}
        self._queries: OrderedDict[Query, Tally] = OrderedDict()
        self._carried: dict[tuple[Role, AffinityTerm], Carried] = {}
        self._carried_by_namespace: dict[str, dict[Carried, None]] = {}
        """The terms that name the namespace; those with a namespace selector are under the empty name."""
        self._weights: OrderedDict[Carried, Tally] = OrderedDict()
        self._serial = 0
        self._concerning: dict[Signature, tuple[Carried, ...]] = {}
        self._concerning_version = 0
        self._held: _Held | None = None

    # ---- what the node table does

    def columns(self) -> Iterator[NDArray[np.int64]]:
        """All that is kept per row."""
        for tally in (*self._queries.values(), *self._weights.values()):
            yield tally.amounts

    def grow(self, capacity: int) -> None:
        """Rows up to `capacity` exist from now on; columns are made again when they are asked for."""
        self._capacity = capacity
        self._forget_queries(list(self._queries))
        for carried in list(self._weights):
            self._forget_weights(carried)

    def add(self, node: str, row: int, pod: PodInfo, sign: int = 1) -> None:
        """A pod is on the node of this row (`sign` -1: no longer)."""
        group = self._signed.setdefault(pod.namespace, {})
        signed = group.get(pod.signature)
        if signed is None:
            signed = group[pod.signature] = self._sign(pod.signature)
        for tally in signed.tallies.values():
            tally.add(row, sign)
        if not bump(signed.by_node, node, sign) and not signed.by_node:
            del group[pod.signature]
            if not group:
                del self._signed[pod.namespace]
        rules = pod.rules
        for term in rules.anti_affinity:
            self._carry(Role.ANTI_AFFINITY, term, 1, node, row, sign)
        for term in rules.affinity:
            self._carry(Role.AFFINITY, term, 1, node, row, sign)
        for weighted in rules.preferred:
            self._carry(Role.PREFERRED, weighted.term, weighted.weight, node, row, sign)

    def hold(self) -> None:
        """From now on things change only to be undone: what a term is known by outlasts its carriers."""
        if self._held is not None:
            raise RuntimeError("pods are being tried out already")
        self._held = _Held(self.version, self._serial)

    def release(self) -> None:
        """The end of that. If all has been undone, nobody can tell that anything was."""
        held, self._held = self._held, None
        if held is None:
            return
        gone = [carried for carried in held.emptied if not carried.carriers]
        for carried in gone:
            self._drop(carried)
        if self.version == held.version:
            return
        self._concerning.clear()
        new = sum(carried.serial > held.serial for carried in gone)
        if new == len(gone) == self._serial - held.serial:
            self.version, self._serial = held.version, held.serial

    # ---- namespaces

    @property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """Labels of each known namespace."""
        return self._namespaces

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """The namespace's labels, None when it is gone; returns whether that changes anything."""
        before = self.namespace_labels(name)
        if labels is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = labels
        if before == (labels or _NO_LABELS):
            return False
        self.version += 1
        self.namespaces_version += 1
        self._forget_queries(
            [q for q in self._queries if any(who.namespace_selector is not None for who in q.whos)]
        )
        return True

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Empty for a namespace that is not known (yet)."""
        return self._namespaces.get(name, _NO_LABELS)

    # ---- questions

    @property
    def carries_terms(self) -> bool:
        """Whether any pod on a node has affinity or anti-affinity."""
        return bool(self._carried)

    def counts(self, query: Query) -> Tally:
        """Matching pods on each node."""
        tally = self._queries.get(query)
        if tally is not None:
            self._queries.move_to_end(query)
            return tally
        if len(self._queries) >= self._columns_kept:
            self._forget_queries([next(iter(self._queries))])
        tally = self._queries[query] = Tally(self._capacity)
        for signed in self._candidates(query):
            if self._matches(query, signed):
                signed.tallies[query] = tally
                self._count(signed.by_node, tally)
        return tally

    def weights(self, carried: Carried) -> Tally:
        """Carriers of the term on each node, or the sum of their weights."""
        tally = self._weights.get(carried)
        if tally is not None:
            self._weights.move_to_end(carried)
            return tally
        if len(self._weights) >= self._columns_kept:
            self._forget_weights(next(iter(self._weights)))
        tally = self._weights[carried] = Tally(self._capacity)
        self._count(carried.by_node, tally)
        return tally

    def concerning(self, pod: PodInfo) -> tuple[Carried, ...]:
        """The terms of pods on nodes that mean this pod, in the order of their first appearance."""
        if not self._carried:
            return ()
        if self._concerning_version != self.version or len(self._concerning) > self._columns_kept:
            self._concerning.clear()
            self._concerning_version = self.version
        found = self._concerning.get(pod.signature)
        if found is None:
            named = self._carried_by_namespace.get(pod.namespace, {})
            selected = self._carried_by_namespace.get("", {})
            labels, of_namespace = pod.labels, self.namespace_labels(pod.namespace)
            matching = {
                carried
                for carried in (*named, *selected)
                if carried.term.who.matches(pod.namespace, labels, of_namespace)
            }
            found = tuple(sorted(matching, key=lambda carried: carried.serial))
            self._concerning[pod.signature] = found
        return found

    # ---- internals

    def _sign(self, signature: Signature) -> _Signed:
        signed = _Signed(signature)
        for query, tally in self._queries.items():
            if self._matches(query, signed):
                signed.tallies[query] = tally
        return signed

    def _matches(self, query: Query, signed: _Signed) -> bool:
        if query.living and signed.terminating:
            return False
        of_namespace = self.namespace_labels(signed.namespace)
        return all(who.matches(signed.namespace, signed.labels, of_namespace) for who in query.whos)

    def _candidates(self, query: Query) -> Iterator[_Signed]:
        """Signatures in the query's namespaces, as far as these are given by name."""
        named = next((who.namespaces for who in query.whos if who.namespace_selector is None), None)
        for namespace in self._signed if named is None else named:
            yield from self._signed.get(namespace, {}).values()

    def _count(self, by_node: Mapping[str, int], tally: Tally) -> None:
        for node, amount in by_node.items():
            tally.amounts[self._row_of[node]] += amount

    def _forget_queries(self, queries: Iterable[Query]) -> None:
        for query in queries:
            for signed in self._candidates(query):
                signed.tallies.pop(query, None)
            self._queries.pop(query).alive = False

    def _forget_weights(self, carried: Carried) -> None:
        tally = self._weights.pop(carried, None)
        if tally is not None:
            tally.alive = False

    def _carry(self, role: Role, term: AffinityTerm, weight: int, node: str, row: int, sign: int) -> None:
        carried = self._carried.get((role, term))
        if carried is None:
            self._serial += 1
            carried = self._carried[role, term] = Carried(role, term, self._serial)
            for namespace in _filed_under(term):
                self._carried_by_namespace.setdefault(namespace, {})[carried] = None
            self.version += 1
        carried.carriers += sign
        bump(carried.by_node, node, sign * weight)
        tally = self._weights.get(carried)
        if tally is not None:
            tally.add(row, sign * weight)
        if not carried.carriers:
            if self._held is None:
                self._drop(carried)
            else:
                self._held.emptied[carried] = None

    def _drop(self, carried: Carried) -> None:
        del self._carried[carried.role, carried.term]
        self._forget_weights(carried)
        for namespace in _filed_under(carried.term):
            del self._carried_by_namespace[namespace][carried]
            if not self._carried_by_namespace[namespace]:
                del self._carried_by_namespace[namespace]
        self.version += 1


def _filed_under(term: AffinityTerm) -> tuple[str, ...]:
    who = term.who
    return who.namespaces if who.namespace_selector is None else (*who.namespaces, "")
