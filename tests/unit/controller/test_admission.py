"""What is refused and what is warned of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scheduler.controller.admission import KNOWN, Judge, Verdict
from scheduler.core.gangs.gang import GangPolicy, Strategy

Json = dict[str, Any]

ROOT = Path(__file__).parents[3] / "scheduler"
LABEL = "scheduling.x-k8s.io/pod-group"
NARROW = GangPolicy(profile="narrow", strategies=(Strategy.ATOMIC,), max_hold_timeout_s=60)
WIDE = GangPolicy(profile="wide")
JUDGE = Judge({"narrow": NARROW, "wide": WIDE})


def group(**annotations: str) -> Json:
    options = {f"wholepod.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"metadata": {"name": "g", "namespace": "default", "annotations": options}, "spec": {}}


def pod(scheduler: str = "narrow", *, labels: Json | None = None, **annotations: str) -> Json:
    made = group(**annotations)
    made["metadata"]["labels"] = labels or {}
    made["spec"] = {"schedulerName": scheduler, "containers": [{"name": "main"}]}
    return made


def job(template: Json, *, pods: int = 2, **annotations: str) -> Json:
    made = group(**annotations)
    made["spec"] = {"parallelism": pods, "completions": pods, "template": template}
    return made


def test_a_group_may_have_what_any_profile_allows() -> None:
    assert JUDGE.judge("PodGroup", group(strategy="optimistic")) == Verdict()
    [fault] = Judge({"narrow": NARROW}).judge("PodGroup", group(strategy="optimistic")).faults
    assert "gangs.strategies of profile narrow allows" in fault
    assert len(JUDGE.judge("PodGroup", group(strategy="eager")).faults) == 1


def test_a_hold_timeout_that_is_cut() -> None:
    assert JUDGE.judge("PodGroup", group(hold_timeout="5m")) == Verdict()
    verdict = JUDGE.judge("Pod", pod(gang="g", min_count="2", hold_timeout="5m"))
    assert verdict.warnings == [
        "annotation wholepod.io/hold-timeout is cut to 60s, gangs.maxHoldTimeout of profile narrow"
    ]
    assert verdict.faults == []


def test_a_pod_is_judged_by_its_own_profile() -> None:
    for profile, faults in (("wide", 0), ("narrow", 1)):
        verdict = JUDGE.judge("Pod", pod(profile, gang="g", min_count="2", strategy="optimistic"))
        assert len(verdict.faults) == faults
    assert JUDGE.judge("Pod", pod("another", gang="g", min_count="many")) == Verdict()


@pytest.mark.parametrize("min_count", ["0", "-1", "two", ""])
def test_a_min_count_that_is_no_number(min_count: str) -> None:
    [fault] = JUDGE.judge("Pod", pod(gang="g", min_count=min_count)).faults
    assert fault.startswith("annotation wholepod.io/min-count of a pod with wholepod.io/gang must be")


def test_options_where_nobody_reads_them() -> None:
    verdict = JUDGE.judge("Pod", pod(labels={LABEL: "g"}, strategy="nonsense"))
    assert verdict.faults == []
    [warning] = verdict.warnings
    assert warning.endswith("wholepod.io/strategy are not read: write options on the PodGroup g")


def test_a_misspelt_annotation() -> None:
    [warning] = JUDGE.judge("PodGroup", group(startegy="hoarding")).warnings
    assert warning == (
        "annotation wholepod.io/startegy is none of Wholepod's; did you mean wholepod.io/strategy?"
    )
    [warning] = JUDGE.judge("Pod", pod(zzz="")).warnings
    assert "known are wholepod.io/conflict-mode, " in warning


def test_all_annotations_are_known() -> None:
    """Those in lower case; the others are reasons and types of conditions."""
    texts = [path.read_text() for path in ROOT.rglob("*.py")]
    written = {key for text in texts for key in re.findall(r'"(wholepod\.io/[a-z][a-z-]+)"', text)}
    assert written == set(KNOWN)


def test_an_update_is_refused_for_what_it_makes_wrong() -> None:
    wrong, right = group(strategy="eager"), group()
    assert len(JUDGE.judge("PodGroup", wrong, right).faults) == 1
    assert JUDGE.judge("PodGroup", right, wrong) == Verdict()
    assert JUDGE.judge("PodGroup", wrong, wrong).faults == []
    worse = group(strategy="eager", hold_timeout="soon")
    assert JUDGE.judge("PodGroup", worse, wrong).faults == [], (
        "strategy is complained of first, and was wrong"
    )
    wrong["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert JUDGE.judge("PodGroup", wrong, right).faults == []


def test_a_job_with_a_gang_of_annotations() -> None:
    template = pod(gang="g", min_count="3")
    verdict = JUDGE.judge("Job", job(template))
    assert verdict.faults == []
    [warning] = verdict.warnings
    assert warning.startswith("spec.template: wholepod.io/min-count is 3, but only 2 pods run at a time")
    assert JUDGE.judge("Job", job(template, pods=3)) == Verdict()
    assert JUDGE.judge("Job", job(template, pods=0)) == Verdict()
    [fault] = JUDGE.judge("Job", job(pod(gang="g", min_count="x"))).faults
    assert fault.startswith("spec.template: annotation wholepod.io/min-count")


def test_a_job_that_asks_for_a_group() -> None:
    labelled = pod(labels={LABEL: "g"})
    assert JUDGE.judge("Job", job(labelled, create_pod_group="true", min_count="2")) == Verdict()
    assert len(JUDGE.judge("Job", job(pod(), create_pod_group="true")).faults) == 1
    assert len(JUDGE.judge("Job", job(labelled, create_pod_group="true", min_count="3")).faults) == 1
    assert len(JUDGE.judge("Job", job(labelled, create_pod_group="true", strategy="eager")).faults) == 1
    assert JUDGE.judge("Job", job(pod("another"), create_pod_group="true")) == Verdict()


@pytest.mark.parametrize(
    "manifest",
    [{}, {"metadata": None}, {"metadata": {"annotations": ["x"]}}, {"spec": {"template": 7}}, {"spec": []}],
)
@pytest.mark.parametrize("kind", ["Pod", "PodGroup", "Job", "JobSet", "StatefulSet"])
def test_what_is_no_such_object_is_left_to_the_api_server(kind: str, manifest: Json) -> None:
    assert JUDGE.judge(kind, manifest).faults == []
