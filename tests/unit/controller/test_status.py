"""Phases, counts and conditions of a PodGroup, as a function of its members."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.controller.members import Count
from scheduler.controller.shapes import GroupObject, GroupStatus
from scheduler.controller.status import FINAL, outlook, takes_back

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def group(needed: int, *, timeout_s: int | None = None, **status: Any) -> GroupObject:
    spec = {"minMember": needed}
    if timeout_s is not None:
        spec["scheduleTimeoutSeconds"] = timeout_s
    metadata = {"name": "g", "namespace": "default", "generation": 4}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": status}, GroupObject)


def after(before: GroupObject, status: GroupStatus) -> GroupObject:
    return msgspec.structs.replace(before, status=status)


def conditions(status: GroupStatus) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in status.conditions or ()}


counts = st.builds(
    lambda bound, waiting, running, succeeded, failed: Count(
        exist=bound + waiting + running + succeeded + failed,
        scheduled=bound + running + succeeded + failed,
        running=running,
        succeeded=succeeded,
        failed=failed,
    ),
    *[st.integers(0, 3)] * 5,
)


def upstreams(phase: str, count: Count, needed: int) -> str:
    """One step of the scheduler-plugins project's controller."""
    match phase:
        case "Finished" | "Failed":
            return phase
        case "":
            return "Pending"
        case "Pending":
            return "Scheduling" if count.exist >= needed else "Pending"
    if count.exist < needed:
        return "Pending"
    phase = "Running" if count.succeeded + count.running >= needed else "Scheduling"
    if count.failed and count.failed + count.running + count.succeeded >= needed:
        phase = "Failed"
    return "Finished" if count.succeeded >= needed else phase


@given(st.sampled_from(["", "Pending", "Scheduling", "Running", *FINAL]), counts, st.integers(1, 6))
def test_the_phase_is_where_scheduler_plugins_ends(phase: str, count: Count, needed: int) -> None:
    expected = phase
    for _ in range(4):
        expected = upstreams(expected, count, needed)
    assert outlook(group(needed, phase=phase), count, NOW).status.phase == expected


@given(counts, counts, st.integers(1, 6), st.sampled_from([None, 5]))
def test_a_second_look_changes_nothing(one: Count, other: Count, needed: int, timeout_s: int | None) -> None:
    first = group(needed, timeout_s=timeout_s)
    second = after(first, outlook(first, one, NOW).status)
    status = outlook(second, other, NOW).status
    later = NOW + datetime.timedelta(seconds=1)
    assert outlook(after(second, status), other, later).status == status


def test_times_of_conditions_change_with_their_status_alone() -> None:
    later = NOW + datetime.timedelta(minutes=1)
    before = after(g := group(2), outlook(g, Count(exist=1), NOW).status)
    status = outlook(before, Count(exist=2), later).status
    [scheduled] = status.conditions or []
    assert scheduled["reason"] == "Scheduling"
    assert scheduled["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    status = outlook(after(before, status), Count(exist=2, scheduled=2), later).status
    [scheduled] = status.conditions or []
    assert scheduled == {
        "type": "Scheduled",
        "status": "True",
        "reason": "Scheduled",
        "message": "2 of the 2 members that are needed are bound",
        "observedGeneration": 4,
        "lastTransitionTime": "2026-01-02T03:05:05Z",
    }


def test_conditions_tell_the_history() -> None:
    g = group(1)
    for count in (
        Count(),
        Count(exist=1),
        Count(exist=1, scheduled=1),
        Count(exist=1, scheduled=1, running=1),
        Count(exist=1, scheduled=1, failed=1),
    ):
        g = after(g, outlook(g, count, NOW).status)
    assert conditions(g.status) == {
        "Scheduled": ("True", "Scheduled"),
        "Running": ("False", "Failed"),
        "Failed": ("True", "Failed"),
    }


def test_anothers_condition_stays() -> None:
    theirs = {"type": "Theirs", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "t"}
    status = outlook(group(1, conditions=[theirs]), Count(), NOW).status
    assert (status.conditions or [])[0] == theirs
    assert len(status.conditions or ()) == 2


def test_a_timeout() -> None:
    g = group(2, timeout_s=60)
    assert outlook(g, Count(exist=1), NOW).look_again_s is None, "the time counts from the last member"
    first = outlook(g, Count(exist=2), NOW)
    assert first.look_again_s == 60
    g = after(g, first.status)
    assert outlook(g, Count(exist=2, scheduled=1), NOW + datetime.timedelta(seconds=40)).look_again_s == 20
    late = outlook(g, Count(exist=2, scheduled=1), NOW + datetime.timedelta(seconds=60))
    assert late.look_again_s is None
    assert late.timed_out.startswith("1 of the 2 members that are needed are bound, 60 s ")
    assert conditions(late.status)["Scheduled"] == ("False", "ScheduleTimeout")
    in_time = outlook(g, Count(exist=2, scheduled=2), NOW + datetime.timedelta(seconds=90))
    assert (in_time.timed_out, in_time.look_again_s) == ("", None)


@pytest.mark.parametrize("written", ["soon", "2026-01-02T03:04:05", ""])
def test_a_start_that_is_no_moment_counts_as_none(written: str) -> None:
    status = outlook(group(1, timeout_s=5, scheduleStartTime=written), Count(exist=1), NOW).status
    assert status.schedule_start_time == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("timeout_s", [None, 0, -5])
def test_no_timeout(timeout_s: int | None) -> None:
    much_later = NOW + datetime.timedelta(days=9)
    g = group(1, timeout_s=timeout_s, scheduleStartTime="2026-01-02T03:04:05Z")
    assert outlook(g, Count(exist=1), much_later)[1:] == ("", None)


@given(counts, counts, st.integers(1, 6))
def test_what_goes_on_takes_nothing_back_and_what_is_lost_does(one: Count, more: Count, needed: int) -> None:
    fields = ("exist", "scheduled", "running", "succeeded", "failed")
    other = Count(**{field: getattr(one, field) + getattr(more, field) for field in fields})
    before, now = (outlook(group(needed), count, NOW).status for count in (one, other))
    assert not takes_back(before, now)
    if one.scheduled < other.scheduled:
        assert takes_back(now, before)


def test_members_that_go_end_the_wait() -> None:
    g = group(1, timeout_s=60)
    g = after(g, outlook(g, Count(exist=1, occupied_by="default/job"), NOW).status)
    assert g.status.occupied_by == "default/job"
    status = outlook(g, Count(), NOW).status
    assert (status.phase, status.schedule_start_time) == ("Pending", None)
    assert status.occupied_by == "default/job", "as scheduler-plugins has it"
