"""How the suite is run and read. The suite itself is `make e2e-upstream`: it takes minutes to build and run.

A small script stands in for e2e.test here; what it writes is cut from a report of the real one.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ClusterError, ControlPlane
from tests.e2e.upstream import suite
from tests.e2e.upstream.report import Run, page
from tests.e2e.upstream.suite import FAILED, PASSED, SKIPPED, Spec

ALWAYS = "[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection [Conformance]"
SECOND = (
    "[sig-scheduling] SchedulerPriorities PodTopologySpread Scoring validates pods with a|b (1.5) [Serial]"
)
NEVER = "[sig-scheduling] GangScheduling should schedule pods only when quorum is reached [Beta]"
UNABLE = "[sig-scheduling] Multi-AZ Clusters should spread the pods of a service across zones [Serial]"
FAULT = (
    "[FAILED] Timed out after 120.006s.&#xA;The function passed to Eventually returned the following error:"
)


def case(name: str, status: str, inside: str = "") -> str:
    return f'<testcase name="{name}" status="{status}" time="1.5">{inside}</testcase>'


def document(*cases: str) -> str:
    return f'<?xml version="1.0"?><testsuites><testsuite>{"".join(cases)}</testsuite></testsuites>'


LEFT_OUT = case("[It] [sig-node] Pods should run", "skipped", '<skipped message="skipped"></skipped>')
SET_UP = case("[SynchronizedBeforeSuite]", "passed")
FAILURE = f'<failure message="" type="failed">{FAULT}</failure><system-err>a log</system-err>'


def test_a_report_is_read_to_the_letter() -> None:
    said = '<skipped message="skipped - Zone count is 1, only run for multi-zone clusters"></skipped>'
    cases = (
        case(f"[It] {ALWAYS}", "passed"),
        case(f"[It] {NEVER}", "failed", FAILURE),
        case(f"[It] {UNABLE}", "skipped", said),
        case(f"[It] {SECOND}", "timedout"),
    )
    passed, failed, skipped, late = suite.read_junit(document(SET_UP, *cases, LEFT_OUT))
    assert passed == Spec(ALWAYS, PASSED, 1.5)
    assert (failed.name, failed.result) == (NEVER, FAILED)
    assert failed.why.startswith("[FAILED] Timed out after 120.006s.\nThe function")
    assert (skipped.result, skipped.why.split(",")[0]) == (SKIPPED, "Zone count is 1")
    assert (late.result, late.why) == (FAILED, "timedout")


def test_a_set_up_that_fails_is_a_failure() -> None:
    (spec,) = suite.read_junit(document(case("[SynchronizedBeforeSuite]", "failed", FAILURE), LEFT_OUT))
    assert (spec.name, spec.result) == ("[SynchronizedBeforeSuite]", FAILED)


def test_progress_is_read_from_the_log() -> None:
    assert suite.progress("I1124 e2e.go:109] Starting e2e run\n") == "e2e.test starts"
    log = (
        "Will run 35 of 7291 specs\nSSSSSSS\n------------------------------\n"
        "• [FAILED] [0.176 seconds]\n  [FAILED] failed to create pod\nSSS\n• [4.098 seconds]\n"
        "S [SKIPPED] [0.1 seconds]\n"
    )
    assert suite.progress(log) == "3 of 35 tests, 1 failed"


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    with ControlPlane(controller_manager=False) as plane:
        yield plane


def stand_in(folder: Path, first: str | None, again: str = "") -> Path:
    """A program that writes the report `first` (None: none), or `again` when asked for tests by name."""
    (folder / "first.xml").write_text(first or "")
    (folder / "again.xml").write_text(again)
    program = folder / "e2e.test"
    program.write_text(
        "#!/bin/sh\n"
        "which=first\n"
        'for flag; do case "$flag" in\n'
        "    --report-dir=*) folder=${flag#--report-dir=} ;;\n"
        "    --ginkgo.focus=*'$') which=again ;;\n"
        "    --ginkgo.focus=*) ;;\n"
        "esac; done\n"
        f"[ -s {folder}/$which.xml ] || {{ echo bad flag; exit 2; }}\n"
        f"cp {folder}/$which.xml $folder/junit_01.xml\n"
        "exit 1\n"
    )
    program.chmod(0o755)
    return program


def run(plane: ControlPlane, program: Path, folder: Path, *, retry: bool = True) -> list[Spec]:
    return suite.run(
        plane, program, focus=None, nodes=4, folder=folder, retry=retry, report=lambda line: None
    )


def test_failures_are_run_once_more_and_told_apart(bare: ControlPlane, tmp_path: Path) -> None:
    failing = [case(f"[It] {name}", "failed", FAILURE) for name in (SECOND, NEVER)]
    first = document(SET_UP, case(f"[It] {ALWAYS}", "passed"), *failing, LEFT_OUT)
    again = document(case(f"[It] {SECOND}", "passed"), failing[1])
    program = stand_in(tmp_path, first, again)
    never, always, second = run(bare, program, tmp_path / "logs")
    assert (always.result, always.retried) == (PASSED, False)
    assert (second.result, second.retried) == (PASSED, True)
    assert (never.result, never.retried) == (FAILED, True)
    whole = Run("wholepod", "2026-11-24, commit abc", [never, always, second])
    assert not whole.all_passed
    assert whole.summary == "2 of 3 passed, 1 of them at the second attempt"
    text = page("", [whole])
    assert "(1.5) \\[Serial\\] | passed at the second attempt | 2 |" in text
    assert "quorum is reached \\[Beta\\] | failed at the second attempt | 2 |" in text
    assert text.count("`Timed out after 120.006s.`") == 2
    once = run(bare, program, tmp_path / "other-logs", retry=False)
    assert [(spec.result, spec.retried) for spec in once] == [
        (FAILED, False),
        (PASSED, False),
        (FAILED, False),
    ]


def test_a_page_keeps_the_runs_with_other_schedulers() -> None:
    ours = Run("wholepod", "2026-11-24, commit abc", [Spec(ALWAYS, FAILED, 1.0, "[FAILED] no")])
    theirs = Run("kube-scheduler", "2026-11-24, commit abc", [Spec(ALWAYS, PASSED, 2.0)])
    better = page(
        page(page("", [ours]), [theirs]),
        [Run("wholepod", "2026-11-24, commit abc", [Spec(ALWAYS, PASSED, 3.0)])],
    )
    assert [line for line in better.splitlines() if line.startswith("## ")] == [
        "## wholepod: 1 of 1 passed",
        "## kube-scheduler: 1 of 1 passed",
    ]
    assert "| passed | 2 |" in better


def test_a_test_that_skips_itself_has_not_passed() -> None:
    assert not Run("wholepod", "", [Spec(UNABLE, SKIPPED, 0.1, "Zone count is 1")]).all_passed


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, r"e2e\.test ended without a report\n.*\n  bad flag"),
        (document(SET_UP, LEFT_OUT), "no test was run: no test matches"),
        (
            document(case("[SynchronizedBeforeSuite]", "failed", FAILURE), LEFT_OUT),
            r"no test was run: \[FAILED\] Timed out",
        ),
    ],
)
def test_a_run_without_results_is_an_error(
    bare: ControlPlane, tmp_path: Path, report: str | None, message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        run(bare, stand_in(tmp_path, report), tmp_path / "logs")
    assert "e2e.test" not in bare.pids()
