"""Runs many cases through the oracle and through Wholepod, spread over processes."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Literal

from tests.parity import coverage, coverage_preemption, judge, subjects
from tests.parity.build import oracle_program
from tests.parity.decide import decide, decide_requests
from tests.parity.generate import random_cluster, random_pod
from tests.parity.judge_preemption import compare_preemption
from tests.parity.oracle_process import Oracle
from tests.parity.random_preemption import random_preemption

Json = dict[str, Any]
Family = Literal["pods", "clusters", "preemptions"]

FLOORS: dict[Family, dict[str, float]] = {
    "pods": coverage.POD_FLOORS,
    "clusters": coverage.CLUSTER_FLOORS,
    "preemptions": coverage_preemption.FLOORS,
}
BATCH: dict[Family, int] = {"pods": 250, "clusters": 50, "preemptions": 50}
KEPT = 10
"""Differing cases of which everything is kept: those of the lowest numbers."""
BATCHES_A_PROCESS = 100
"""All workers and their oracles end then, and new ones start: no leak can grow in a long run. (Leaving
that to the pool, by `max_tasks_per_child`, can hang it for ever: github.com/python/cpython/issues/115634.)"""


@dataclass
class Outcome:
    """What came of some cases."""

    cases: int = 0
    differing: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    kept: list[Json] = field(default_factory=list)
    """{"number", "document", "kube", "wholepod", "differences": [str]} of the first few that differ."""

    def add(self, other: Outcome) -> None:
        self.cases += other.cases
        self.differing += other.differing
        self.seen += other.seen
        self.kept = sorted(self.kept + other.kept, key=lambda case: int(case["number"]))[:KEPT]

    def shortfalls(self, family: Family) -> list[str]:
        """Where the cases were too tame to prove anything."""
        return coverage.shortfalls(self.seen, self.cases, FLOORS[family])


def run(
    family: Family,
    numbers: range,
    *,
    processes: int = 2,
    on_progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Judges the cases of these numbers; `on_progress` gets the sum so far after each batch.

    Raises OracleError when the oracle fails, ClusterError when it can't be built.
    """
    oracle_program()  # before the processes start, which would all want to build it
    total = Outcome()
    batches = [numbers[i : i + BATCH[family]] for i in range(0, len(numbers), BATCH[family])]
    for i in range(0, len(batches), processes * BATCHES_A_PROCESS):
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            some = batches[i : i + processes * BATCHES_A_PROCESS]
            pending = [pool.submit(judge_batch, family, batch) for batch in some]
            try:
                for done in as_completed(pending):
                    total.add(done.result())
                    on_progress(total)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return total


def judge_batch(family: Family, numbers: range) -> Outcome:
    """Judges some cases in this process."""
    outcome = Outcome()
    for number, (document, kube, wholepod, differences, seen) in zip(
        numbers, _verdicts(family, numbers), strict=True
    ):
        outcome.cases += 1
        outcome.seen.update(seen if family == "pods" else seen | subjects.of(document, kube))
        if differences:
            outcome.differing += 1
            outcome.kept.append(
                {
                    "number": number,
                    "document": document,
                    "kube": kube,
                    "wholepod": wholepod,
                    "differences": [str(difference) for difference in differences],
                }
            )
    return outcome


Verdict = tuple[Json, Json, Json, list[judge.Difference], set[str]]
"""Document, both verdicts, where they differ, what the case exercised."""


def _verdicts(family: Family, numbers: range) -> Iterator[Verdict]:
    oracle = _oracle(family)
    for number in numbers:
        if family == "pods":
            document = random_pod(number)
            kube, wholepod = oracle.ask(document), decide_requests(document)
            yield (
                document,
                kube,
                wholepod,
                judge.compare_requests(kube, wholepod),
                coverage.of_pod(document, kube),
            )
        elif family == "preemptions":
            document = random_preemption(number)
            kube, wholepod = oracle.ask(document), decide(document, shuffle=Random(number))
            differences = compare_preemption(document, kube, wholepod)
            yield document, kube, wholepod, differences, coverage_preemption.of(document, kube)
        else:
            document = random_cluster(number)
            kube, wholepod = oracle.ask(document), decide(document, shuffle=Random(number))
            yield document, kube, wholepod, judge.compare(kube, wholepod), coverage.of_cluster(document, kube)


@cache
def _oracle(family: Family) -> Oracle:
    """This process's oracle; it ends when its standard input does, that is with the process."""
    return Oracle(requests_only=family == "pods")
