"""Victims of our own preemptions, from the decision on.

Until the watch shows what became of them, other decisions are made on a picture in which they still run:

* their room is as good as free. A dry run that put one of them back would have another pod evicted in its
  stead, and both would go;
* the status of their disruption budgets does not show yet that they go, so that a budget would be spent
  once by each of many preemptors.

kube-scheduler knows of neither and is seldom hurt, as its preemptions take longer than the news of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.api_objects import PodDisruptionBudget
from scheduler.core.objects import ClusterObjects
from scheduler.core.pod_info import PodInfo

UNCOUNTED_AT_MOST_S = 5.0
"""How long the disruption controller may take. Not every victim shows in a budget's status: one that
was not ready does not."""


@dataclass(slots=True)
class _Charge:
    info: PodInfo
    seen: dict[str, str]
    """Budgets of the namespace → their versions when the victim was chosen."""
    until: float | None = None
    """Set when the victim is known to go."""


class Condemned:
    """By uid. Times are the engine's clock's, in seconds."""

    def __init__(self, cluster: ClusterObjects) -> None:
        self._cluster = cluster
        self._leaving: set[str] = set()
        self._charges: dict[str, _Charge] = {}
        self.version = 0
        """Bumped whenever `charged` may say something else."""

    def __contains__(self, uid: object) -> bool:
        """Whether the pod is on its node, and leaving."""
        return uid in self._leaving

    def add(self, victim: PodInfo) -> None:
        """Chosen just now. One that is terminating already leaves as well, but is not charged."""
        self._leaving.add(victim.uid)
        if not victim.terminating and victim.uid not in self._charges:
            seen = {b.metadata.name: b.metadata.resource_version for b in self._budgets(victim)}
            if seen:
                self._charges[victim.uid] = _Charge(victim, seen)
                self.version += 1

    def spare(self, uid: str) -> None:
        """It stays after all."""
        self._leaving.discard(uid)
        if self._charges.pop(uid, None) is not None:
            self.version += 1

    def goes(self, uid: str, now: float) -> None:
        """The watch shows that it is terminating."""
        charge = self._charges.get(uid)
        if charge is not None and charge.until is None:
            charge.until = now + UNCOUNTED_AT_MOST_S

    def gone(self, uid: str, now: float) -> None:
        """It is not on its node any more."""
        self._leaving.discard(uid)
        self.goes(uid, now)

    def charged(self, budget: PodDisruptionBudget) -> Iterable[PodInfo]:
        """Victims in the budget's namespace that its status may not show yet."""
        for charge in self._charges.values():
            of_namespace = charge.info.namespace == budget.metadata.namespace
            if of_namespace and (charge.until is None or _unchanged(budget, charge)):
                yield charge.info

    def settle(self, now: float) -> None:
        """Forgets charges that all budgets' statuses show by now, or never will."""
        for uid, charge in list(self._charges.items()):
            if charge.until is None:
                continue
            waits = any(_unchanged(budget, charge) for budget in self._budgets(charge.info))
            if not waits or now >= charge.until:
                del self._charges[uid]
                self.version += 1

    def _budgets(self, pod: PodInfo) -> Iterable[PodDisruptionBudget]:
        return self._cluster.in_namespace(PodDisruptionBudget, pod.namespace)


def _unchanged(budget: PodDisruptionBudget, charge: _Charge) -> bool:
    """Since the victim was chosen."""
    return charge.seen.get(budget.metadata.name) == budget.metadata.resource_version
