"""Random rules between pods: affinity, anti-affinity and spreading, and pods for them to find.

As with the rules about nodes, vocabularies are tiny, so that rules meet. Only what validation lets
through is made; what the API server adds (merged matchLabelKeys) is added here.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.parity.random_rules import ZONES

Json = dict[str, Any]

NAMESPACES = {"default": {}, "other": {"team": "a"}, "third": {"team": "b", "stage": "test"}}
KEYS = (*["zone", "kubernetes.io/hostname"] * 5, "pool", "rank", "missing")
POD_LABELS = {"app": ("x", "x", "y"), "tier": ("front", "back"), "version": ("1", "2", "")}
FIRST = {"group": "first"}
"""Labels that no bound pod has."""


def namespaces(rng: Random) -> list[Json]:
    """The namespaces' objects; one that is left out here has no labels."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in NAMESPACES.items()
        if labels and rng.random() < 0.9
    ]


def labels(rng: Random) -> dict[str, str]:
    """A pod's labels."""
    chances = {"app": 0.95, "tier": 0.6, "version": 0.5}
    return {key: rng.choice(values) for key, values in POD_LABELS.items() if rng.random() < chances[key]}


def affinity(rng: Random, own: dict[str, str], *, often: float) -> Json:
    """podAffinity and podAntiAffinity; `often` is the chance of each of the four lists of terms."""
    found: Json = {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules: Json = {}
        if rng.random() < often:
            count = rng.choice([1, 1, 2])
            rules["requiredDuringSchedulingIgnoredDuringExecution"] = [
                _term(rng, own, narrow=kind == "podAntiAffinity") for _ in range(count)
            ]
        if rng.random() < often:
            count = rng.choice([1, 1, 2, 3])
            rules["preferredDuringSchedulingIgnoredDuringExecution"] = [
                {"weight": rng.choice([1, 3, 50, 100]), "podAffinityTerm": _term(rng, own, narrow=False)}
                for _ in range(count)
            ]
        if rules or rng.random() < 0.05:
            found[kind] = rules
    return found


def spread(rng: Random, own: dict[str, str]) -> list[Json]:
    """topologySpreadConstraints, unique in key and action."""
    found: dict[tuple[str, str], Json] = {}
    for _ in range(rng.choice([1, 2, 2, 3])):
        key, action = rng.choice(KEYS), rng.choice(["DoNotSchedule", "ScheduleAnyway"])
        constraint: Json = {
            "maxSkew": rng.choice([1, 1, 1, 2, 4]),
            "topologyKey": key,
            "whenUnsatisfiable": action,
        }
        if rng.random() < 0.95:
            constraint["labelSelector"] = selector = _selector(rng, own)
            if own and rng.random() < 0.2:
                _merge_match_label_key(rng, own, constraint, selector)
        if action == "DoNotSchedule" and rng.random() < 0.6:
            constraint["minDomains"] = rng.choice([1, 2, 3, 5])
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if rng.random() < 0.4:
                constraint[policy] = rng.choice(["Honor", "Ignore"])
        found[key, action] = constraint
    return list(found.values())


def _term(rng: Random, own: dict[str, str], *, narrow: bool) -> Json:
    term: Json = {"topologyKey": rng.choice(KEYS)}
    if rng.random() < 0.96:
        term["labelSelector"] = _selector(rng, own)
    if narrow and rng.random() < 0.4:
        term["labelSelector"] = {"matchLabels": {"app": "y", "tier": "back", "version": "2"}}
    if rng.random() < 0.2:
        term["namespaces"] = rng.sample(list(NAMESPACES), rng.choice([1, 1, 2]))
    if rng.random() < 0.25:
        term["namespaceSelector"] = rng.choice(
            [
                {},
                {"matchLabels": {"team": "a"}},
                {"matchExpressions": [{"key": "team", "operator": "Exists"}]},
                {"matchExpressions": [{"key": "stage", "operator": "DoesNotExist"}]},
            ]
        )
    return term


def _selector(rng: Random, own: dict[str, str]) -> Json:
    kind = rng.random()
    if FIRST.items() <= own.items() and rng.random() < 0.5:
        return {"matchLabels": FIRST}
    if kind < 0.04:
        return {}
    if kind < 0.3 and own:
        return {"matchLabels": dict(rng.sample(sorted(own.items()), 1))}
    if kind < 0.6:
        return {"matchLabels": {"app": rng.choice("xy")}}
    return {"matchExpressions": [_requirement(rng) for _ in range(rng.choice([1, 1, 2]))]}


def _requirement(rng: Random) -> Json:
    key = rng.choice([*POD_LABELS, "absent"])
    operator = rng.choice(["In", "In", "NotIn", "Exists", "DoesNotExist"])
    if operator in ("Exists", "DoesNotExist"):
        return {"key": key, "operator": operator}
    values = sorted({*POD_LABELS.get(key, ZONES)})
    return {"key": key, "operator": operator, "values": rng.sample(values, rng.randint(1, len(values)))}


def _merge_match_label_key(rng: Random, own: dict[str, str], constraint: Json, selector: Json) -> None:
    """As the API server does at creation (pkg/registry/core/pod/strategy.go)."""
    mentioned = {*selector.get("matchLabels", {}), *(r["key"] for r in selector.get("matchExpressions", ()))}
    free = sorted({*own} - mentioned)
    if free:
        key = rng.choice(free)
        constraint["matchLabelKeys"] = [key]
        merged = {"key": key, "operator": "In", "values": [own[key]]}
        selector["matchExpressions"] = [*selector.get("matchExpressions", ()), merged]
