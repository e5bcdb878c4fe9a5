"""The strategy `atomic`: nothing is placed and nothing held until all members that are needed fit at once.

Others may use the room meanwhile, nothing ever has to be undone; the price is that a large gang may
never find the room free at one moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.core.gangs.attempt import Attempt, MemberOutcome, Workspace
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.commit import GangCommit
from scheduler.core.gangs.gang import GangOptions, Strategy
from scheduler.core.placement import Placement
from scheduler.core.queue import QueuedPod


class Atomic:
    """See the module."""

    beside = False

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def wants(self, existing: int, options: GangOptions) -> bool:
        return existing >= options.min_count

    def attempt(self, gang: Gang, options: GangOptions, waiting: Sequence[QueuedPod]) -> Attempt:
        cost = self._workspace.cost
        placed = len(self._workspace.nodes_of(gang))
        need = max(options.min_count - placed, 1)
        planning = self._workspace.planning(gang, options, waiting, need=need)
        yield from planning.steps()
        plan, commit = planning.plan, None
        if not plan.found:
            self._workspace.infeasible(Strategy.ATOMIC, planning)
        elif placed < options.min_count:
            commit = GangCommit(gang.ref, options.min_count, placed, plan.nodes)
            cost.commits[Strategy.ATOMIC.value] += 1
        return [
            MemberOutcome(pod, Placement(plan.nodes[pod.info.uid]), commit=commit)
            if pod.info.uid in plan.nodes
            else self._workspace.refused(pod, planning)
            for pod in waiting
        ]

    def drop(self, uid: str) -> None:
        """Nothing is kept."""
