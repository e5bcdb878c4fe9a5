"""What the random cases were about, counted, so that "no difference" means something.

A generator that never cordons a node finds no error in how cordoned nodes are treated. So every case
says what it exercised, shares are printed, and each of the `FLOORS` must be reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from scheduler.quantity import NANOS_PER_UNIT, nanos
from tests.parity import coverage_volumes
from tests.parity.random_requests import EXTENDED, HUGE_PAGES

Json = dict[str, Any]

EXCLUDED = {"code": "UnschedulableAndUnresolvable", "reasons": ["excluded by PreFilterResult"]}
NOT_FOR_ANY_NODE = {
    "pod affinity terms conflict",
    "node(s) didn't satisfy plugin(s) [NodeAffinity NodeName] simultaneously",
}
PREFERENCES = ("TaintToleration", "NodeAffinity", "ImageLocality")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
COMMON, RARE = 0.02, 0.005
"""Shares of cases."""

POD_FLOORS = {
    **dict.fromkeys(("several containers", "init containers", "sidecars", "pod-level requests"), COMMON),
    **dict.fromkeys(("overhead", "extended resources", "huge pages", "rounding", "zero requests"), COMMON),
    **dict.fromkeys(("resize infeasible", "resize deferred", "allocated by the kubelet"), COMMON),
    **dict.fromkeys(
        ("actuated by the runtime", "pod-level status", "less on the node than in the spec"), COMMON
    ),
    **dict.fromkeys(("more on the node than in the spec", "defaults counted on the node"), COMMON),
    "scored otherwise than counted on the node": COMMON,
}
CLUSTER_FLOORS = {
    **{
        f"{plugin} rejects": COMMON
        for plugin in (
            *("NodeName", "NodeUnschedulable", "TaintToleration", "NodeAffinity", "NodePorts"),
            *("NodeResourcesFit", "PodTopologySpread", "InterPodAffinity", "NodeDeclaredFeatures"),
        )
    },
    **{
        f"reason: {text}": COMMON
        for text in (
            *("Too many pods", "Insufficient cpu", "Insufficient memory", "Insufficient ephemeral-storage"),
            "Insufficient an extended resource",
            "Insufficient huge pages",
            "node(s) didn't match the requested node name",
            "node(s) were unschedulable",
            "node(s) had untolerated taint(s)",
            "node(s) didn't match Pod's node affinity/selector",
            "node(s) didn't match scheduler-enforced node affinity",
            "node(s) didn't have free ports for the requested pod ports",
            "node(s) didn't match Pod's required features",
            "node(s) didn't match pod topology spread constraints",
            "node(s) didn't match pod topology spread constraints (missing required label)",
            "node(s) didn't match pod affinity rules",
            "node(s) didn't match pod anti-affinity rules",
            "node(s) didn't satisfy existing pods anti-affinity rules",
        )
    },
    **dict.fromkeys(("nothing fits", "some nodes fit", "all nodes fit", "several reasons in a text"), COMMON),
    **dict.fromkeys(("several reasons on a node", "preemption might help", "preemption can't help"), COMMON),
    **dict.fromkeys(("narrowed by PreFilter", "rejected by PreFilter", "no nodes"), RARE),
    **{
        f"{plugin} scores vary": 0.05
        for plugin in (
            *("TaintToleration", "NodeAffinity", "NodeResourcesFit", "NodeResourcesBalancedAllocation"),
            *("PodTopologySpread", "InterPodAffinity", "ImageLocality"),
        )
    },
    **dict.fromkeys(("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"), COMMON),
    **dict.fromkeys(("ignored resources", "balance of other resources", "added preference"), COMMON),
    "preferences change the best nodes": COMMON,
    **dict.fromkeys(("minDomains", "inclusion policies", "matchLabelKeys", "namespace selectors"), COMMON),
    **dict.fromkeys(("pods being deleted", "spreading over hosts", "several hard constraints"), COMMON),
    **dict.fromkeys(("several affinity terms", "the first of its group", "terms of existing pods"), RARE),
    "the best node is one of several": COMMON,
    **coverage_volumes.FLOORS,
    **dict.fromkeys(("spread by default: soft", "spread by default: hard"), COMMON),
    **dict.fromkeys(("spread by Services", "spread by a controller", "spread by both"), 0.01),
}


def of_pod(pod: Json, verdict: Json) -> set[str]:
    """What a single pod exercised."""
    return {name for name, holds in _of_pod(pod, verdict) if holds}


def _of_pod(pod: Json, verdict: Json) -> Iterator[tuple[str, bool]]:
    spec, status = pod["spec"], pod.get("status", {})
    inits = spec.get("initContainers", [])
    containers = [*spec["containers"], *inits]
    requests = [c["resources"].get("requests", {}) | c["resources"].get("limits", {}) for c in containers]
    named = {resource for amounts in requests for resource in amounts}
    amounts = [nanos(text) for each in requests for text in each.values()]
    pending = [c["reason"] for c in status.get("conditions", ()) if c["type"] == "PodResizePending"]
    states = status.get("containerStatuses", []) + status.get("initContainerStatuses", [])
    before, on_node = verdict["pod"], verdict["onNode"]["requested"]
    counted = [on_node.get("cpu", 0), on_node.get("memory", 0)]
    yield "several containers", len(spec["containers"]) > 1
    yield "init containers", any("restartPolicy" not in init for init in inits)
    yield "sidecars", any("restartPolicy" in init for init in inits)
    yield "pod-level requests", bool(spec.get("resources", {}).get("requests"))
    yield "overhead", bool(spec.get("overhead"))
    yield "extended resources", bool(named & set(EXTENDED))
    yield "huge pages", bool(named & HUGE_PAGES.keys())
    yield "rounding", any(amount % (NANOS_PER_UNIT // 1000) for amount in amounts)
    yield "zero requests", 0 in amounts
    yield "resize infeasible", pending == ["Infeasible"]
    yield "resize deferred", pending == ["Deferred"]
    yield "allocated by the kubelet", any("allocatedResources" in state for state in states)
    yield "actuated by the runtime", any(state.get("resources", {}).get("requests") for state in states)
    yield "pod-level status", "resources" in status and "allocatedResources" in status
    yield "less on the node than in the spec", any(on_node.get(r, 0) < before[r] for r in before)
    yield "more on the node than in the spec", any(on_node[r] > before.get(r, 0) for r in on_node)
    yield "defaults counted on the node", verdict["onNode"]["nonzero"] != counted
    yield "scored otherwise than counted on the node", verdict["scored"] != verdict["onNode"]["nonzero"]


def of_cluster(document: Json, verdict: Json) -> set[str]:
    """What a cluster exercised, by its rules and by the oracle's verdict."""
    fit = list(verdict["fit"].values())
    rejections = [status for status in fit if status["code"] != "Success"]
    found = {name for name, holds in _of_cluster(verdict, rejections) if holds}
    found |= {name for name, holds in _of_topology(document, verdict["plugins"]) if holds}
    found |= {name for name, holds in _of_default_spread(document, verdict["plugins"]) if holds}
    found |= coverage_volumes.of_volumes(document, verdict)
    if verdict["total"]:
        found |= {name for name, holds in _of_arguments(document) if holds}
    found |= {f"{status['plugin']} rejects" for status in rejections if "plugin" in status}
    if EXCLUDED in fit:
        narrowing = [name for name, plugin in verdict["plugins"].items() if "preFilterNodes" in plugin]
        found |= {f"{name} rejects" for name in narrowing}
    for name, plugin in verdict["plugins"].items():
        for status in plugin.get("filter", {}).values():
            found |= {f"reason: {_kind(text)}" for text in status.get("reasons", ())}
        if len(set(plugin.get("raw", {}).values())) > 1:
            found.add(f"{name} scores vary")
    return found


