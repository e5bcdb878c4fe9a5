"""Compares a verdict of the oracle with Wholepod's on the same document.

Left out are the kube-scheduler plugins that Wholepod does not have yet, and `selected`: among equals,
kube-scheduler's pick is arbitrary. `total` and `best` are therefore made again from the oracle's scores
of the plugins that both have, and Wholepod's pick must be among the best.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]
SUCCESS = {"code": "Success"}


class Difference(NamedTuple):
    """Where two verdicts part."""

    path: str
    kube: Any
    wholepod: Any

    def __str__(self) -> str:
        return f"{self.path}: kube-scheduler {self.kube!r}, Wholepod {self.wholepod!r}"


def compare_requests(kube: Json, wholepod: Json) -> list[Difference]:
    """Differences in the requests of a single pod."""
    return _differences("", kube, wholepod)


def compare(kube: Json, wholepod: Json, *, nominated: str = "") -> list[Difference]:
    """Differences in verdicts on a cluster under profile `kube`, for a pod nominated to that node."""
    found = _differences("requests", kube["requests"], wholepod["requests"])
    found += _differences("fit", _statuses(kube["fit"]), _statuses(wholepod["fit"]))
    found += _differences("fitError", kube.get("fitError", ""), wholepod.get("fitError", ""))
    for name, ours in wholepod["plugins"].items():
        theirs = kube["plugins"].get(name, {})
        found += _compare_plugin(f"plugins.{name}", theirs, ours, _feasible(kube))
    total = _total(kube, [name for name, ours in wholepod["plugins"].items() if "weight" in ours])
    found += _differences("total", total, wholepod["total"])
    highest = max(total.values(), default=0)
    best = sorted(node for node, score in total.items() if score == highest)
    found += _differences("best", best, wholepod["best"] or [])
    if nominated in _feasible(kube):
        best = [nominated]  # it is not weighed against others
    if wholepod["selected"] not in (best or [""]):
        found.append(Difference("selected", best, wholepod["selected"]))
    return found


def _compare_plugin(path: str, kube: Json, wholepod: Json, feasible: list[str]) -> list[Difference]:
    found = []
    if "preFilter" in wholepod:
        found += _differences(path, _filtering(kube), _filtering(wholepod))
    if "weight" in wholepod:
        # A plugin that skips scoring counts nothing for any node.
        nothing = dict.fromkeys(feasible, 0)
        for field in ("raw", "normalized"):
            theirs, ours = (verdict.get(field, nothing) for verdict in (kube, wholepod))
            found += _differences(f"{path}.{field}", theirs, ours)
        found += _differences(f"{path}.weight", kube.get("weight"), wholepod["weight"])
    return found


def _filtering(plugin: Json) -> Json:
    """What a plugin's filter comes to; to skip it is to let every node pass."""
    prefilter = _status(plugin.get("preFilter", SUCCESS))
    rejected = {n: s for n, s in _statuses(plugin.get("filter", {})).items() if s["code"] != "Success"}
    return {
        "preFilter": _status(SUCCESS) if prefilter["code"] == "Skip" else prefilter,
        "preFilterNodes": plugin.get("preFilterNodes"),
        "filter": {node: _as_rejection(status) for node, status in rejected.items()},
    }


def _as_rejection(status: Json) -> Json:
    """A plugin may fail where it finds that another has already refused the pod: a claim that is not the
    pod's is VolumeBinding's to refuse, and an error of NodeVolumeLimits asked by itself."""
    refused = status["code"] == "Error" and any("pod is not owner" in text for text in status["reasons"])
    return {**status, "code": "UnschedulableAndUnresolvable"} if refused else status


def _feasible(kube: Json) -> list[str]:
    return [name for name, status in kube["fit"].items() if status["code"] == "Success"]


def _total(kube: Json, scored: list[str]) -> dict[str, int]:
    """The weighted sum of these plugins' scores."""
    total = dict.fromkeys(_feasible(kube), 0)
    for name in scored:
        plugin = kube["plugins"].get(name, {})
        for node, score in plugin.get("normalized", {}).items():
            total[node] += score * plugin["weight"]
    return total


def _statuses(statuses: dict[str, Json]) -> dict[str, Json]:
    return {name: _status(status) for name, status in statuses.items()}


def _status(status: Json) -> Json:
    """With reasons sorted: kube-scheduler lists extended resources in random order."""
    return {**status, "reasons": sorted(status.get("reasons", []))}


def _differences(path: str, kube: Any, wholepod: Any) -> list[Difference]:
    """The deepest places where two JSON values differ."""
    if kube == wholepod:
        return []
    if isinstance(kube, dict) and isinstance(wholepod, dict):
        found = []
        for key in sorted({*kube, *wholepod}):
            deeper = f"{path}.{key}" if path else key
            found += _differences(deeper, kube.get(key), wholepod.get(key))
        return found
    return [Difference(path, kube, wholepod)]
