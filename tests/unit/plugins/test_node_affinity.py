"""NodeAffinity: selectors and required terms, by the rules of labels.Requirement and matchFields."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.node_selector import parse_int64
from scheduler.core.plugin import PreFilterResult
from scheduler.plugins.node_affinity import REASON_CONFLICT, NodeAffinity
from tests.builders import PodBuilder, make_node, make_pod
from tests.unit.plugins.filtering import fits, reasons

NODE = make_node("n").labels({"zone": "a", "cores": "16", "empty": ""})


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def field(operator: str, *values: str, key: str = "metadata.name") -> dict[str, Any]:
    return {"matchFields": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "fit"),
    [
        ({"zone": "a"}, True),
        ({"zone": "b"}, False),
        ({"other": "a"}, False),
        ({"other": ""}, False),
        ({"empty": ""}, True),
        ({"zone": "a", "cores": "16"}, True),
        ({"zone": "a", "cores": "8"}, False),
    ],
)
def test_node_selector(selector: dict[str, str], fit: bool) -> None:
    assert fits(NodeAffinity(), make_pod().selector(selector), NODE) is fit


@pytest.mark.parametrize(
    ("term", "fit"),
    [
        (expression("zone", "In", "a"), True),
        (expression("zone", "In", "b", "a"), True),
        (expression("zone", "In", "b"), False),
        (expression("other", "In", "a"), False),
        (expression("zone", "NotIn", "b"), True),
        (expression("zone", "NotIn", "a"), False),
        (expression("other", "NotIn", "a"), True),
        (expression("zone", "Exists"), True),
        (expression("empty", "Exists"), True),
        (expression("other", "Exists"), False),
        (expression("other", "DoesNotExist"), True),
        (expression("zone", "DoesNotExist"), False),
        (expression("cores", "Gt", "15"), True),
        (expression("cores", "Gt", "16"), False),
        (expression("cores", "Lt", "17"), True),
        (expression("cores", "Lt", "16"), False),
        (expression("cores", "Gt", "-1"), True),
        (expression("zone", "Gt", "1"), False),
        (expression("other", "Gt", "1"), False),
        (expression("other", "Lt", "1"), False),
        # What labels.NewRequirement refuses makes its whole term match nothing.
        (expression("zone", "In"), False),
        (expression("other", "NotIn"), False),
        (expression("zone", "Exists", "a"), False),
        (expression("other", "DoesNotExist", "a"), False),
        (expression("cores", "Gt", "1", "2"), False),
        (expression("cores", "Gt"), False),
        (expression("cores", "Gt", "many"), False),
        (expression("cores", "Gt", "9223372036854775808"), False),
        (expression("zone", "Is", "a"), False),
        (expression("zone", "in", "a"), False),
        (expression("zone", ""), False),
        (field("In", "n"), True),
        (field("In", "m"), False),
        (field("NotIn", "m"), True),
        (field("NotIn", "n"), False),
        (field("In", "n", "m"), False),
        (field("In"), False),
        (field("Exists"), False),
        (field("In", "x", key="metadata.namespace"), False),
        (field("NotIn", "x", key="metadata.namespace"), True),
        ({}, False),
        ({"matchExpressions": [], "matchFields": []}, False),
        (expression("zone", "In", "a") | field("In", "n"), True),
        (expression("zone", "In", "a") | field("In", "m"), False),
        (expression("zone", "In", "b") | field("In", "n"), False),
        ({"matchExpressions": expression("zone", "Exists")["matchExpressions"] * 2}, True),
    ],
)
def test_a_term(term: dict[str, Any], fit: bool) -> None:
    assert fits(NodeAffinity(), make_pod().affinity(term), NODE) is fit


YES, NO = expression("zone", "In", "a"), expression("zone", "In", "b")
INVALID = expression("zone", "In")


@pytest.mark.parametrize(
    ("pod", "fit"),
    [
        (make_pod().affinity(NO, YES), True),
        (make_pod().affinity(INVALID, YES), True),
        (make_pod().affinity(NO, {}), False),
        (make_pod().affinity(), False),
        (make_pod().affinity(YES).selector({"zone": "a"}), True),
        (make_pod().affinity(YES).selector({"zone": "b"}), False),
        (make_pod().affinity(NO).selector({"zone": "a"}), False),
    ],
)
def test_terms_are_alternatives_and_the_selector_holds_too(pod: PodBuilder, fit: bool) -> None:
    expected = [] if fit else ["node(s) didn't match Pod's node affinity/selector"]
    assert reasons(NodeAffinity(), pod, NODE) == [expected]


def test_a_pod_without_rules_is_none_of_its_business() -> None:
    assert not NodeAffinity().applies(make_pod().info())
    preferred = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}
    assert not NodeAffinity().applies(make_pod().spec(affinity=preferred).info())


@pytest.mark.parametrize(
    ("pod", "names"),
    [
        (make_pod(), None),
        (make_pod().selector({"zone": "a"}), None),
        (make_pod().pinned_to("n"), {"n"}),
        (make_pod().pinned_to("n", "m"), {"n", "m"}),
        (make_pod().affinity(field("In", "n"), YES), None),
        (make_pod().affinity(field("NotIn", "n")), None),
        (make_pod().affinity(YES | field("In", "n")), {"n"}),
        (
            make_pod().affinity({"matchFields": field("In", "n")["matchFields"] * 2}, field("In", "m")),
            {"n", "m"},
        ),
    ],
)
def test_terms_that_name_nodes_shorten_the_list(pod: PodBuilder, names: set[str] | None) -> None:
    expected = None if names is None else frozenset(names)
    assert NodeAffinity().prefilter(pod.info()) == PreFilterResult(node_names=expected)


def test_names_that_exclude_each_other() -> None:
    conflict = {"matchFields": [*field("In", "n")["matchFields"], *field("In", "m")["matchFields"]]}
    result = NodeAffinity().prefilter(make_pod().affinity(conflict).info())
    assert result == PreFilterResult(rejection=REASON_CONFLICT)
    either = NodeAffinity().prefilter(make_pod().affinity(conflict, field("In", "n")).info())
    assert either == PreFilterResult(node_names=frozenset(["n"]))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        ("9223372036854775807", (1 << 63) - 1),
        ("-9223372036854775808", -(1 << 63)),
        ("9223372036854775808", None),
        ("", None),
        ("-", None),
        ("1_000", None),
        (" 1", None),
        ("1.0", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
)
def test_numbers_are_read_as_go_reads_them(text: str, number: int | None) -> None:
    assert parse_int64(text) == number
