"""DefaultPreemption: a pod that fits nowhere may have pods of lower priority evicted.

Every node where that may help is looked at, not a random sample as in kube-scheduler, as long as nothing
but amounts is at stake. For pods with other rules kube-scheduler's bound applies: enough candidates are
enough, and the next pod begins with other nodes.

Sources: pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go,
pkg/scheduler/framework/preemption/preemption.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import PodDisruptionBudget
from scheduler.core.attempt import Attempt
from scheduler.core.cycle import fit_error
from scheduler.core.dry_run import Costs, DryRun
from scheduler.core.plugin import PostFilterPlugin, PostFilterResult
from scheduler.core.preemption import Preemption
from scheduler.plugins.arguments import Arguments, read_arguments, require

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
MOST_ROWS_PASSED = 1_000_000
"""How many rows of nodes filters that look at other nodes may go through for one pod: some 50 ms."""
_ROWS_PER_TRIAL = 5000
"""As many of them cost what it takes to try a node for which no such filter is asked."""
_AT_ONCE = 64
"""Nodes that are tried side by side where rules look at one node."""


class DefaultPreemptionArgs(Arguments, frozen=True):
    """Source: DefaultPreemptionArgs (staging k8s.io/kube-scheduler/config/v1/types_pluginargs.go)."""

    min_candidate_nodes_percentage: int = 10
    min_candidate_nodes_absolute: int = 100


class DefaultPreemption(PostFilterPlugin):
    """Arguments: how many candidate nodes are enough, in percent of the nodes where evictions may help
    and absolute, whichever is more."""

    name = "DefaultPreemption"
    reads = ("priority", "preempts")
    watches = (PodDisruptionBudget,)

    def __init__(self, args: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for arguments that kube-scheduler would refuse."""
        given = read_arguments(args, DefaultPreemptionArgs)
        self._percentage = given.min_candidate_nodes_percentage
        self._absolute = given.min_candidate_nodes_absolute
        percent, absolute = "minCandidateNodesPercentage", "minCandidateNodesAbsolute"
        require(0 <= self._percentage <= 100, percent, f"must be 0 to 100, got {self._percentage}")
        require(self._absolute >= 0, absolute, f"must not be negative, got {self._absolute}")
        require(self._percentage + self._absolute > 0, percent, f"must not be 0 together with {absolute}")
        self._next = 0
        """Where the next search begins."""

    def post_filter(self, attempt: Attempt) -> PostFilterResult:
        refusal = _ineligible(attempt)
        if refusal:
            return PostFilterResult(f"preemption: {refusal}", keeps_nomination=True)
        dry_run = attempt.dry_run()
        finished = self._search(attempt, dry_run)
        rows, costs = dry_run.candidates()
        if not len(rows):
            message = f"preemption: {_fit_error(attempt, dry_run)}"
            return PostFilterResult(message, unfinished=not finished)
        best = _best(costs, attempt.tie_break(rows))
        row = int(rows[best])
        node, victims = attempt.name_of(row), dry_run.victims_on(row)
        message = f"found a potential placement for pod on node {node}, preempting {len(victims)} victims"
        preemption = Preemption(node, victims, int(costs.violations[best]))
        return PostFilterResult(f"preemption: {message}", preemption)

    def might_help(self, attempt: Attempt) -> bool:
        if _ineligible(attempt):
            return False
        dry_run = attempt.dry_run()
        self._search(attempt, dry_run)
        return len(dry_run.candidates()[0]) > 0

    def _search(self, attempt: Attempt, dry_run: DryRun) -> bool:
        """Returns whether all nodes have been tried, or enough."""
        if attempt.only_amounts_matter:
            dry_run.try_amounts()
            return True
        evictable = dry_run.evictable
        n = len(evictable)
        if not n:
            return True
        enough = max((n + dry_run.without_victims) * self._percentage // 100, self._absolute)
        at_once = 1 if attempt.looks_beyond_nodes else _AT_ONCE
        rows = np.roll(evictable, -(self._next % n))
        found = tried = 0
        while tried < n:
            found += dry_run.try_out(rows[tried : tried + at_once])
            tried = min(tried + at_once, n)
            if found >= enough and not dry_run.candidates()[1].violations.all():
                break
            if attempt.rows_passed + tried * _ROWS_PER_TRIAL > MOST_ROWS_PASSED:
                break
        self._next += tried
        return tried == n or found > 0


def _ineligible(attempt: Attempt) -> str:
    """Why the pod may not preempt at all (PodEligibleToPreemptOthers), or nothing."""
    if not attempt.pod.preempts:
        return "not eligible due to preemptionPolicy=Never."
    node = attempt.nominated_node
    if node is not None and attempt.curable(node) and attempt.waits_for_victims_on(node):
        return "not eligible due to a terminating pod on the nominated node."
    return ""


def _best(costs: Costs, tie_break: NDArray[np.uint64]) -> int:
    """The place of the node where evictions hurt least (pickOneNodeForPreemption)."""
    places = np.arange(len(tie_break))
    for column in (
        costs.violations,
        costs.highest,
        costs.priorities,
        costs.victims,
        -costs.started,
        tie_break,
    ):
        here = column[places]
        places = places[here == here.min()]
        if len(places) == 1:
            break
    return int(places[0])


def _fit_error(attempt: Attempt, dry_run: DryRun) -> str:
    """Why evicting pods helps on no node, as kube-scheduler puts it."""
    in_vain, without_victims = dry_run.in_vain(), dry_run.without_victims
    counts: Counter[str] = attempt.count_reasons(in_vain)
    counts[NO_VICTIMS] += without_victims
    counts[NOT_HELPFUL] += attempt.nodes - len(in_vain.first) - without_victims
    return fit_error(attempt.nodes, counts)
