"""What a pod's owner is told, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.engine import Decision, Verdict
from scheduler.kube.reports import RENEW_EVENT_S, PodReports
from tests.builders import Clock, PodBuilder, make_pod
from tests.unit.recorder import Recorder

TEXT = "0/1 nodes are available: 1 Too many pods."


def decision(
    pod: PodBuilder | None = None, verdict: Verdict = Verdict.UNSCHEDULABLE, message: str = TEXT
) -> Decision:
    return Decision((pod or make_pod()).info(), verdict, None, message, attempts=1, waited_s=0.0)


def condition(status: str = "False", reason: str = "Unschedulable", message: str = TEXT) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": status, "reason": reason, "message": message}


class Reports(PodReports):
    def __init__(self) -> None:
        self.writer, self.clock = Recorder(), Clock()
        super().__init__(self.writer.as_writer, clock=self.clock)

    @property
    def written(self) -> tuple[int, int]:
        """(events, patches)."""
        return len(self.writer.events), len(self.writer.patches)


def test_scheduled() -> None:
    reports = Reports()
    reports.scheduled(decision(make_pod("a").scheduler("mine"), Verdict.PLACED, ""), "n")
    [event] = reports.writer.events
    assert (event.type, event.reason, event.action) == ("Normal", "Scheduled", "Binding")
    assert (event.note, event.scheduler_name) == ("Successfully assigned default/a to n", "mine")
    assert reports.writer.patches == []


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Verdict.UNSCHEDULABLE, "Unschedulable"), (Verdict.ERROR, "SchedulerError")]
)
def test_undecided(verdict: Verdict, reason: str) -> None:
    reports = Reports()
    reports.undecided(decision(make_pod("a"), verdict))
    [event], [patch] = reports.writer.events, reports.writer.patches
    assert (event.type, event.reason, event.action) == ("Warning", "FailedScheduling", "Scheduling")
    assert (event.note, event.uid) == (TEXT, "uid-of-default/a")
    assert (patch.reason, patch.message, patch.uid) == (reason, TEXT, "uid-of-default/a")
    assert patch.transitioned


def test_a_refused_bind() -> None:
    reports = Reports()
    reports.bind_refused(decision(), "no")
    assert reports.writer.notes == ["binding rejected: no"]
    assert reports.writer.patches[0].reason == "SchedulerError"


def test_terminating_pods_get_no_condition() -> None:
    reports = Reports()
    reports.undecided(decision(verdict=Verdict.TERMINATING, message="skip"))
    assert (reports.written, reports.writer.notes) == ((1, 0), ["skip"])


@pytest.mark.parametrize(
    ("current", "patched", "transitioned"),
    [
        (None, True, True),
        (condition("True", ""), True, True),
        (condition(message="something else"), True, False),
        (condition(reason="SchedulerError"), True, False),
        (condition(reason="SchedulingGated"), True, False),
        (condition(), False, None),
    ],
)
def test_what_the_condition_says_already_is_not_written_again(
    current: dict[str, Any] | None, patched: bool, transitioned: bool | None
) -> None:
    reports = Reports()
    pod = make_pod().status(
        conditions=[{"type": "Ready", "status": "False"}, *([current] if current else [])]
    )
    reports.undecided(decision(pod))
    assert reports.written == (1, int(patched))
    assert [patch.transitioned for patch in reports.writer.patches] == [transitioned] * patched


def test_the_event_is_renewed_before_it_expires() -> None:
    reports = Reports()
    told = decision(make_pod().status(conditions=[condition()]))
    for _ in range(5):
        reports.undecided(told)
        reports.clock.advance(10)
    assert reports.written == (1, 0)
    reports.clock.advance(RENEW_EVENT_S)
    reports.undecided(told)
    assert reports.written == (2, 0)


def test_a_new_reason_is_told_at_once() -> None:
    reports = Reports()
    pod = make_pod().status(conditions=[condition()])
    reports.undecided(decision(pod))
    reports.undecided(decision(pod, message="0/2 nodes are available: 2 Too many pods."))
    assert reports.written == (2, 1)


def test_a_pod_that_is_gone_is_forgotten() -> None:
    reports = Reports()
    for i in range(10):
        reports.undecided(decision(make_pod(f"p{i}")))
    reports.forget("uid-of-default/p0")
    reports.forget("never known")
    assert len(reports._event_at) == 9
    reports.forget_all_but(lambda uid: uid == "uid-of-default/p5")
    assert list(reports._event_at) == ["uid-of-default/p5"]
