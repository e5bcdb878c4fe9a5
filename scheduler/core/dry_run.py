"""Who would have to leave a node so that a pod fits there: as few as possible, and the least important.

All pods of lower priority are taken away; if the pod fits then, they are put back one by one as long as
it still does, those first whose eviction would overdraw a disruption budget, each group most important
first. Pods that are leaving already are not put back: their room is as good as free. This goes on for
many nodes side by side: the k-th pod of every node is put back at once.

What was found of a node holds for the next pod of the same kind and priority too, as long as nothing has
changed there, so that hundreds of them that preempt one after another look at a few nodes each.
Source: SelectVictimsOnNode (pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.core.budgets import Budgets
from scheduler.core.nodes import NodeTable
from scheduler.core.nominations import Nominations
from scheduler.core.placed_pods import PlacedPods, widened
from scheduler.core.plugin import Mask
from scheduler.core.pod_info import PodInfo
from scheduler.core.questions import Questions, Statuses, no_rejections
from scheduler.core.stages import AmountsStage, Places, Stage, TableStage
from scheduler.core.transaction import Transaction

_NOBODY = np.empty(0, np.intp)


class Costs(NamedTuple):
    """Of evictions on some nodes. Pods that are leaving already cost nothing."""

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

    def take(self, rows: Places | Mask) -> Costs:
        return Costs(*(column[rows] for column in self))


class DryRun:
    """Call `begin` for each pod. All arrays and places are by rows of the node table."""

    def __init__(self, nodes: NodeTable, placed: PlacedPods, nominations: Nominations) -> None:
        self._nodes, self._placed, self._nominations = nodes, placed, nominations
        self._budgets: Budgets | None = None
        self._epoch = self._version = self._nominations_seen = self._own = -1
        self._known = np.empty(0, np.bool_)
        """Rows that were tried and have not changed since."""
        self._fits = np.empty(0, np.bool_)
        self._helped = np.empty(0, np.bool_)
        """Rows where somebody has to leave, or does so already."""
        self._statuses = no_rejections(0)
        self._costs = Costs(*(np.empty(0, np.int64) for _ in Costs._fields))
        self._victims = np.empty(0, np.bool_)
        self._violating = np.empty(0, np.bool_)
        """These two by places in `PlacedPods`."""

    def begin(self, questions: Questions, budgets: Budgets, curable: Mask) -> None:
        """For another pod of the kind and priority. `curable`: bool[n], nodes where evictions may help."""
        placed, n, priority = self._placed, len(self._nodes), questions.pod.priority
        self._questions, self._curable = questions, curable
        if not placed.any_below(priority):
            self._eligible = np.zeros(n, np.intp)
            return
        placed.update()
        if 0 <= self._own < len(self._known):
            self._known[self._own] = False
        if len(self._known) != n:
            self._resize(n)
        if placed.epoch != self._epoch or budgets is not self._budgets:
            self._known[:] = False
            self._epoch, self._budgets = placed.epoch, budgets
        self._known[placed.read_at[:n] > self._version] = False
        self._version = placed.version
        changed = self._nominations.changed_since(self._nominations_seen)
        self._nominations_seen = self._nominations.version
        if changed is None:
            self._known[:] = False
        self._own = self._nodes.row_of.get(self._nominations.node_of(questions.pod.uid) or "", -1)
        """The row of the node that the pod itself is nominated to, which is another matter to all others."""
        stale = [self._nodes.row_of.get(name, -1) for name in changed or ()]
        self._known[[row for row in (*stale, self._own) if row >= 0]] = False
        self._eligible, self._begin = placed.below(priority, n)
        """Of each node: how many pods have a lower priority, and where they begin."""
        if len(self._victims) < len(placed.infos):
            capacity = 2 * len(placed.infos)
            self._victims = widened(self._victims, capacity)
            self._violating = widened(self._violating, capacity)

    @property
    def evictable(self) -> Places:
        """Rows of nodes where evictions may help and there is somebody to evict."""
        return np.flatnonzero(self._curable & (self._eligible > 0)) if self._eligible.any() else _NOBODY

    def try_amounts(self) -> None:
        """Tries all nodes; only for pods of which nothing matters but amounts."""
        rows = self.evictable
        rows = rows[~self._known[rows]]
        if len(rows):
            stage = AmountsStage(self._questions, self._nodes, self._placed, rows, self._counted(rows))
            self._rehearse(stage, rows)
        self._known[rows] = True

    def try_out(self, rows: Places) -> int:
        """Tries these nodes, of those that are evictable; returns how many of them would do. For pods
        with rules that look at other nodes, one at a time."""
        with Transaction(self._nodes, hidden=True) as what_if:
            stage = TableStage(self._questions, what_if, self._placed, rows, self._counted(rows))
            self._rehearse(stage, rows)
        self._known[rows] = True
        return int(np.count_nonzero(self._fits[rows]))

    def candidates(self) -> tuple[Places, Costs]:
        """The nodes among those tried where evictions help, and what these cost."""
        rows = self._tried()
        rows = rows[self._fits[rows] & self._helped[rows]]
        return rows, self._costs.take(rows)

    def victims_on(self, row: int) -> tuple[PodInfo, ...]:
        """Most important first."""
        begin = int(self._begin[row])
        places = range(begin, begin + int(self._eligible[row]))  # of others nothing is noted
        return tuple(self._placed.infos[pod] for pod in places if self._victims[pod])

    def in_vain(self) -> Statuses:
        """Why evictions do not help on each of the other nodes that were tried."""
        rows = self._tried()
        return self._statuses.take(rows[~self._fits[rows]])

    @property
    def without_victims(self) -> int:
        """On how many nodes evictions might help if there were anybody to evict."""
        return int(np.count_nonzero(self._curable & (self._eligible == 0)))

    # ---- internals

    def _tried(self) -> Places:
        rows = self.evictable
        return rows[self._known[rows]]

    def _resize(self, n: int) -> None:
        self._known, self._fits = widened(self._known, n), widened(self._fits, n)
        self._helped = widened(self._helped, n)
        first, bits, unresolvable = self._statuses
        self._statuses = Statuses(widened(first, n), widened(bits, n), widened(unresolvable, n))
        self._costs = Costs(*(widened(column, n) for column in self._costs))

    def _counted(self, rows: Places) -> dict[int, list[PodInfo]]:
        """Place in `rows` → pods nominated there that the pod has to make way for."""
        found = {}
        if self._nominations:
            for place, row in enumerate(rows.tolist()):
                others = self._nominations.counted(self._nodes.names[row], self._questions.pod)
                if others:
                    found[place] = others
        return found

    def _rehearse(self, stage: Stage, rows: Places) -> None:
        """`places` on the stage are places in `rows`."""
        begin, eligible = self._begin[rows], self._eligible[rows]
        most, everybody = int(eligible.max(initial=0)), np.arange(len(rows), dtype=np.intp)
        for k in range(most):
            here = everybody[eligible > k]
            stage.move(here, begin[here] + k, -1)
        statuses = stage.ask(everybody)
        self._statuses.update(rows, statuses)
        self._fits[rows] = fits = statuses.passing
        places = everybody[fits]
        node, pods = _spread(begin[places], eligible[places])
        self._victims[pods] = False
        order = self._order(node, pods)
        for k in range(most):
            here = places[eligible[places] > k]
            back = order[begin[here] + k]
            stage.move(here, back, 1)
            must_go = ~stage.ask(here).passing | self._placed.leaving[back]
            stage.move(here[must_go], back[must_go], -1)
            self._victims[back[must_go]] = True
        self._rate(rows[places], node, pods)

    def _order(self, node: Places, pods: Places) -> Places:
        """Permutes the places of each node's pods: those first that must not go if it can be helped."""
        order = np.arange(len(self._victims), dtype=np.intp)
        if self._budgets:
            violating = self._budgets.violating(self._placed.infos, pods, node)
            self._violating[pods] = violating
            if violating.any():
                order[pods] = pods[np.argsort(2 * node + ~violating, kind="stable")]
        return order

    def _rate(self, rows: Places, node: Places, pods: Places) -> None:
        """`pods` are all that might have gone from the nodes of `rows`, `node` the place in `rows`."""
        n = len(rows)
        self._helped[rows] = np.bincount(node[self._victims[pods]], minlength=n) > 0
        chosen = self._victims[pods] & ~self._placed.leaving[pods]
        node, pods = node[chosen], pods[chosen]
        priority = self._placed.priority[pods]
        highest = np.full(n, np.iinfo(np.int64).min)
        np.maximum.at(highest, node, priority)
        leading = priority == highest[node]
        started = np.full(n, np.iinfo(np.int64).max)
        np.minimum.at(started, node[leading], self._placed.start[pods[leading]])
        sums = np.zeros(n, np.int64)
        np.add.at(sums, node, priority + (1 << 31))
        costs = self._costs
        costs.violations[rows] = 0
        if self._budgets:
            costs.violations[rows] = np.bincount(node[self._violating[pods]], minlength=n)
        costs.highest[rows], costs.priorities[rows], costs.started[rows] = highest, sums, started
        costs.victims[rows] = np.bincount(node, minlength=n)


def _spread(begin: Places, count: NDArray[np.intp]) -> tuple[Places, Places]:
    """(i, begin[i] + k) for each i and each k below count[i]."""
    node = np.repeat(np.arange(len(begin), dtype=np.intp), count)
    within = np.arange(len(node), dtype=np.intp) - np.repeat(np.cumsum(count) - count, count)
    return node, np.repeat(begin, count) + within
