"""NodeAffinity: nodeSelector, required node affinity as a filter, preferred node affinity as a score.

Sources: pkg/scheduler/framework/plugins/nodeaffinity; component-helpers
scheduling/corev1/nodeaffinity; apimachinery labels.Requirement. A term that cannot be parsed
matches nothing, required terms are ORed, and an empty term matches nothing. The argument
`addedAffinity` holds for all pods of the profile, beside what they ask for themselves; its terms have
met no API server, so they are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial, reduce
from operator import eq
from typing import Any

import msgspec
import numpy as np

from scheduler.api import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm
from scheduler.core.labels import lookup
from scheduler.core.node_selector import (
    NAME_FIELD,
    is_valid_expression,
    is_valid_field,
    selects,
    term_matches,
)
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import (
    ALL_NODES,
    FilterPlugin,
    FilterResult,
    PreFilterResult,
    ScorePlugin,
    Scores,
    Wake,
    scaled_to_highest,
)
from scheduler.core.pod_info import PodInfo
from scheduler.plugins.arguments import Arguments, read_arguments, require

REASON = "node(s) didn't match Pod's node affinity/selector"
REASON_ENFORCED = "node(s) didn't match scheduler-enforced node affinity"
REASON_CONFLICT = "pod affinity terms conflict"


def _names_of(term: NodeSelectorTerm) -> frozenset[str] | None:
    """Node names that a term is limited to, None for no limit."""
    sets = [
        frozenset(r.values or ())
        for r in term.match_fields or ()
        if r.key == NAME_FIELD and r.operator == "In"
    ]
    return reduce(frozenset.intersection, sets) if sets else None


class _Requirement(Arguments, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class _Term(Arguments, frozen=True):
    match_expressions: tuple[_Requirement, ...] = ()
    match_fields: tuple[_Requirement, ...] = ()


class _Selector(Arguments, frozen=True):
    node_selector_terms: tuple[_Term, ...]


class _PreferredTerm(Arguments, frozen=True):
    weight: int
    preference: _Term


class _Affinity(Arguments, frozen=True):
    required: _Selector | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )
    preferred: tuple[_PreferredTerm, ...] = msgspec.field(
        name="preferredDuringSchedulingIgnoredDuringExecution", default=()
    )

    def terms(self) -> Iterator[tuple[str, _Term]]:
        """Every term that can match anything, and where it stands."""
        for i, term in enumerate(self.required.node_selector_terms if self.required is not None else ()):
            yield f"addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{i}]", term
        for i, weighted in enumerate(self.preferred):
            where = f"addedAffinity.preferredDuringSchedulingIgnoredDuringExecution[{i}].preference"
            if weighted.weight:
                yield where, weighted.preference


class NodeAffinityArgs(Arguments, frozen=True):
    """Source: NodeAffinityArgs (staging k8s.io/kube-scheduler/config/v1/types_pluginargs.go)."""

    added_affinity: _Affinity | None = None


class NodeAffinity(FilterPlugin, ScorePlugin):
    """Argument `addedAffinity`: node affinity that all pods of the profile get in addition."""

    name = "NodeAffinity"
    reads = ("node_selector", "required_node_affinity", "preferred_node_affinity")
    normalized = False
    wakes_on = Wake.NODE_ADD | Wake.NODE_LABELS

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for unknown fields and for terms that could never be valid."""
        super().__init__()
        added = read_arguments(args, NodeAffinityArgs).added_affinity or _Affinity()
        for where, term in added.terms():
            _check(term, where)
        self._enforced = msgspec.convert(msgspec.to_builtins(added.required), NodeSelector | None)
        self._preferred = msgspec.convert(msgspec.to_builtins(added.preferred), list[PreferredSchedulingTerm])

    def applies(self, pod: PodInfo) -> bool:
        return self._enforced is not None or bool(pod.node_selector) or pod.required_node_affinity is not None

    def prefilter(self, pod: PodInfo) -> PreFilterResult:
        required = pod.required_node_affinity
        terms = required.node_selector_terms or [] if required is not None else []
        if not terms:
            return ALL_NODES
        names: frozenset[str] = frozenset()
        for term in terms:
            limit = _names_of(term)
            if limit is None:
                return ALL_NODES
            names |= limit
        return PreFilterResult(node_names=names) if names else PreFilterResult(rejection=REASON_CONFLICT)

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return (REASON, REASON_ENFORCED)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        mask = np.ones(nodes.count, np.bool_)
        for key, wanted in pod.node_selector.items():
            mask &= lookup(*nodes.label(key), partial(eq, wanted))
        required: NodeSelector | None = pod.required_node_affinity
        if required is not None:
            mask &= selects(required, nodes)
        bits = (~mask).astype(np.uint64)
        if self._enforced is not None:
            bits[~selects(self._enforced, nodes)] = 2
        return FilterResult(bits, np.ones(nodes.count, np.bool_))

    def rates(self, pod: PodInfo) -> bool:
        return bool(self._preferred or pod.preferred_node_affinity)

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        """The sum of the weights of the preferred terms that match."""
        total = np.zeros(nodes.count, np.int64)
        for term in (*self._preferred, *pod.preferred_node_affinity):
            total += term.weight * term_matches(term.preference, nodes)
        return total

    def normalize(self, raw: Scores) -> Scores:
        return scaled_to_highest(raw)


_NAME_PART = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_PREFIX = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")


def is_label_key(key: str) -> bool:
    """Whether the API server takes it for a label's key (content.IsQualifiedName)."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix)):
        return False
    return bool(_NAME_PART.fullmatch(name))


def _check(term: _Term, where: str) -> None:
    for i, requirement in enumerate(term.match_expressions):
        valid = is_valid_expression(_as_api(requirement)) and is_label_key(requirement.key)
        values = all(not value or _NAME_PART.fullmatch(value) for value in requirement.values)
        require(valid and values, f"{where}.matchExpressions[{i}]", f"{_text(requirement)} is not valid")
    for i, requirement in enumerate(term.match_fields):
        require(
            is_valid_field(_as_api(requirement)),
            f"{where}.matchFields[{i}]",
            f"{_text(requirement)} is not valid: In or NotIn with one value",
        )


def _as_api(requirement: _Requirement) -> NodeSelectorRequirement:
    return NodeSelectorRequirement(requirement.key, requirement.operator, list(requirement.values))


def _text(requirement: _Requirement) -> str:
    return f"{requirement.key} {requirement.operator} {list(requirement.values)}"
