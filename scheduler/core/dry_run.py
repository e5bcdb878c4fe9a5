"""Who would have to leave a node so that a pod fits there: as few as possible, and the least important.

All pods of lower priority are taken away; if the pod fits then, they are put back one by one as long as
it still does, those first whose eviction would overdraw a disruption budget, each group most important
first. This goes on for many nodes side by side: the k-th pod of every node is put back at once.
Source: SelectVictimsOnNode (pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.budgets import Budgets
from scheduler.core.nodes import NodeTable
from scheduler.core.nominations import Nominations
from scheduler.core.placed_pods import PlacedPods
from scheduler.core.plugin import Mask
from scheduler.core.pod_info import PodInfo
from scheduler.core.questions import Questions, no_rejections
from scheduler.core.stages import AmountsStage, Places, Stage, TableStage
from scheduler.core.transaction import Transaction


class Candidates(NamedTuple):
    """Nodes where evicting some pods would help; all arrays in the same order."""

    rows: NDArray[np.intp]
    violations: NDArray[np.int64]
    """Victims that overdraw a disruption budget."""
    highest: NDArray[np.int64]
    """Priority of the most important victim."""
    priorities: NDArray[np.int64]
    """Sum over the victims, each counted from the lowest possible priority."""
    victims: NDArray[np.int64]
    """How many."""
    started: NDArray[np.int64]
    """When the first of the victims of highest priority started, in seconds since 1970."""
    tie_break: NDArray[np.uint64]
    """Some order of the nodes, another one for each pod."""


class DryRun:
    """For one pod, on the nodes in `rows`; `try_out` looks at some of them at a time."""

    def __init__(
        self,
        questions: Questions,
        nodes: NodeTable,
        placed: PlacedPods,
        nominations: Nominations,
        budgets: Budgets,
        rows: NDArray[np.intp],
    ) -> None:
        placed.update()
        self._questions, self._nodes, self._placed, self._budgets = questions, nodes, placed, budgets
        self._rows = rows
        pod, pods = questions.pod, len(placed.infos)
        offset, count = placed.offset[rows], placed.count[rows]
        lower = np.zeros(pods + 1, np.intp)
        np.cumsum(placed.priority[:pods] < pod.priority, out=lower[1:])
        self._eligible = lower[offset + count] - lower[offset]
        self._begin = offset + count - self._eligible
        """Of each node: the first of its pods of lower priority; the others follow."""
        self._victims = np.zeros(pods, np.bool_)
        self._violating = np.zeros(pods, np.bool_)
        self._fits = np.zeros(len(rows), np.bool_)
        self.statuses = no_rejections(len(rows))
        """Why evictions would not help, of each node that was tried in vain."""
        self._nominated = {
            place: others
            for place, name in enumerate(nodes.names[row] for row in rows.tolist())
            if name in nominations.nodes and (others := nominations.counted(name, pod))
        }

    @property
    def evictable(self) -> Mask:
        """bool[rows]: nodes with any pod of lower priority."""
        return np.asarray(self._eligible > 0, np.bool_)

    def try_amounts(self) -> None:
        """Tries all nodes; only for pods of which nothing matters but amounts."""
        places = np.flatnonzero(self.evictable)
        stage = AmountsStage(self._questions, self._nodes, self._placed, self._rows, self._nominated)
        self._rehearse(stage, places)

    def try_out(self, places: Places) -> int:
        """Tries the nodes at these places in `rows`; returns how many of them would do. For pods with
        rules that look at other nodes, one at a time."""
        with Transaction(self._nodes, hidden=True) as what_if:
            stage = TableStage(self._questions, what_if, self._placed, self._rows, self._nominated)
            self._rehearse(stage, places[self.evictable[places]])
        return int(np.count_nonzero(self._fits[places]))

    def candidates(self) -> Candidates:
        """Of what has been tried so far."""
        places = np.flatnonzero(self._fits)
        node, pods = self._pods_of(places)
        chosen = self._victims[pods]
        node, pods = node[chosen], pods[chosen]
        n, priority = len(places), self._placed.priority[pods]
        lowest = np.iinfo(np.int64).min
        highest = np.full(n, lowest)
        np.maximum.at(highest, node, priority)
        started = np.full(n, np.iinfo(np.int64).max)
        first_rank = priority == highest[node]
        np.minimum.at(started, node[first_rank], self._placed.start[pods[first_rank]])
        sums = np.zeros(n, np.int64)
        np.add.at(sums, node, priority + (1 << 31))
        count = np.bincount(node, minlength=n).astype(np.int64)
        violations = np.bincount(node[self._violating[pods]], minlength=n).astype(np.int64)
        helped = count > 0  # a node that fits without any eviction is nothing that evictions could offer
        rows = self._rows[places][helped]
        return Candidates(
            rows=rows,
            violations=violations[helped],
            highest=highest[helped],
            priorities=sums[helped],
            victims=count[helped],
            started=started[helped],
            tie_break=self._nodes.name_hash[rows] ^ np.uint64(self._questions.pod.uid_hash),
        )

    def victims_on(self, row: int) -> tuple[PodInfo, ...]:
        """Most important first."""
        return tuple(self._placed.infos[pod] for pod in self._placed.of(row) if self._victims[pod])

    # ---- internals

    def _rehearse(self, stage: Stage, places: Places) -> None:
        begin, eligible = self._begin, self._eligible
        for k in range(int(eligible[places].max(initial=0))):
            here = places[eligible[places] > k]
            stage.move(here, begin[here] + k, -1)
        statuses = stage.ask(places)
        fits = statuses.passing
        self.statuses.update(places[~fits], statuses.take(~fits))
        places = places[fits]
        self._fits[places] = True
        if not len(places):
            return
        order = self._order(places)
        for k in range(int(eligible[places].max(initial=0))):
            here = places[eligible[places] > k]
            pods = order[begin[here] + k]
            stage.move(here, pods, 1)
            must_go = ~stage.ask(here).passing
            stage.move(here[must_go], pods[must_go], -1)
            self._victims[pods[must_go]] = True

    def _order(self, places: Places) -> Places:
        """Permutes the places of each node's pods: those first that must not go if it can be helped."""
        order = np.arange(len(self._victims), dtype=np.intp)
        if len(self._budgets):
            node, pods = self._pods_of(places)
            violating = self._budgets.violating(self._placed.infos, pods, node)
            self._violating[pods] = violating
            if violating.any():
                order[pods] = pods[np.argsort(2 * node + ~violating, kind="stable")]
        return order

    def _pods_of(self, places: Places) -> tuple[Places, Places]:
        """All pods of lower priority on these nodes: (place in `places` of its node, place of the pod)."""
        eligible = self._eligible[places]
        node = np.repeat(np.arange(len(places), dtype=np.intp), eligible)
        within = np.arange(len(node), dtype=np.intp) - np.repeat(np.cumsum(eligible) - eligible, eligible)
        return node, np.repeat(self._begin[places], eligible) + within
