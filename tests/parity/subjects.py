"""What a run as a whole has to be about, whichever family its cases are of.

A share says little of what is rare by nature, so these are numbers of cases: a run of tens of thousands
has at least `CASES` of each, a shorter one as many in proportion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]

CASES, SHARE = 1000, 0.05
STORAGE = (
    *("persistentVolumeClaim", "ephemeral", "csi", "awsElasticBlockStore", "gcePersistentDisk"),
    *("iscsi", "rbd"),
)
"""Sources of volumes that some plugin has a rule about."""


def _priorities(document: Json, verdict: Json) -> bool:
    pods = [*document["pods"], document["pod"]]
    return len({pod["spec"].get("priority", 0) for pod in pods}) > 1


def _min_domains(document: Json, verdict: Json) -> bool:
    constraints = document["pod"]["spec"].get("topologySpreadConstraints", ())
    return any(constraint.get("minDomains", 1) > 1 for constraint in constraints)


def _volumes(document: Json, verdict: Json) -> bool:
    volumes = document["pod"]["spec"].get("volumes", ())
    return any(source in volume for volume in volumes for source in STORAGE)


def _budgets(document: Json, verdict: Json) -> bool:
    kinds = {raw["kind"] for raw in document.get("objects", ())}
    return bool(verdict.get("victims")) and "PodDisruptionBudget" in kinds


SUBJECTS: Mapping[str, Callable[[Json, Json], bool]] = {
    "subject: victims": lambda document, verdict: bool(verdict.get("victims")),
    "subject: disruption budgets where there are victims": _budgets,
    "subject: nominated pods": lambda document, verdict: bool(document.get("nominated")),
    "subject: volumes": _volumes,
    "subject: priorities": _priorities,
    "subject: minDomains": _min_domains,
}


def of(document: Json, verdict: Json) -> set[str]:
    """What a cluster is about."""
    return {name for name, holds in SUBJECTS.items() if holds(document, verdict)}


def shortfalls(seen: Counter[str], cases: int) -> list[str]:
    """Subjects of which there are too few in a run of so many clusters, in words."""
    wanted = min(CASES, int(SHARE * cases))
    return [
        f"{name}: {seen[name]} of {cases} cases, should be {wanted} or more"
        for name in SUBJECTS
        if seen[name] < wanted
    ]
