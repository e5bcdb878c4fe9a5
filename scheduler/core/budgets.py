"""Which pods' eviction would overdraw a PodDisruptionBudget.

All pods of a node that may be evicted are charged, most important first, and a pod violates when one of
its budgets has nothing left for it. Nearly all pods have one budget at most, as the Eviction API demands;
these are charged with all nodes at once.
Source: FilterVictimsWithPDBViolation (pkg/scheduler/framework/preemption/util.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import PodDisruptionBudget
from scheduler.core.condemned import Condemned
from scheduler.core.objects import ClusterObjects
from scheduler.core.plugin import Mask
from scheduler.core.pod_info import PodInfo
from scheduler.core.topology_rules import Selector, make_selector, selects

_NONE, _SEVERAL = -1, -2


class _Budget:
    def __init__(self, budget: PodDisruptionBudget, selector: Selector, condemned: Condemned) -> None:
        spent = sum(selects(selector, pod.labels) for pod in condemned.charged(budget))
        self.selector, self.allowed = selector, budget.status.disruptions_allowed - spent
        self.disrupted = budget.status.disrupted_pods or {}


class Budgets:
    """All budgets as they stand, less what victims chosen lately have spent of them."""

    def __init__(self, cluster: ClusterObjects, condemned: Condemned) -> None:
        self._condemned = condemned
        self._by_namespace: dict[str, list[int]] = {}
        self._budgets: list[_Budget] = []
        self._matching: dict[tuple[str, frozenset[tuple[str, str]]], tuple[int, ...]] = {}
        for budget in sorted(cluster.all(PodDisruptionBudget), key=_by_name):
            selector = make_selector(budget.spec.selector)
            if selector:  # an empty one selects nothing here
                self._by_namespace.setdefault(budget.metadata.namespace, []).append(len(self._budgets))
                self._budgets.append(_Budget(budget, selector, condemned))
        self._allowed = np.array([budget.allowed for budget in self._budgets], np.int64)

    def __len__(self) -> int:
        return len(self._budgets)

    def violating(self, infos: Sequence[PodInfo], pods: NDArray[np.intp], node: NDArray[np.intp]) -> Mask:
        """bool[pods]: `pods` are places in `infos`, node by node and most important first; `node` says
        which node each is on, by any numbers."""
        charged = np.array([self._charged(infos[pod]) for pod in pods.tolist()], np.int64)
        violating = np.zeros(len(pods), np.bool_)
        single = np.flatnonzero(charged >= 0)
        if len(single):
            budgets = charged[single]
            # The n-th pod of one node and budget violates when the budget allows less than n.
            order = np.lexsort((budgets, node[single]))
            sorted_node, sorted_budget = node[single][order], budgets[order]
            begins = np.ones(len(order), np.bool_)
            begins[1:] = (sorted_node[1:] != sorted_node[:-1]) | (sorted_budget[1:] != sorted_budget[:-1])
            first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
            nth = np.arange(len(order)) - first + 1
            violating[single[order]] = nth > self._allowed[sorted_budget]
        for number in np.unique(node[charged == _SEVERAL]).tolist():
            here = np.flatnonzero(node == number)
            violating[here] = self._one_by_one(infos[pod] for pod in pods[here].tolist())
        return violating

    def _one_by_one(self, pods: Iterable[PodInfo]) -> list[bool]:
        left = self._allowed.copy()
        return [self._overdraws(pod, left) for pod in pods]

    def _overdraws(self, pod: PodInfo, left: NDArray[np.int64]) -> bool:
        if pod.uid in self._condemned:
            return False  # `allowed` is less by it already
        for number in self._of(pod):
            if pod.pod.metadata.name in self._budgets[number].disrupted:
                continue  # its eviction is accounted for already
            left[number] -= 1
            if left[number] < 0:
                return True
        return False

    def _charged(self, pod: PodInfo) -> int:
        """The one budget that is charged for the pod, or none, or several of them."""
        numbers = self._of(pod)
        if not numbers or pod.uid in self._condemned:
            return _NONE
        if len(numbers) > 1:
            return _SEVERAL
        return _NONE if pod.pod.metadata.name in self._budgets[numbers[0]].disrupted else numbers[0]

    def _of(self, pod: PodInfo) -> tuple[int, ...]:
        in_namespace = self._by_namespace.get(pod.namespace)
        if in_namespace is None or not pod.labels:
            return ()
        key = pod.signature[:2]
        found = self._matching.get(key)
        if found is None:
            labels = pod.labels
            found = tuple([n for n in in_namespace if selects(self._budgets[n].selector, labels)])
            self._matching[key] = found
        return found


def _by_name(budget: PodDisruptionBudget) -> tuple[str, str]:
    return budget.metadata.namespace, budget.metadata.name