def _of_cluster(verdict: Json, rejections: list[Json]) -> Iterator[tuple[str, bool]]:
    fit, plugins = verdict["fit"], verdict["plugins"].values()
    yield "no nodes", not fit
    yield "nothing fits", bool(fit) and len(rejections) == len(fit)
    yield "some nodes fit", 0 < len(rejections) < len(fit)
    yield "all nodes fit", bool(fit) and not rejections
    yield "several reasons in a text", ", " in verdict.get("fitError", "")
    yield "several reasons on a node", any(len(status["reasons"]) > 1 for status in rejections)
    resources = [status["code"] for status in rejections if status.get("plugin") == "NodeResourcesFit"]
    yield "preemption might help", "Unschedulable" in resources
    yield "preemption can't help", "UnschedulableAndUnresolvable" in resources
    yield "narrowed by PreFilter", any("preFilterNodes" in plugin for plugin in plugins)
    yield (
        "rejected by PreFilter",
        any(plugin.get("preFilter", {}).get("code") == "UnschedulableAndUnresolvable" for plugin in plugins),
    )
    yield "preferences change the best nodes", _preferences_matter(verdict)
    yield "the best node is one of several", 0 < len(verdict["best"] or ()) < len(verdict["total"])


def _of_arguments(document: Json) -> Iterator[tuple[str, bool]]:
    """Arguments of plugins that had nodes to score."""
    args = {config["name"]: config["args"] for config in document.get("pluginConfig", ())}
    fit = args.get("NodeResourcesFit", {})
    if "scoringStrategy" in fit:
        yield fit["scoringStrategy"]["type"], True
    yield "ignored resources", "ignoredResources" in fit or "ignoredResourceGroups" in fit
    yield "balance of other resources", "NodeResourcesBalancedAllocation" in args
    added = args.get("NodeAffinity", {}).get("addedAffinity", {})
    yield "added preference", "preferredDuringSchedulingIgnoredDuringExecution" in added


