"""Compares what the oracle and Wholepod would do for a pod that fits nowhere.

Victims must be the same on every node. Among nodes where evictions hurt equally kube-scheduler's choice is
arbitrary, so that both choices have to be among those that are best by its rules, which are written down
here once more (pickOneNodeForPreemption in pkg/scheduler/framework/preemption/preemption.go).
"""

from __future__ import annotations

import re
from typing import Any

from tests.parity.judge import Difference, compare

Json = dict[str, Any]
Cost = tuple[int, int, int, int, float]

_FOUND = "preemption: found a potential placement for pod on node "


def compare_preemption(document: Json, kube: Json, wholepod: Json) -> list[Difference]:
    """Differences in verdicts, preemption included."""
    nominated = document["pod"].get("status", {}).get("nominatedNodeName", "")
    found = compare(kube, wholepod, nominated=nominated)
    theirs, ours = (verdict.get("victims") or {} for verdict in (kube, wholepod))
    for node in sorted({*theirs, *ours}):
        if theirs.get(node) != ours.get(node):
            found.append(Difference(f"victims.{node}", theirs.get(node), ours.get(node)))
    texts = [verdict.get("postFilter", "") for verdict in (kube, wholepod)]
    choices = [re.fullmatch(rf"{_FOUND}(\S+), preempting (\d+) victims", text) for text in texts]
    if None in choices:
        return [*found, Difference("postFilter", *texts)] if texts[0] != texts[1] else found
    best = best_nodes(document, theirs)
    for who, choice, nominate in zip(
        ("kube", "wholepod"), choices, (choices[0] and choices[0][1], wholepod.get("nominate")), strict=True
    ):
        if choice is not None and (
            choice[1] not in best or choice[1] != nominate or int(choice[2]) != len(theirs[choice[1]]["pods"])
        ):
            found.append(Difference(f"the choice of {who}", best, choice[0]))
    return found


def best_nodes(document: Json, victims: dict[str, Json]) -> list[str]:
    """Nodes where evicting these victims hurts least."""
    pods = {_name(pod): pod for pod in document["pods"]}
    costs = {
        node: _cost([pods[name] for name in each["pods"]], each["pdbViolations"])
        for node, each in victims.items()
    }
    lowest = min(costs.values(), default=None)
    return sorted(node for node, cost in costs.items() if cost == lowest)


def _cost(victims: list[Json], violations: int) -> Cost:
    priorities = [pod["spec"].get("priority", 0) for pod in victims]
    highest = max(priorities)
    starts = [_start(pod) for pod, priority in zip(victims, priorities, strict=True) if priority == highest]
    return violations, highest, sum(p + 2**31 for p in priorities), len(victims), -min(starts)


def _start(pod: Json) -> float:
    _, hours, minutes, seconds = re.split("[T:Z]", pod["status"]["startTime"])[:4]
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def _name(pod: Json) -> str:
    metadata = pod["metadata"]
    return f"{metadata.get('namespace', 'default')}/{metadata['name']}"
