"""Which group a workload gets, or why none."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.controller.wanted import CantBeGroup, WantedGroup, wanted_group
from scheduler.controller.workloads import workload

LABEL = "scheduling.x-k8s.io/pod-group"
CREATE = {"wholepod.io/create-pod-group": "true"}

Json = dict[str, Any]


def template(label: str | None = "g") -> Json:
    return {"metadata": {"labels": {LABEL: label} if label else {}}, "spec": {"schedulerName": "wholepod"}}


def metadata(**annotations: str) -> Json:
    options = {f"wholepod.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"name": "w", "namespace": "default", "uid": "u", "annotations": {**CREATE, **options}}


def job(*, label: str | None = "g", annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    return {"metadata": metadata(**(annotations or {})), "spec": {"template": template(label), **spec}}


def part(label: str | None, *, replicas: int | None = None, **more: Any) -> Json:
    spec = {"template": template(label)}
    for field in ("parallelism", "completions"):
        if field in more:
            spec[field] = more.pop(field)
    found = {"name": f"of-{label}", "template": {"spec": spec}, **more}
    return found if replicas is None else {**found, "replicas": replicas}


def job_set(*parts: Json, **spec: Any) -> Json:
    return {"metadata": metadata(), "spec": {"replicatedJobs": list(parts), **spec}}


def members(kind: str, manifest: Json) -> int | None:
    wanted = wanted_group(workload(kind, manifest))
    return None if wanted is None else wanted.min_member


def reason(kind: str, manifest: Json) -> tuple[str, str]:
    with pytest.raises(CantBeGroup) as refusal:
        wanted_group(workload(kind, manifest))
    return refusal.value.reason, str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, 1),
        ({"parallelism": 4}, 4),
        ({"parallelism": 4, "completions": 9}, 4),
        ({"parallelism": 4, "completions": 3}, 3),
        ({"parallelism": 0}, None),
        ({"parallelism": 4, "completions": None}, 4),
    ],
)
def test_members_of_a_job(spec: Json, expected: int | None) -> None:
    assert members("Job", job(**spec)) == expected


@pytest.mark.parametrize("condition", ["Complete", "Failed"])
def test_a_job_that_has_ended_gets_none(condition: str) -> None:
    ended = job(parallelism=2)
    ended["status"] = {"conditions": [{"type": condition, "status": "True"}]}
    assert members("Job", ended) is None
    ended["status"]["conditions"][0]["status"] = "False"
    assert members("Job", ended) == 2


@pytest.mark.parametrize(("replicas", "expected"), [(None, 1), (3, 3), (0, None)])
def test_members_of_a_stateful_set(replicas: int | None, expected: int | None) -> None:
    spec = {"template": template(), "replicas": replicas, "podManagementPolicy": "Parallel"}
    assert members("StatefulSet", {"metadata": metadata(), "spec": spec}) == expected


def test_a_stateful_set_in_order() -> None:
    spec = {"template": template(), "replicas": 2}
    kind, text = reason("StatefulSet", {"metadata": metadata(), "spec": spec})
    assert kind == "PodsOneByOne"
    assert "spec.podManagementPolicy is OrderedReady: set it to Parallel" in text
    assert members("StatefulSet", {"metadata": metadata(), "spec": {**spec, "replicas": 1}}) == 1
    assert members("StatefulSet", {"metadata": metadata(min_count="1"), "spec": spec}) == 1


def test_members_of_a_job_set() -> None:
    parts = (part("g", replicas=2, parallelism=3, completions=2), part("g"), part(None, replicas=7))
    assert members("JobSet", job_set(*parts)) == 5


def test_job_sets_that_wait_for_their_own() -> None:
    two = (part("g"), part("g"))
    in_order = {"startupPolicy": {"startupPolicyOrder": "InOrder"}}
    assert "set it to AnyOrder" in reason("JobSet", job_set(*two, **in_order))[1]
    assert members("JobSet", job_set(part("g", parallelism=2), part(None), **in_order)) == 2
    depends = [{"name": "of-g", "status": "Ready"}]
    assert "dependsOn" in reason("JobSet", job_set(part("g"), part("g", dependsOn=depends)))[1]
    assert members("JobSet", job_set(part("g", parallelism=2), part(None, dependsOn=depends))) == 2


def test_labels() -> None:
    assert reason("Job", job(label=None))[0] == "PodGroupLabelMissing"
    kind, text = reason("JobSet", job_set(part("one"), part("other")))
    assert kind == "PodGroupLabelsDiffer"
    assert "says one, other: use one name" in text


def test_min_count() -> None:
    assert members("Job", job(parallelism=4, annotations={"min_count": "3"})) == 3
    kind, text = reason("Job", job(parallelism=4, completions=2, annotations={"min_count": "3"}))
    assert kind == "MinCountTooLarge"
    assert "is 3, but only 2 pods run at a time (spec.completions)" in text
    assert reason("Job", job(annotations={"min_count": "all"}))[0] == "MinCountInvalid"


def test_who_does_not_ask_gets_none() -> None:
    silent = job(parallelism=2)
    silent["metadata"]["annotations"] = {"wholepod.io/create-pod-group": "false"}
    assert members("Job", silent) is None


def test_what_is_created_and_changed() -> None:
    owner = workload("Job", job(parallelism=2, annotations={"strategy": "hoarding", "min_count": "2"}))
    wanted = wanted_group(owner)
    assert wanted == WantedGroup("g", 2, {"wholepod.io/strategy": "hoarding"})
    manifest = wanted.manifest(owner)
    assert manifest["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "w", "uid": "u", "controller": True}
    ]
