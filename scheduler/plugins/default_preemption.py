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

from scheduler.api_objects import PodDisruptionBudget
from scheduler.core.attempt import Attempt
from scheduler.core.cycle import fit_error
from scheduler.core.dry_run import Candidates, DryRun
from scheduler.core.plugin import PostFilterPlugin, PostFilterResult
from scheduler.core.preemption import Preemption
from scheduler.plugins.arguments import Arguments, read_arguments, require

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
MOST_ROWS_PASSED = 1_000_000
"""How many rows of nodes filters that look at other nodes may go through for one pod: some 50 ms."""
_ROWS_PER_TRIAL = 2000
"""As many of them cost what it takes to try a node for which no such filter is asked."""


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
        candidates = dry_run.candidates()
        if not len(candidates.rows):
            message = f"preemption: {_fit_error(attempt, dry_run)}"
            return PostFilterResult(message, unfinished=not finished)
        best = _best(candidates)
        row, node = int(candidates.rows[best]), attempt.name_of(int(candidates.rows[best]))
        victims = dry_run.victims_on(row)
        message = f"found a potential placement for pod on node {node}, preempting {len(victims)} victims"
        preemption = Preemption(node, victims, int(candidates.violations[best]))
        return PostFilterResult(f"preemption: {message}", preemption)

    def _search(self, attempt: Attempt, dry_run: DryRun) -> bool:
        """Returns whether all nodes have been tried, or enough."""
        if attempt.only_amounts_matter:
            dry_run.try_amounts()
            return True
        evictable = np.flatnonzero(dry_run.evictable)
        n = len(evictable)
        if not n:
            return True
        enough = max(len(dry_run.evictable) * self._percentage // 100, self._absolute)
        at_once = 1 if attempt.looks_beyond_nodes else enough
        places = np.roll(evictable, -(self._next % n))
        found = tried = 0
        while tried < n:
            found += dry_run.try_out(places[tried : tried + at_once])
            tried = min(tried + at_once, n)
            if found >= enough and not dry_run.candidates().violations.all():
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


def _best(candidates: Candidates) -> int:
    """The place of the candidate that hurts least (pickOneNodeForPreemption)."""
    places = np.arange(len(candidates.rows))
    for costs in (
        candidates.violations,
        candidates.highest,
        candidates.priorities,
        candidates.victims,
        -candidates.started,
        candidates.tie_break,
    ):
        here = costs[places]
        places = places[here == here.min()]
        if len(places) == 1:
            break
    return int(places[0])


def _fit_error(attempt: Attempt, dry_run: DryRun) -> str:
    """Why evicting pods helps on no node, as kube-scheduler puts it."""
    counts: Counter[str] = attempt.count_reasons(dry_run.statuses.take(~dry_run.statuses.passing))
    tried_in_vain = int(np.count_nonzero(~dry_run.statuses.passing))
    without_victims = int(np.count_nonzero(~dry_run.evictable))
    counts[NO_VICTIMS] += without_victims
    counts[NOT_HELPFUL] += attempt.nodes - tried_in_vain - without_victims
    return fit_error(attempt.nodes, counts)
