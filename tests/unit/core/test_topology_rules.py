"""Rules about other pods as the API writes them, brought into a form that can be compared."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.topology_rules import NO_RULES, AffinityTerm, SpreadConstraint, Who, selects
from tests.builders import make_pod

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        (None, {}, False),
        ((), {}, True),
        ((("a", "In", ("1", "2")),), {"a": "2"}, True),
        ((("a", "In", ("1", "2")),), {"a": "3"}, False),
        ((("a", "In", ("",)),), {}, False),
        ((("a", "In", ("",)),), {"a": ""}, True),
        ((("a", "NotIn", ("1",)),), {}, True),
        ((("a", "NotIn", ("1",)),), {"a": "1"}, False),
        ((("a", "Exists", ()),), {"a": ""}, True),
        ((("a", "Exists", ()),), {}, False),
        ((("a", "DoesNotExist", ()),), {}, True),
        ((("a", "DoesNotExist", ()),), {"a": ""}, False),
        ((("a", "Gt", ("1",)),), {"a": "2"}, False),
        ((("a", "Exists", ()), ("b", "Exists", ())), {"a": ""}, False),
    ],
)
def test_selectors(selector: Any, labels: dict[str, str], selected: bool) -> None:
    assert selects(selector, labels) is selected


def term(**fields: Any) -> AffinityTerm:
    affinity = {"podAffinity": {REQUIRED: [{"topologyKey": "zone", **fields}]}}
    [found] = make_pod().named("p", namespace="mine").spec(affinity=affinity).info().rules.affinity
    return found


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        ({}, Who(("mine",), None, None)),
        ({"labelSelector": {}}, Who(("mine",), None, ())),
        ({"namespaces": ["b", "a", "b"]}, Who(("a", "b"), None, None)),
        ({"namespaceSelector": {}}, Who((), (), None)),
        ({"namespaces": ["a"], "namespaceSelector": {"matchLabels": {"k": "v"}}}, None),
    ],
)
def test_whom_a_term_means(fields: dict[str, Any], who: Who | None) -> None:
    assert term(**fields).who == (who or Who(("a",), (("k", "In", ("v",)),), None))


def test_a_term_reaches_named_and_selected_namespaces() -> None:
    who = Who(("a",), (("k", "In", ("v",)),), ())
    assert who.matches("a", {}, {})
    assert who.matches("b", {}, {"k": "v"})
    assert not who.matches("b", {}, {"k": "w"})
    assert not who.matches("b", {}, {})


def test_the_order_in_which_a_selector_is_written_does_not_matter() -> None:
    one = {"matchLabels": {"a": "1", "b": "2"}}
    other = {
        "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["2"]},
            {"key": "a", "operator": "In", "values": ["1"]},
        ]
    }
    assert term(labelSelector=one) == term(labelSelector=other)
    assert hash(term(labelSelector=one)) == hash(term(labelSelector=other))


def test_labels_matter_to_a_pod_with_rules_as_far_as_these_mean_itself() -> None:
    rule = {"podAffinity": {REQUIRED: [{"topologyKey": "z", "labelSelector": {"matchLabels": {"a": "1"}}}]}}
    pods = [make_pod().labels(a=a, index=index).spec(affinity=rule).info() for a, index in ("11", "12", "21")]
    assert pods[0].affinity_rules == pods[1].affinity_rules != pods[2].affinity_rules
    assert make_pod().labels(a="1").info().affinity_rules == ()
    assert make_pod().labels(a="1").info().rules is NO_RULES


def test_to_keep_away_is_a_negative_weight() -> None:
    preferred = [{"weight": 7, "podAffinityTerm": {"topologyKey": "zone"}}]
    affinity = {"podAffinity": {PREFERRED: preferred}, "podAntiAffinity": {PREFERRED: preferred}}
    assert [w.weight for w in make_pod().spec(affinity=affinity).info().rules.preferred] == [7, -7]


def constraint(**fields: Any) -> SpreadConstraint:
    spec = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", **fields}]
    pod = make_pod().labels(app="x", version="1").spec(topologySpreadConstraints=spec)
    [found] = pod.info().rules.hard_spread
    return found


def test_what_a_constraint_leaves_out() -> None:
    assert constraint() == SpreadConstraint("zone", 1, None, False, 1, True, False)


def test_what_a_constraint_says() -> None:
    found = constraint(minDomains=3, nodeAffinityPolicy="Ignore", nodeTaintsPolicy="Honor", maxSkew=2)
    assert found == SpreadConstraint("zone", 2, None, False, 3, False, True)


def test_match_label_keys_add_the_pods_own_values() -> None:
    """Keys that it does not have are left out, and nothing stays nothing."""
    x = {"matchLabels": {"app": "x"}}
    found = constraint(labelSelector=x, matchLabelKeys=["version", "missing"])
    assert found.selector == (("app", "In", ("x",)), ("version", "In", ("1",)))
    merged = {**x, "matchExpressions": [{"key": "version", "operator": "In", "values": ["1"]}]}
    assert constraint(labelSelector=merged, matchLabelKeys=["version"]) == found
    assert constraint(matchLabelKeys=["version"]).selector is None
    assert constraint(labelSelector={"matchLabels": {"app": "y"}}).self_matches is False
