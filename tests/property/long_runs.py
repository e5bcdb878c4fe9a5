"""Reports of long runs, written anew whenever a part of one has ended: none can end without its report.

A test that is a part hands over what it has done (fixture `hand_over`), which comes with pytest's report of
it from processes beside, too.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.property import exactness, fault_counts
from tests.property.gang_faults import POINTS

ROOT = Path(__file__).parents[2]
HandOver = Callable[[str, dict[str, Any]], None]
LONG = 5000
"""A run with so many examples is to cover everything, and gets reports."""


@dataclass
class LongReport:
    """`parts`: how many tests hand something over in a whole run."""

    file: str
    parts: int
    head: str
    tables: Callable[[Sequence[dict[str, Any]]], list[str]]
    taken: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def take(self, test: str, part: dict[str, Any], *, passed: bool) -> None:
        """Notes a part, and writes down what is known by now."""
        self.taken.append(part)
        if not passed:
            self.failed.append(test)
        (ROOT / "docs" / "reports" / self.file).write_text(self.page())

    def page(self) -> str:
        if self.failed:
            title = f"Failed: {', '.join(self.failed)}"
        elif len(self.taken) < self.parts:
            title = f"Not whole: {len(self.taken)} of {self.parts} parts have been played"
        else:
            title = "All held"
        machine = f"{os.cpu_count()} CPUs, {platform.machine()}"
        lines = [
            self.head,
            f"## {title}",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, commit {_COMMIT}, {machine}.",
            "",
        ]
        return "\n".join([*lines, *self.tables(self.taken)]) + "\n"


REPORTS = {
    "faults-model": LongReport("faults-model.md", 3 * len(POINTS), fault_counts.HEAD, fault_counts.page),
    "planning-model": LongReport("planning-model.md", 2, exactness.HEAD, exactness.page),
}


def is_long() -> bool:
    return settings().max_examples >= LONG


def note_report(report: pytest.TestReport) -> None:
    """After each phase of each test, in the process that leads the run."""
    if report.when == "call" and is_long() and "PYTEST_XDIST_WORKER" not in os.environ:
        for name, part in report.user_properties:
            if name in REPORTS:
                REPORTS[name].take(report.nodeid, part, passed=report.passed)  # type: ignore[arg-type]


def _commit() -> str:
    """What is tested, as it was at the beginning."""

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return found.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "scheduler", "tests")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" and changes" if changed else "")


_COMMIT = _commit()
