"""A pod that fits nowhere as things stand, and what can be found out to help it: what a
`PostFilterPlugin` is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from scheduler.core.budgets import Budgets
from scheduler.core.dry_run import DryRun
from scheduler.core.nodes import NodeTable
from scheduler.core.nominations import Nominations
from scheduler.core.placed_pods import PlacedPods
from scheduler.core.plugin import Mask
from scheduler.core.questions import Questions, Statuses


class Attempt:
    """Nothing is changed by asking."""

    def __init__(
        self,
        questions: Questions,
        nodes: NodeTable,
        placed: PlacedPods,
        nominations: Nominations,
        budgets: Budgets,
        *,
        statuses: Statuses,
        considered: Mask,
        dry_run: DryRun,
        count_reasons: Callable[[Statuses], Counter[str]],
    ) -> None:
        """`statuses`: of all nodes; `considered`: bool[n], those that the statuses are true of, none for a
        pod that was rejected as such. `dry_run`: one made for pods of this kind, or a new one if what
        evictions change for the pod is more than the amounts in use on a node."""
        self._questions, self._nodes, self._placed = questions, nodes, placed
        self._nominations, self._budgets = nominations, budgets
        self._statuses = statuses
        self._curable = considered & ~statuses.unresolvable & ~statuses.passing
        self._count_reasons = count_reasons
        self.pod = questions.pod
        self._dry_run = dry_run
        self.only_amounts_matter = questions.amounts_only
        """Whether nothing that evictions change makes a difference but the amounts in use on a node."""
        self.looks_beyond_nodes = bool(questions.remote)
        """Whether the pod's rules may concern pods on other nodes than its own."""

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self._nodes)

    @property
    def rows_passed(self) -> int:
        """How many rows filters that look at other nodes have gone through so far."""
        return self._questions.rows_passed

    def name_of(self, row: int) -> str:
        return self._nodes.names[row]

    def tie_break(self, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Some order of these nodes, another one for each pod and the same in every process."""
        return self._nodes.name_hash[rows] ^ np.uint64(self.pod.uid_hash)

    @property
    def nominated_node(self) -> str | None:
        """Of the pod."""
        return self._nominations.node_of(self.pod.uid)

    def curable(self, node: str) -> bool:
        """Whether evictions on the node might help."""
        row = self._nodes.row_of.get(node)
        return row is not None and bool(self._curable[row])

    def waits_for_victims_on(self, node: str) -> bool:
        """Whether pods of lower priority are being evicted from the node already."""
        row = self._nodes.row_of.get(node)
        if row is None:
            return False
        self._placed.update()
        pods: Iterable[int] = self._placed.of(row)
        return any(
            self._placed.infos[pod].preempted and self._placed.priority[pod] < self.pod.priority
            for pod in pods
        )

    def dry_run(self) -> DryRun:
        """For the nodes where evictions might help."""
        self._dry_run.begin(self._questions, self._budgets, self._curable)
        return self._dry_run

    def count_reasons(self, statuses: Statuses) -> Counter[str]:
        """How many of some nodes, each rejected, have which reason."""
        return self._count_reasons(statuses)
