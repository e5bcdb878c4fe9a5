"""Node selectors over the label columns of all nodes: of pods, and of volumes that not every node reaches.

Sources: component-helpers scheduling/corev1/nodeaffinity; apimachinery labels.Requirement. A term that
cannot be parsed matches nothing, terms are ORed, and an empty term matches nothing.
"""

from __future__ import annotations

import re
from functools import partial

import numpy as np

from scheduler.api import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from scheduler.core.labels import lookup, lookup_in
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import Mask

NAME_FIELD = "metadata.name"
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


def term_matches(term: NodeSelectorTerm, nodes: NodeView, *, nameless: bool = False) -> Mask:
    """bool[n]: all expressions and fields of one term hold; an empty or invalid term matches nothing.

    `nameless`: as if nodes had labels only, as volumes see them.
    """
    expressions, node_fields = term.match_expressions or [], term.match_fields or []
    nothing = np.zeros(nodes.count, np.bool_)
    if not (expressions or node_fields):
        return nothing
    if not (all(map(is_valid_expression, expressions)) and all(map(is_valid_field, node_fields))):
        return nothing
    mask = np.ones(nodes.count, np.bool_)
    for requirement in expressions:
        column, ids = nodes.label(requirement.key)
        if requirement.operator == "In":
            mask &= lookup_in(column, ids, requirement.values or ())
        else:
            mask &= lookup(column, ids, partial(label_matches, requirement))
    for requirement in node_fields:
        value = (requirement.values or [""])[0]
        # Nodes have one selectable field; any other reads as empty.
        matches = (
            nodes.named(value)
            if requirement.key == NAME_FIELD and not nameless
            else np.full(nodes.count, value == "", np.bool_)
        )
        mask &= matches if requirement.operator == "In" else ~matches
    return mask


def selects(selector: NodeSelector, nodes: NodeView, *, nameless: bool = False) -> Mask:
    """bool[n]: any term holds."""
    mask = np.zeros(nodes.count, np.bool_)
    for term in selector.node_selector_terms or ():
        mask |= term_matches(term, nodes, nameless=nameless)
    return mask
