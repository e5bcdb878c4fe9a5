"""The campaign's report, as a page of the documentation."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.campaign import STRATEGIES, Result
from tests.faults.door import Way
from tests.faults.eyes import Point

_HEAD = """\
# Faults at every step of a gang's commit

Made by `make faults-real`: a real API server and two Wholepods with one lease (3 s), each behind a proxy that
knows from requests and answers which step a commit has come to. At that step the process whose request it is
is killed (`SIGKILL`), or stopped until the other one leads and then let go on (`SIGSTOP past the lease`), or
the API server is killed and started again, or the answer is lost (of steps before a request: the request).
At `FENCED` a former leader, stopped in the middle of a commit, comes back while its heir is hit. Three gangs
of four are being bound meanwhile; at the steps of a compensation one of them can't be completed, and at
`VICTIMS_PARTIAL` two single pods beside a gang need two victims each.

A fault *held* when after it every gang is bound, or none of it if it can't be, no node is given more than it
has, the journal is empty, and, once the pods are deleted, whoever leads knows of no place taken and no gang:
no hold and no reservation is left. *Bound in part* is the longest that any gang was between its first bind
and its last, or the last deletion; the deadline is 20 s, and 1 s for gangs that can't be completed, and
nobody acts on it while nobody leads.
"""


def write(results: Sequence[Result], path: Path, *, commit: str) -> None:
    """`commit`: of which the code was when the run began."""
    path.write_text(page(results, commit))


def page(results: Sequence[Result], commit: str) -> str:
    broken = [result for result in results if result.broken]
    lines = [
        _HEAD,
        f"## {len(results) - len(broken)} of {len(results)} faults held",
        "",
        _when_and_where(commit),
        "",
    ]
    lines += ["| step | " + " | ".join(way.value for way in Way) + " | bound in part, at most |"]
    lines += ["| --- |" + " --- |" * len(Way) + " ---: |"]
    for point in Point:
        of_point = [result for result in results if result.fault.point is point]
        if of_point:
            cells = [_cell([r for r in of_point if r.fault.way is way]) for way in Way]
            longest = max(result.partial_s for result in of_point)
            lines.append(f"| {point.value} | {' | '.join(cells)} | {longest:.1f} s |")
    lines += ["", f"Each was played under the strategies {', '.join(STRATEGIES)}."]
    lines += [f"- {result.fault}: {result.broken}" for result in broken]
    return "\n".join(lines) + "\n"


def _cell(results: Sequence[Result]) -> str:
    held = sum(1 for result in results if not result.broken)
    return f"{held} of {len(results)} held"


def commit_now() -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def _when_and_where(commit: str) -> str:
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{date}, commit {commit}, {os.cpu_count()} CPUs, {platform.machine()}, Kubernetes v1.37.2."
