"""The test program: built once, run with a focus, its JUnit report read, failures run once more.

A failure is run again because kwok is no kubelet: it can miss a pod that is deleted and made anew under
the same name, which then never runs. What passes only then is told apart from what passed at once.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from tests.cluster import ControlPlane
from tests.cluster.assets import Pin, Report
from tests.cluster.errors import ClusterError
from tests.cluster.sources import find_pinned

PROGRAM = Pin(
    "e2e.test",
    Path(__file__).with_name("e2e-test"),
    "k8s.io/kubernetes",
    "k8s.io/kubernetes/test/e2e",
    is_test=True,
)
ALL = r"\[sig-scheduling\]"
SKIP = "DynamicResource|GPU"
"""Devices need a driver on the node."""
REPORT_INTERVAL_S = 2.0

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Spec:
    """One test's outcome."""

    name: str
    result: str
    """PASSED, FAILED or SKIPPED: by the test itself, which then says why."""
    seconds: float
    why: str = ""
    """What a test that did not pass says, in full."""
    first: "Spec | None" = None
    """The failed first attempt, if this is the second."""

    @property
    def retried(self) -> bool:
        return self.first is not None


def program(report: Report) -> Path:
    """The path of e2e.test, built if it is nowhere: some minutes, once. Raises ClusterError."""
    return find_pinned([PROGRAM], report=report)[PROGRAM.name].path


def run(
    plane: ControlPlane,
    e2e_test: Path,
    *,
    focus: str | None,
    nodes: int,
    folder: Path,
    retry: bool,
    report: Report,
) -> list[Spec]:
    """Run all tests, or those whose names match `focus` as well, and those that fail once more; by name.

    Logs and JUnit reports are kept in `folder`. Raises ClusterError when the program does not get as far
    as a report, or no test matches.
    """
    wanted = ALL if focus is None else f"{ALL}.*(?:{focus})"
    specs = {spec.name: spec for spec in _attempt(plane, e2e_test, wanted, nodes, folder / "first", report)}
    failed = [spec.name for spec in specs.values() if spec.result == FAILED]
    if retry and failed:
        again = _attempt(plane, e2e_test, exactly(failed), nodes, folder / "again", report)
        specs |= {spec.name: merged(specs.get(spec.name), spec) for spec in again}
    return sorted(specs.values(), key=lambda spec: spec.name)


def exactly(names: Iterable[str]) -> str:
    """A focus that matches just these tests."""
    return "|".join(f"{re.escape(name)}$" for name in names)


def merged(first: Spec | None, second: Spec) -> Spec:
    """The second attempt, with the first."""
    return Spec(second.name, second.result, second.seconds, second.why, first)


def _attempt(
    plane: ControlPlane, e2e_test: Path, focus: str, nodes: int, folder: Path, report: Report
) -> list[Spec]:
    folder.mkdir(parents=True)
    log, junit = folder / "e2e.log", folder / "junit_01.xml"
    started = monotonic()
    test = plane.start_beside(
        PROGRAM.name,
        [
            str(e2e_test),
            f"--kubeconfig={plane.kubeconfig}",
            "--provider=skeleton",
            f"--ginkgo.focus={focus}",
            f"--ginkgo.skip={SKIP}",
            f"--report-dir={folder}",
            "--ginkgo.timeout=24h",
            "--ginkgo.no-color",
            "--ginkgo.v",
            f"--num-nodes={nodes}",
            # Of what runs in kube-system, and of its DaemonSets, nothing needs to be waited for.
            "--minStartupPods=-1",
            "--allowed-not-ready-nodes=-1",
            "--dump-logs-on-failure=false",
            "--disable-log-dump=true",
        ],
        log=log,
    )
    try:
        while test.pid is not None:
            report(f"{progress(log.read_text(errors='replace'))}, {monotonic() - started:.0f} s")
            sleep(REPORT_INTERVAL_S)
    finally:
        test.stop()
    if not junit.exists():
        raise ClusterError(f"e2e.test ended without a report\n{test.tail()}")
    specs = read_junit(junit.read_text())
    if not any(spec.name.startswith("[sig-") for spec in specs):
        said = "\n".join(spec.why for spec in specs) or f"no test matches {focus!r}"
        raise ClusterError(f"no test was run: {said}")
    return specs


def progress(log: str) -> str:
    """What a log of the program (verbose, without colours) says of how far it is."""
    total = re.search(r"^Will run (\d+) of \d+ specs", log, re.MULTILINE)
    if total is None:
        return "e2e.test starts"
    ends = re.findall(r"^(?:•|S) \[?(FAILED|SKIPPED)?", log, re.MULTILINE)
    failed = f", {count} failed" if (count := ends.count("FAILED")) else ""
    return f"{len(ends)} of {total[1]} tests{failed}"


def read_junit(text: str) -> list[Spec]:
    """The tests that were run, or that skipped themselves; a failed set-up of the suite counts as one."""
    specs = []
    for case in ET.fromstring(text).iter("testcase"):
        name, status, skipped = case.get("name", ""), case.get("status", ""), case.find("skipped")
        is_test, name = name.startswith("[It] "), name.removeprefix("[It] ")
        seconds = float(case.get("time", 0))
        if status == PASSED:
            if is_test:
                specs.append(Spec(name, PASSED, seconds))
        elif status == SKIPPED:
            # One that the focus leaves out gives no reason.
            why = (skipped.get("message", "") if skipped is not None else "").removeprefix("skipped")
            if why:
                specs.append(Spec(name, SKIPPED, seconds, why.removeprefix(" - ")))
        elif status != "pending":
            said = "\n".join(
                filter(None, (fault.text for fault in case if fault.tag in ("failure", "error")))
            )
            specs.append(Spec(name, FAILED, seconds, said.strip() or status))
    return specs