def _preferences_matter(verdict: Json) -> bool:
    """Whether the best nodes by resources alone are others than with taints, affinity and images."""
    by_resources: Counter[str] = Counter()
    in_all: Counter[str] = Counter()
    for name, plugin in verdict["plugins"].items():
        for node, score in plugin.get("normalized", {}).items():
            if name.startswith("NodeResources"):
                by_resources[node] += score * plugin["weight"]
            if name.startswith("NodeResources") or name in PREFERENCES:
                in_all[node] += score * plugin["weight"]
    return _best(by_resources) != _best(in_all)


def _best(total: Counter[str]) -> set[str]:
    highest = max(total.values(), default=0)
    return {node for node, score in total.items() if score == highest}


def _of_topology(document: Json, plugins: Json) -> Iterator[tuple[str, bool]]:
    spec = document["pod"]["spec"]
    constraints = spec.get("topologySpreadConstraints", [])
    near = spec.get("affinity", {}).get("podAffinity", {}).get(_REQUIRED, [])
    found = plugins.get("InterPodAffinity", {}).get("filter", {})
    fits = [name for name, status in found.items() if status["code"] == "Success"]
    first = {"group": "first"}
    yield "minDomains", any(c.get("minDomains", 1) > 1 for c in constraints)
    yield "inclusion policies", any("nodeTaintsPolicy" in c or "nodeAffinityPolicy" in c for c in constraints)
    yield "matchLabelKeys", any("matchLabelKeys" in c for c in constraints)
    yield "spreading over hosts", any(c["topologyKey"] == "kubernetes.io/hostname" for c in constraints)
    yield (
        "several hard constraints",
        sum(c["whenUnsatisfiable"] == "DoNotSchedule" for c in constraints) > 1,
    )
    yield (
        "namespace selectors",
        any("namespaceSelector" in term for term in near)
        or any("namespaceSelector" in str(pod["spec"].get("affinity")) for pod in document["pods"]),
    )
    yield "pods being deleted", any("deletionTimestamp" in pod["metadata"] for pod in document["pods"])
    yield "several affinity terms", len(near) > 1 and bool(fits)
    yield (
        "the first of its group",
        bool(near and fits)
        and all(term.get("labelSelector", {}).get("matchLabels") == first for term in near),
    )
    yield "terms of existing pods", bool(found) and not near and len(fits) < len(found)


def _of_default_spread(document: Json, plugins: Json) -> Iterator[tuple[str, bool]]:
    pod = document["pod"]
    if pod["spec"].get("topologySpreadConstraints"):
        return
    spread = plugins.get("PodTopologySpread", {})
    soft = len({*spread.get("raw", {}).values()}) > 1
    hard = any(status["code"] != "Success" for status in spread.get("filter", {}).values())
    kinds = {raw["kind"] for raw in document["objects"]}
    controlled = bool(kinds - {"Namespace", "Service"})
    yield "spread by default: soft", soft
    yield "spread by default: hard", hard
    if soft or hard:
        yield "spread by Services", "Service" in kinds and not controlled
        yield "spread by a controller", "Service" not in kinds
        yield "spread by both", "Service" in kinds and controlled


def _kind(reason: str) -> str:
    for resources, name in ((EXTENDED, "an extended resource"), (tuple(HUGE_PAGES), "huge pages")):
        if reason.endswith(resources):
            return f"Insufficient {name}"
    return coverage_volumes.kind(reason)


def shortfalls(seen: Counter[str], cases: int, floors: dict[str, float]) -> list[str]:
    """Floors that the cases do not reach, in words."""
    return [
        f"{name}: {seen[name]} of {cases} cases, should be {floor:.1%} or more"
        for name, floor in floors.items()
        if seen[name] < floor * cases
    ]
