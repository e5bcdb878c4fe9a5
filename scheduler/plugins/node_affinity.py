"""NodeAffinity: nodeSelector and required node affinity.

Sources: pkg/scheduler/framework/plugins/nodeaffinity; component-helpers
scheduling/corev1/nodeaffinity; apimachinery labels.Requirement. A term that cannot be parsed
matches nothing, terms are ORed, and an empty term matches nothing.
"""

from __future__ import annotations

import re
from functools import partial, reduce
from operator import eq

import numpy as np

from scheduler.api import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from scheduler.core.labels import lookup
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import ALL_NODES, FilterPlugin, FilterResult, Mask, PreFilterResult, Wake, rejects
from scheduler.core.pod_info import PodInfo

REASON = "node(s) didn't match Pod's node affinity/selector"
REASON_CONFLICT = "pod affinity terms conflict"
_NAME_FIELD = "metadata.name"
_INTEGER = re.compile(r"[+-]?[0-9]+")


def parse_int64(text: str) -> int | None:
    """Go's strconv.ParseInt(text, 10, 64): None where it fails."""
    if not _INTEGER.fullmatch(text) or len(text) > 20:
        return None
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 63 else None


def label_matches(requirement: NodeSelectorRequirement, value: str | None) -> bool:
    """Whether a node's label value (None: no such label) satisfies a valid requirement."""
    values = requirement.values or []
    match requirement.operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    bound = parse_int64(values[0])
    number = parse_int64(value) if value is not None else None
    if bound is None or number is None:
        return False
    return number > bound if requirement.operator == "Gt" else number < bound


def is_valid_expression(requirement: NodeSelectorRequirement) -> bool:
    """Whether labels.NewRequirement accepts it."""
    values = requirement.values or []
    match requirement.operator:
        case "In" | "NotIn":
            return bool(values)
        case "Exists" | "DoesNotExist":
            return not values
        case "Gt" | "Lt":
            return len(values) == 1 and parse_int64(values[0]) is not None
    return False


def is_valid_field(requirement: NodeSelectorRequirement) -> bool:
    return requirement.operator in ("In", "NotIn") and len(requirement.values or []) == 1


def term_matches(term: NodeSelectorTerm, nodes: NodeView) -> Mask:
    """bool[n]: all expressions and fields of one term hold; an empty or invalid term matches nothing."""
    expressions, node_fields = term.match_expressions or [], term.match_fields or []
    nothing = np.zeros(nodes.count, np.bool_)
    if not (expressions or node_fields):
        return nothing
    if not (all(map(is_valid_expression, expressions)) and all(map(is_valid_field, node_fields))):
        return nothing
    mask = np.ones(nodes.count, np.bool_)
    for requirement in expressions:
        mask &= lookup(*nodes.label(requirement.key), partial(label_matches, requirement))
    for requirement in node_fields:
        value = (requirement.values or [""])[0]
        # Nodes have one selectable field; any other reads as empty.
        matches = (
            nodes.named(value)
            if requirement.key == _NAME_FIELD
            else np.full(nodes.count, value == "", np.bool_)
        )
        mask &= matches if requirement.operator == "In" else ~matches
    return mask


def _names_of(term: NodeSelectorTerm) -> frozenset[str] | None:
    """Node names that a term is limited to, None for no limit."""
    sets = [
        frozenset(r.values or ())
        for r in term.match_fields or ()
        if r.key == _NAME_FIELD and r.operator == "In"
    ]
    return reduce(frozenset.intersection, sets) if sets else None


class NodeAffinity(FilterPlugin):
    name = "NodeAffinity"
    reads = ("node_selector", "required_node_affinity")
    wakes_on = Wake.NODE_ADD | Wake.NODE_LABELS

    def applies(self, pod: PodInfo) -> bool:
        return bool(pod.node_selector) or pod.required_node_affinity is not None

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
        return (REASON,)

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        mask = np.ones(nodes.count, np.bool_)
        for key, wanted in pod.node_selector.items():
            mask &= lookup(*nodes.label(key), partial(eq, wanted))
        required: NodeSelector | None = pod.required_node_affinity
        if required is not None:
            any_term = np.zeros(nodes.count, np.bool_)
            for term in required.node_selector_terms or ():
                any_term |= term_matches(term, nodes)
            mask &= any_term
        return rejects(~mask, unresolvable=True)
