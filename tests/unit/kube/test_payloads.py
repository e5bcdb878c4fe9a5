import datetime
import json

import pytest
from msgspec.structs import replace

from scheduler.kube.payloads import (
    BindRequest,
    Condition,
    DeleteRequest,
    PodEvent,
    PodReference,
    StatusPatch,
    micro_time,
    truncated,
)

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)


def event(**changes: str) -> PodEvent:
    fields = {
        "namespace": "ns",
        "name": "web-0",
        "uid": "u-1",
        "type": "Normal",
        "reason": "Scheduled",
        "action": "Binding",
        "note": "Successfully assigned ns/web-0 to n1",
        "scheduler_name": "wholepod",
    }
    return PodEvent(**(fields | changes))  # type: ignore[arg-type]


def test_binding() -> None:
    request = BindRequest("ns", "web-0", "u-1", "n1")
    assert request.path == "/api/v1/namespaces/ns/pods/web-0"
    assert json.loads(request.body()) == {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": "ns", "name": "web-0", "uid": "u-1"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    }


def test_binding_with_annotations() -> None:
    body = json.loads(BindRequest("ns", "web-0", "u-1", "n1", {"wholepod.io/txn": "7"}).body())
    assert body["metadata"]["annotations"] == {"wholepod.io/txn": "7"}


def test_binding_of_one_version() -> None:
    body = json.loads(BindRequest("ns", "web-0", "u-1", "n1", None, "7").body())
    assert body["metadata"] == {"namespace": "ns", "name": "web-0", "uid": "u-1", "resourceVersion": "7"}


def test_condition_patch_guards_the_uid_and_stamps_transitions_only() -> None:
    condition = Condition("PodScheduled", "False", "Unschedulable", "0/1 nodes", 3, transitioned=True)
    patch = StatusPatch("ns", "web-0", "u-1", condition)
    assert patch.path == "/api/v1/namespaces/ns/pods/web-0/status"
    assert json.loads(patch.body(NOW)) == {
        "metadata": {"uid": "u-1"},
        "status": {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes",
                    "observedGeneration": 3,
                    "lastTransitionTime": "2026-03-04T05:06:07Z",
                }
            ]
        },
    }
    again = StatusPatch("ns", "web-0", "u-1", replace(condition, transitioned=False))
    assert "lastTransitionTime" not in json.loads(again.body(NOW))["status"]["conditions"][0]


@pytest.mark.parametrize(("node", "written"), [("n1", "n1"), ("", None)])
def test_a_nomination_is_for_one_version_of_the_pod(node: str, written: str | None) -> None:
    patch = StatusPatch("ns", "web-0", "u-1", nominated_node=node, resource_version="7")
    assert json.loads(patch.body(NOW)) == {
        "metadata": {"uid": "u-1", "resourceVersion": "7"},
        "status": {"nominatedNodeName": written},
    }


def test_a_newer_patch_keeps_what_it_is_silent_about() -> None:
    pod = ("ns", "web-0", "u-1")
    condition = Condition("PodScheduled", "False", "Unschedulable", "0/1 nodes", 3, transitioned=True)
    told, nominated = StatusPatch(*pod, condition), StatusPatch(*pod, None, "n1", "7")
    both = StatusPatch(*pod, condition, "n1", "7")
    assert told.over(nominated) == nominated.over(told) == both
    cleared, newer = StatusPatch(*pod, None, ""), replace(both, condition=replace(condition, message="new"))
    assert cleared.over(both) == StatusPatch(*pod, condition, "")
    assert newer.over(both) == newer


def test_deletion_guards_the_uid() -> None:
    request = DeleteRequest("ns", "web-0", "u-1")
    assert request.path == "/api/v1/namespaces/ns/pods/web-0"
    assert json.loads(request.body()) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u-1"},
    }


def test_event_has_kube_schedulers_fields() -> None:
    written = json.loads(event().body(NOW, "host"))
    name = written["metadata"].pop("name")
    assert written == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "ns"},
        "eventTime": "2026-03-04T05:06:07.000000Z",
        "reportingController": "wholepod",
        "reportingInstance": "wholepod-host",
        "type": "Normal",
        "reason": "Scheduled",
        "action": "Binding",
        "regarding": {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": "ns",
            "name": "web-0",
            "uid": "u-1",
        },
        "note": "Successfully assigned ns/web-0 to n1",
    }
    pod, _, digits = name.rpartition(".")
    assert pod == "web-0"
    assert len(digits) == 16
    assert int(digits, 16) >= 0


def test_an_event_may_name_another_pod() -> None:
    related = PodReference("ns", "urgent", "u-9", "41")
    written = json.loads(replace(event(), related=related).body(NOW, "host"))
    assert written["related"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": "ns",
        "name": "urgent",
        "uid": "u-9",
        "resourceVersion": "41",
    }


def test_event_name_says_what_happened_to_whom() -> None:
    assert event().event_name == event().event_name
    assert event().event_name == event(resource_version="9").event_name
    others = [event(uid="u-2"), event(reason="FailedScheduling"), event(note="to n2")]
    assert len({event().event_name, *(other.event_name for other in others)}) == 4


@pytest.mark.parametrize("pod", ["a" * 253, "a" * 235 + ".bcdefghijklmnopqr"])
def test_event_name_stays_a_valid_name(pod: str) -> None:
    name = event(name=pod).event_name
    assert len(name) <= 253
    assert ".." not in name
    assert name.startswith("a" * 235)


def test_reporting_instance_is_limited() -> None:
    assert len(json.loads(event().body(NOW, "h" * 300))["reportingInstance"]) == 128


@pytest.mark.parametrize(
    ("note", "length", "end"),
    [("x" * 1024, 1024, "x"), ("x" * 1025, 1024, "x ..."), ("é" * 600, 1024, "é ...")],
)
def test_notes_are_cut_by_bytes(note: str, length: int, end: str) -> None:
    cut = truncated(note)
    assert len(cut.encode()) == length
    assert cut.endswith(end)


def test_a_character_is_not_cut_in_half() -> None:
    cut = truncated("x" + "é" * 600)
    assert cut.endswith("é ...")
    assert len(cut.encode()) == 1023


def test_micro_time_is_utc_with_six_digits() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=-5))
    assert micro_time(datetime.datetime(2026, 1, 1, 0, 0, tzinfo=zone)) == "2026-01-01T05:00:00.000000Z"
    assert micro_time(NOW.replace(microsecond=7)).endswith(":07.000007Z")
