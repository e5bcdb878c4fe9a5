"""What long runs of the property tests have played: told now and then, and written down at the end."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import settings

from tests.property.gang_faults import POINTS, WAYS, Fault

REPORT = Path(__file__).parents[2] / "docs" / "reports" / "faults-model.md"
LONG = 5000
"""A run with so many examples is to cover everything, and gets a report."""

_HEAD = """\
# Gangs under faults, in virtual time

Made by `make faults`. Each history is one run of the real scheduler (engine, strategies, loop, journal,
committer, writer) against a model of the API server: gangs and single pods arrive, members are lost, fail or
finish, somebody else binds pods, the watch is late and has gaps, and up to six faults strike at named steps:
the process dies or freezes, the API server goes down, an answer or a request is lost, a request is executed
late. After each, when there is room for all: no gang is bound in part, and none was for longer than its
deadline and the time that the faults took; no node was given more than it has; every gang that can be bound
is; no journal entry, no hold and no assumed pod is left.
"""


class Counts:
    """Of one strategy."""

    def __init__(self, strategy: str) -> None:
        self.strategy = strategy
        self.histories = 0
        self.played: Counter[tuple[str, str]] = Counter()

    def add(self, hit: Iterable[Fault]) -> None:
        """After a history that went well."""
        self.histories += 1
        self.played.update((fault.point, fault.way) for fault in hit)

    def tell(self) -> None:
        """Of long runs, how far it is."""
        if is_long():
            faults = sum(self.played.values())
            print(f"{self.strategy}: {self.histories} histories, {faults} faults", flush=True)

    def missing(self) -> list[tuple[str, str]]:
        """Faults that were never played."""
        return [(point, way) for point in POINTS for way in WAYS if not self.played[point, way]]


RECORD: dict[str, Counts] = {}
"""By strategy, what was done in this run."""


def is_long() -> bool:
    return settings().max_examples >= LONG


def write_report(record: Mapping[str, Counts]) -> None:
    REPORT.write_text(page(list(record.values())))


def page(record: Sequence[Counts]) -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    lines = [
        _HEAD,
        "## All held",
        "",
        f"{date}, commit {commit}, {os.cpu_count()} CPUs, {platform.machine()}.",
        "",
    ]
    lines += ["| strategy | histories | faults |", "| --- | ---: | ---: |"]
    lines += [f"| {c.strategy} | {c.histories} | {sum(c.played.values())} |" for c in record]
    lines += ["", "Faults by step and way, of all strategies:", ""]
    lines += ["| step | " + " | ".join(WAYS) + " |", "| --- |" + " ---: |" * len(WAYS)]
    for point in POINTS:
        cells = [str(sum(counts.played[point, way] for counts in record)) for way in WAYS]
        lines.append(f"| {point} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
