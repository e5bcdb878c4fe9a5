"""What a decision comes to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from scheduler.core.gangs.commit import GangCommit
from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption
from scheduler.core.volumes.plan import VolumePlan


class Verdict(Enum):
    PLACED = "placed"
    """Assumed on `node`; the bind is to be sent."""
    UNSCHEDULABLE = "unschedulable"
    WAITING = "waiting"
    """A member of a gang that can't be tried yet, or has to be tried again soon."""
    TENTATIVE = "tentative"
    """A member of a gang has a place, which is kept in mind until the others have theirs."""
    TERMINATING = "terminating"
    """The pod is being deleted; it is left alone."""
    ERROR = "error"
    """A plugin failed; the pod is tried again after a backoff."""


@dataclass(frozen=True, slots=True)
class Decision:
    pod: PodInfo
    verdict: Verdict
    node: str | None
    message: str
    attempts: int
    waited_s: float
    """Since the pod was first seen without gates."""
    rejected_by: frozenset[str] = frozenset()
    preemption: Preemption | None = None
    """Only of an unschedulable pod. It is in flight until `Engine.preemption_done` or
    `preemption_failed` says what came of it."""
    nominated_node: str | None = None
    """What `status.nominatedNodeName` is to become; None: as it is, empty: cleared."""
    volumes: VolumePlan | None = None
    """What has to be written, and come true, before the bind may be sent."""
    commit: GangCommit | None = None
    """Of a placed member that is to be bound together with others, or not at all."""
