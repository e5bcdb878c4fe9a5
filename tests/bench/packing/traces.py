"""The two public traces the benches replay, read from a folder that is not part of this repository.

Where to get them, and under which terms, is in docs/packing.md. Both are kept in arrival order. For the
comparison of objectives both are cut in half: constants were tuned on first halves, results are reported
on second ones.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

Request = tuple[int, int]
"""(cpu_milli, memory_bytes) of one pod."""

WAGAP = Path("cerit-wagap-2013/wagap-2013.swf")
WAGAP_NODE: Request = (80_000, 529_426_432 * 1024)
"""A node of the "zewura" cluster, the larger of the two in the log, of which there are 20."""
WAGAP_SMALL_NODE: Request = (12_000, 94_035_968 * 1024)
"""A node of the "zegox" cluster, of which there are 48."""
WINDOW_JOBS = 500

BATCH = Path("alibaba-batch-cloudsimpy/jobs.csv")
BATCH_NODE: Request = (64_000, 2**38)
"""64 cores; memory is given as a fraction of a machine, taken here as 256 GiB."""
BATCH_NODES = 400


class TraceError(Exception):
    """A trace is missing or not what it should be; the text says which file."""


@dataclass(frozen=True)
class Job:
    """Pods that are submitted together, run together and end together."""

    submitted_s: float
    duration_s: float
    pods: tuple[Request, ...]


@dataclass(frozen=True)
class Task:
    """A gang of `count` equal pods that is placed as a whole or not at all."""

    count: int
    request: Request


def wagap_jobs(folder: Path) -> list[Job]:
    """In submission order.

    Standard Workload Format with PBS node specifications: field 2 is when the job was submitted, field 4 how
    long it ran, field 8 its cores, field 10 its memory in bytes per node, field 21 `N:ppn=M[:property…]`,
    parts joined by `+`. A job is one pod per node. Left out are jobs with a negative run time or larger
    than any node.
    """
    jobs: list[Job] = []
    for line in _lines(folder / WAGAP):
        fields = line.split()
        submitted_s, run_time_s, cores, memory_bytes = (int(fields[i]) for i in (1, 3, 7, 9))
        pods = tuple((1000 * c, memory_bytes) for n, c in _node_spec(fields[20], cores) for _ in range(n))
        if run_time_s >= 0 and all(p[0] <= WAGAP_NODE[0] and p[1] <= WAGAP_NODE[1] for p in pods):
            jobs.append(Job(submitted_s, run_time_s, pods))
    return jobs


def wagap_windows(folder: Path) -> list[list[Request]]:
    """Pods of consecutive windows of 500 jobs, in submission order; a last, shorter window is left out."""
    jobs = wagap_jobs(folder)
    starts = range(0, len(jobs) - WINDOW_JOBS + 1, WINDOW_JOBS)
    return [[pod for job in jobs[s : s + WINDOW_JOBS] for pod in job.pods] for s in starts]


def batch_jobs(folder: Path) -> list[Job]:
    """One per task, in submission order (the file is not sorted; ties keep the file's order)."""
    rows = sorted(csv.DictReader(_lines(folder / BATCH)), key=lambda row: float(row["submit_time"]))
    return [
        Job(
            float(row["submit_time"]),
            float(row["duration"]),
            ((round(float(row["cpu"]) * 1000), round(float(row["memory"]) * BATCH_NODE[1])),)
            * int(float(row["instances_num"])),
        )
        for row in rows
    ]


def batch_tasks(folder: Path) -> list[Task]:
    """The same without times."""
    return [Task(len(job.pods), job.pods[0]) for job in batch_jobs(folder)]


def _node_spec(spec: str, cores: int) -> list[tuple[int, int]]:
    """(nodes, cores per node) of each part; a single part that disagrees with the job's cores yields."""
    parts = []
    for part in spec.split("+"):
        nodes = re.match(r"\d+(?=$|:)", part)
        per_node = re.search(r"ppn=(\d+)", part)
        parts.append((int(nodes[0]) if nodes else 1, int(per_node[1]) if per_node else 0))
    if len(parts) == 1 and parts[0][0] * parts[0][1] != cores:
        return [(parts[0][0], max(1, cores // parts[0][0]))]
    return parts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError as error:
        raise TraceError(f"cannot read trace {path}: {error.strerror}") from error
