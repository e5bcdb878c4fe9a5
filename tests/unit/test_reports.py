"""What a pod's owner is told, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.engine import Decision, Verdict
from scheduler.kube.payloads import Condition, StatusPatch
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
    assert patch == StatusPatch(
        "default",
        "a",
        "uid-of-default/a",
        Condition("PodScheduled", "False", reason, TEXT, generation=0, transitioned=True),
    )


def test_a_refused_bind() -> None:
    reports = Reports()
    reports.bind_refused(decision(), "no")
    assert reports.writer.notes == ["binding rejected: no"]
    [patch] = reports.writer.patches
    assert patch.condition is not None
    assert patch.condition.reason == "SchedulerError"


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
    conditions = [patch.condition for patch in reports.writer.patches]
    assert [condition and condition.transitioned for condition in conditions] == [transitioned] * patched


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


# ---- nominations


def nominating(pod: PodBuilder, node: str | None, message: str = TEXT) -> Decision:
    info = pod.info()
    return Decision(info, Verdict.UNSCHEDULABLE, None, message, 1, 0.0, nominated_node=node)


@pytest.mark.parametrize(
    ("shown", "wanted", "written"),
    [
        (None, None, None),
        (None, "n", "n"),
        (None, "", None),
        ("n", None, None),
        ("n", "n", None),
        ("n", "m", "m"),
        ("n", "", ""),
    ],
)
@pytest.mark.parametrize("said", [True, False])
def test_a_nomination_is_written_when_it_changes(
    shown: str | None, wanted: str | None, written: str | None, said: bool
) -> None:
    reports = Reports()
    status: dict[str, Any] = {"nominatedNodeName": shown} if shown else {}
    pod = make_pod().status(conditions=[condition()] if said else [], **status)
    then: list[str] = []
    reports.undecided(nominating(pod, wanted), lambda: then.append("then"))
    assert then == ["then"]
    patches = reports.writer.patches
    assert [(patch.condition is None, patch.nominated_node) for patch in patches] == (
        [(said, written)] if written is not None or not said else []
    )


def test_a_nomination_names_the_version_that_was_judged() -> None:
    reports = Reports()
    pod = make_pod().status(conditions=[condition()])
    info = pod.info()
    info.pod.metadata.resource_version = "41"
    reports.undecided(Decision(info, Verdict.UNSCHEDULABLE, None, TEXT, 1, 0.0, nominated_node="n"))
    info.pod.status.nominated_node_name = "n"
    reports.undecided(Decision(info, Verdict.UNSCHEDULABLE, None, TEXT, 1, 0.0, nominated_node=""))
    nominated, cleared = reports.writer.patches
    assert (nominated.nominated_node, nominated.resource_version) == ("n", "41")
    assert (cleared.nominated_node, cleared.resource_version) == ("", "")


def test_a_nomination_is_cleared_before_the_watch_has_shown_it() -> None:
    reports = Reports()
    pod = make_pod().status(conditions=[condition()])
    reports.undecided(nominating(pod, "n"))
    reports.undecided(nominating(pod, ""))
    reports.undecided(nominating(pod, ""))
    assert [patch.nominated_node for patch in reports.writer.patches] == ["n", ""]


def test_a_bind_that_was_refused_leaves_no_nomination() -> None:
    reports = Reports()
    reports.bind_refused(decision(make_pod().status(nominatedNodeName="n")), "no")
    [patch] = reports.writer.patches
    assert patch.nominated_node == ""


def test_nominations_of_pods_that_are_bound_or_gone_are_forgotten() -> None:
    reports = Reports()
    for name in ("bound", "gone", "gap", "stays"):
        reports.undecided(nominating(make_pod(name), "n"))
    reports.scheduled(decision(make_pod("bound"), Verdict.PLACED, ""), "n")
    reports.forget("uid-of-default/gone")
    reports.forget_all_but(lambda uid: uid == "uid-of-default/stays")
    assert list(reports._nominated) == ["uid-of-default/stays"]


@pytest.mark.parametrize("verdict", [Verdict.WAITING, Verdict.TENTATIVE])
def test_members_that_wait_for_others_ask_for_no_nodes(verdict: Verdict) -> None:
    """Autoscalers add nodes for pods that are `Unschedulable`."""
    reports = Reports()
    reports.undecided(decision(make_pod("a"), verdict, "gang default/g has 1 of the 2 members that it needs"))
    [event], [patch] = reports.writer.events, reports.writer.patches
    assert (event.type, event.reason, event.action) == ("Normal", "WaitingForGang", "Scheduling")
    assert patch.condition is not None
    assert (patch.condition.status, patch.condition.reason) == ("False", "WaitingForGang")
