"""What the random cases of preemption were about, counted as in `tests.parity.coverage`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.parity.coverage import COMMON, RARE
from tests.parity.judge_preemption import best_nodes

Json = dict[str, Any]
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

FLOORS = {
    **dict.fromkeys(("nothing fits", "something fits", "victims", "several victims on a node"), 0.1),
    **dict.fromkeys(("several candidate nodes", "victims of several priorities"), 0.1),
    **dict.fromkeys(("some lower pods are spared", "nodes without victims", "nobody helps"), COMMON),
    **dict.fromkeys(("budgets overdrawn", "budgets change who has to go"), COMMON),
    **dict.fromkeys(("budgets decide the node", "pods disrupted already"), RARE),
    **dict.fromkeys(("nominated pods keep the pod out", "nominated pods of lower priority"), COMMON),
    **dict.fromkeys(("its own node is tried first", "waits for victims on its node"), RARE),
    **dict.fromkeys(("preemptionPolicy Never", "victims with host ports"), COMMON),
    **dict.fromkeys(("victims and rules about other pods", "the pod has to be alone"), COMMON),
    **dict.fromkeys(("victims being deleted", "negative priorities"), COMMON),
}


def of(document: Json, verdict: Json) -> set[str]:
    """What a case exercised, by its rules and by the oracle's verdict."""
    return {name for name, holds in _of(document, verdict) if holds}


def _of(document: Json, verdict: Json) -> Iterator[tuple[str, bool]]:
    spec, pods = document["pod"]["spec"], {_name(pod): pod for pod in document["pods"]}
    priority, text = spec["priority"], verdict.get("postFilter", "")
    victims: dict[str, Json] = verdict.get("victims") or {}
    going = [pods[name] for each in victims.values() for name in each["pods"]]
    yield "nothing fits", not verdict["total"]
    yield "something fits", bool(verdict["total"])
    yield "victims", bool(victims)
    yield "several victims on a node", any(len(each["pods"]) > 1 for each in victims.values())
    yield "several candidate nodes", len(victims) > 1
    yield "victims of several priorities", len({_priority(pod) for pod in going}) > 1
    spared = [
        pod
        for pod in document["pods"]
        if pod["spec"]["nodeName"] in victims and _priority(pod) < priority and pod not in going
    ]
    yield "some lower pods are spared", bool(spared)
    yield "nodes without victims", "No preemption victims" in text
    yield "nobody helps", "0/" in text
    yield "budgets overdrawn", any(each["pdbViolations"] for each in victims.values())
    yield (
        "budgets change who has to go",
        any(_priority(kept) < _priority(gone) for kept in spared for gone in going if _same_node(kept, gone)),
    )
    without = {node: {**each, "pdbViolations": 0} for node, each in victims.items()}
    yield "budgets decide the node", best_nodes(document, without) != best_nodes(document, victims)
    budgets = [each for each in document["objects"] if each["kind"] == "PodDisruptionBudget"]
    yield "pods disrupted already", bool(victims) and any("disruptedPods" in b["status"] for b in budgets)
    nominated = document["nominated"]
    alone = {name for p in verdict["plugins"].values() for name, s in p.get("filter", {}).items() if _bad(s)}
    kept_out = {node for node, status in verdict["fit"].items() if _bad(status)} - alone
    yield "nominated pods keep the pod out", bool(kept_out & {each["node"] for each in nominated})
    yield "nominated pods of lower priority", any(_priority(each["pod"]) < priority for each in nominated)
    own = document["pod"].get("status", {}).get("nominatedNodeName")
    yield "its own node is tried first", own in verdict["total"] and len(verdict["total"]) > 1
    yield "waits for victims on its node", "terminating pod" in text
    yield "preemptionPolicy Never", spec.get("preemptionPolicy") == "Never"
    yield "victims with host ports", any("ports" in pod["spec"]["containers"][0] for pod in going)
    affinity = spec.get("affinity", {})
    ruled = any(_REQUIRED in affinity.get(kind, {}) for kind in ("podAffinity", "podAntiAffinity"))
    yield "the pod has to be alone", bool(victims) and _REQUIRED in affinity.get("podAntiAffinity", {})
    spread = any(c["whenUnsatisfiable"] == "DoNotSchedule" for c in spec.get("topologySpreadConstraints", ()))
    yield "victims and rules about other pods", bool(victims) and (ruled or spread)
    yield "victims being deleted", any("deletionTimestamp" in pod["metadata"] for pod in going)
    yield "negative priorities", any(_priority(pod) < 0 for pod in going)


def _bad(status: Json) -> bool:
    return bool(status["code"] != "Success")


def _same_node(one: Json, other: Json) -> bool:
    return bool(one["spec"]["nodeName"] == other["spec"]["nodeName"])


def _priority(pod: Json) -> int:
    return int(pod["spec"].get("priority", 0))


def _name(pod: Json) -> str:
    metadata = pod["metadata"]
    return f"{metadata.get('namespace', 'default')}/{metadata['name']}"
