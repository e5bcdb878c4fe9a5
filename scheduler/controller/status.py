"""What the status of a `scheduling.x-k8s.io` PodGroup should be: a function of the group and its members.

Phases and counts are those of the scheduler-plugins project's controller (pkg/controllers/
podgroup_controller.go), so that whatever reads them there reads them here. Three things differ. Its
controller moves one phase at a time, this one says at once what follows from the members. `scheduled` (which
its API had and dropped) and conditions are written where the CRD stores them. And `scheduleStartTime` is
written at all: when the last of the members that are needed came to exist, from which
`scheduleTimeoutSeconds` counts.
"""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

from scheduler.controller.members import Count
from scheduler.controller.shapes import GroupObject, GroupStatus

PENDING, SCHEDULING, RUNNING, FINISHED, FAILED = "Pending", "Scheduling", "Running", "Finished", "Failed"
FINAL = (FINISHED, FAILED)
_RANKS = {PENDING: 0, SCHEDULING: 1, RUNNING: 2, FINISHED: 3, FAILED: 3}
SCHEDULED = "Scheduled"
TIMED_OUT = "ScheduleTimeout"
"""Reason of the condition Scheduled, and of the event."""

Condition = dict[str, Any]


class Outlook(NamedTuple):
    """What is to be written, what to tell, and when time alone will change it."""

    status: GroupStatus
    timed_out: str = ""
    """Why, if members could not be bound in time."""
    look_again_s: float | None = None


def outlook(group: GroupObject, count: Count, now: datetime.datetime) -> Outlook:
    """The status that follows; the one that stands once the phase is final, as pods may be gone then."""
    before = group.status
    if before.phase in FINAL:
        return Outlook(before)
    needed = max(group.spec.min_member, 1)
    phase = _phase(count, needed)
    start = None
    if phase != PENDING:
        start = before.schedule_start_time if _parsed(before.schedule_start_time) else _rfc3339(now)
    late_in_s = _late_in_s(group, start, now) if count.scheduled < needed else None
    timed_out = ""
    if late_in_s is not None and late_in_s <= 0:
        timed_out = (
            f"{count.scheduled} of the {needed} members that are needed are bound, "
            f"{group.spec.schedule_timeout_seconds} s (scheduleTimeoutSeconds) after all of them existed"
        )
    conditions = _conditions(group, count, needed, phase, timed_out, now)
    status = GroupStatus(
        phase=phase,
        occupied_by=before.occupied_by or ("" if phase == PENDING else count.occupied_by),
        scheduled=count.scheduled,
        running=count.running,
        succeeded=count.succeeded,
        failed=count.failed,
        schedule_start_time=start,
        conditions=conditions,
    )
    return Outlook(status, timed_out, late_in_s if late_in_s is not None and late_in_s > 0 else None)


def takes_back(before: GroupStatus, wanted: GroupStatus) -> bool:
    """Whether fewer members would be said to be as far as they were, as when some are deleted."""

    def progress(status: GroupStatus) -> tuple[int, ...]:
        started = (status.running or 0) + (status.succeeded or 0) + (status.failed or 0)
        return _RANKS.get(status.phase, 0), status.scheduled or 0, started

    pairs = zip(progress(before), progress(wanted), strict=True)
    return any(now < then for then, now in pairs)


def _phase(count: Count, needed: int) -> str:
    if count.succeeded >= needed:
        return FINISHED
    if count.failed and count.failed + count.running + count.succeeded >= needed:
        return FAILED
    if count.exist < needed:
        return PENDING
    return RUNNING if count.running + count.succeeded >= needed else SCHEDULING


def _late_in_s(group: GroupObject, start: str | None, now: datetime.datetime) -> float | None:
    """Seconds until the group is late; None if it never is."""
    timeout_s = group.spec.schedule_timeout_seconds
    begun = _parsed(start)
    if not timeout_s or timeout_s < 0 or begun is None:
        return None
    return (begun - now).total_seconds() + timeout_s


def _conditions(
    group: GroupObject, count: Count, needed: int, phase: str, timed_out: str, now: datetime.datetime
) -> list[Condition]:
    """Those that were there, and ours brought up to date. Running, Finished and Failed appear when they first
    hold, so together they tell the group's history."""
    conditions = list(group.status.conditions or ())

    def say(kind: str, holds: bool, reason: str, message: str) -> None:
        status = "True" if holds else "False"
        at = next((n for n, each in enumerate(conditions) if each.get("type") == kind), None)
        old = conditions[at] if at is not None else None
        new: Condition = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": group.metadata.generation,
            "lastTransitionTime": _rfc3339(now),
        }
        if old is not None and old.get("status") == status:
            new["lastTransitionTime"] = old.get("lastTransitionTime") or new["lastTransitionTime"]
        if at is None:
            conditions.append(new)
        else:
            conditions[at] = new

    def said(kind: str) -> bool:
        return any(each.get("type") == kind for each in conditions)

    bound = f"{count.scheduled} of the {needed} members that are needed are bound"
    if count.scheduled >= needed:
        say(SCHEDULED, True, SCHEDULED, bound)
    elif timed_out:
        say(SCHEDULED, False, TIMED_OUT, timed_out)
    elif phase == PENDING:
        exist = f"{count.exist} of the {needed} members that are needed exist"
        say(SCHEDULED, False, "WaitingForMembers", exist)
    else:
        say(SCHEDULED, False, SCHEDULING, bound)
    active = count.running + count.succeeded
    if phase == RUNNING or said(RUNNING):
        running = f"{active} of the {needed} members that are needed run or have succeeded"
        say(RUNNING, phase == RUNNING, phase, running)
    if phase in FINAL:
        say(phase, True, phase, f"{count.succeeded} members have succeeded, {count.failed} have failed")
    return conditions


def _rfc3339(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str | None) -> datetime.datetime | None:
    """None for what is no moment: the field may be another's."""
    try:
        moment = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
