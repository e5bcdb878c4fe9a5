"""What the tests said, for people: a table on the terminal, a page under docs/reports."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.markup import escape
from rich.table import Table

from tests.e2e.upstream.suite import FAILED, PASSED, Spec

COLOURS = {PASSED: "green", FAILED: "red"}
WHY_LENGTH = 160
SECTION = "## "
HEAD = """\
# Kubernetes' own end-to-end tests of scheduling

Made by `make e2e-upstream`: `[sig-scheduling]` of `k8s.io/kubernetes/test/e2e`, without the tests of
devices, on a control plane with kwok in the kubelets' place and one scheduler, which serves
`default-scheduler`. A test that fails is run once more, since kwok can miss a pod that is made anew under
the same name. kube-scheduler's results show that the stage is fit for these tests.
"""


@dataclass(frozen=True)
class Run:
    """The tests with one scheduler."""

    scheduler: str
    origin: str
    """When and of what, for people: date, commit, machine, versions."""
    specs: Sequence[Spec]

    @property
    def all_passed(self) -> bool:
        return all(spec.result == PASSED for spec in self.specs)

    @property
    def summary(self) -> str:
        passed = sum(spec.result == PASSED for spec in self.specs)
        late = sum(spec.result == PASSED and spec.retried for spec in self.specs)
        again = f", {late} of them at the second attempt" if late else ""
        return f"{passed} of {len(self.specs)} passed{again}"


def origin(*versions: str) -> str:
    """Of a run that starts now, since commits go on under a run of half an hour."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.strip()}, {machine}; {', '.join(versions)}."


def result(spec: Spec) -> str:
    """In words, so that a second attempt shows."""
    return f"{spec.result} at the second attempt" if spec.retried else spec.result


def title(spec: Spec) -> str:
    """Its name, without what all of them have."""
    return spec.name.removeprefix("[sig-scheduling] ")


def reason(spec: Spec) -> str:
    """The first words of why a test did not pass, at the first attempt if it did at the second."""
    why = spec.why or (spec.first.why if spec.first is not None else "")
    lines = [line.strip() for line in why.removeprefix("[FAILED]").splitlines() if line.strip()]
    text = (
        re.sub(r"\S*(k8s\.io/kubernetes)@[^/\s]+", r"\1", lines[0]) if lines else ""
    )  # no path of this machine
    return text if len(text) <= WHY_LENGTH else f"{text[: WHY_LENGTH - 1]}…"


def table(run: Run) -> Table:
    table = Table("Test", "Result", "Seconds", title=f"{run.scheduler}: {run.summary}")
    for spec in run.specs:
        why = f"\n[dim]{escape(reason(spec))}[/]" if reason(spec) else ""
        colour = COLOURS.get(spec.result, "yellow")
        table.add_row(escape(title(spec)) + why, f"[{colour}]{result(spec)}[/]", f"{spec.seconds:.0f}")
    return table


def page(old: str, runs: Sequence[Run]) -> str:
    """The page with these runs in the place of older ones with the same schedulers; others stay."""
    sections = {section.partition(":")[0]: section for section in old.split(f"\n{SECTION}")[1:]}
    sections |= {run.scheduler: _section(run) for run in runs}
    return HEAD + "".join(
        f"\n{SECTION}{sections[name].rstrip()}\n" for name in sorted(sections, reverse=True)
    )


def _section(run: Run) -> str:
    lines = [
        f"{run.scheduler}: {run.summary}",
        "",
        run.origin,
        "",
        "| test | result | seconds |",
        "| --- | --- | ---: |",
        *(f"| {cell(title(spec))} | {result(spec)} | {spec.seconds:.0f} |" for spec in run.specs),
    ]
    if wrong := [spec for spec in run.specs if reason(spec)]:
        lines += ["", "What did not pass at once said:", ""]
        lines += [f"- {cell(title(spec))}: `{reason(spec).replace('`', chr(39))}`" for spec in wrong]
    return "\n".join(lines)


def cell(text: str) -> str:
    """Text that Markdown must not read: names of tests hold brackets, pipes and stars."""
    for character in "\\|[]*_<>":
        text = text.replace(character, f"\\{character}")
    return text
