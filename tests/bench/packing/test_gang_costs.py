"""The replay of gangs on cases small enough to check by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.packing import gang_report
from tests.bench.packing.gang_costs import STRATEGIES, Measured
from tests.bench.packing.report import BEGIN, END
from tests.bench.packing.traces import Job, Request
from tests.bench.packing.virtual import SINGLES, Outcome, Replay, Scenario

GIB = 2**30
ONE: Request = (1000, GIB)


def replay(strategy: str, jobs: list[Job], *, nodes: int = 2, apart_s: float = 1e-6) -> Outcome:
    """On nodes for two pods each. Arrivals are rounded up to the second."""
    scenario = Scenario("s", jobs, ((nodes, (2000, 2 * GIB)),), apart_s, "60s", 300.0)
    return Replay(scenario, strategy).run()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_jobs_run_when_all_their_pods_are_bound_and_make_room_when_they_end(strategy: str) -> None:
    outcome = replay(
        strategy, [Job(0.5, 100.0, (ONE,) * 4), Job(10.0, 50.0, (ONE,)), Job(20.0, 5.0, (ONE,) * 2)]
    )
    assert outcome.gang_waits_s == [0.0, 80.0]  # from 1 to 101; then from 21 to 101
    assert outcome.single_waits_s == [91.0]
    assert outcome.pod_waits_s.count(0.0) == 4
    assert outcome.unfinished == 0
    assert outcome.ended_s == 151.0
    assert outcome.work_byte_seconds == (4 * 100 + 50 + 2 * 5) * GIB


def test_without_gangs_jobs_can_block_each_other_for_ever() -> None:
    jobs = [Job(0.0, 10.0, (ONE,) * 3)] * 6  # room for one and a part
    together = {s: replay(s, jobs, apart_s=20.0) for s in STRATEGIES}
    assert {s: outcome.unfinished for s, outcome in together.items()} == {
        "atomic": 0,
        "hoarding": 0,
        "optimistic": 0,
        SINGLES: 6,
    }
    assert together[SINGLES].idle_byte_seconds > 0
    assert together["atomic"].idle_byte_seconds == 0


def test_the_same_seed_gives_the_same_outcome() -> None:
    jobs = [Job(float(i), 30.0, (ONE,) * (1 + i % 4)) for i in range(30)]
    for strategy in STRATEGIES:
        one, other = (replay(strategy, jobs, apart_s=5.0) for _ in range(2))
        for outcome in (one, other):
            outcome.cost.planning_cpu_s.clear()
        assert one == other


def test_the_page_is_written_between_the_markers(tmp_path: Path) -> None:
    (tmp_path / "gang-costs.md").write_text(f"# Before\n{BEGIN}earlier\n{END}after\n")
    jobs = [Job(0.0, 10.0, (ONE,) * 3)] * 6
    scenario = Scenario("tiny", jobs, ((2, (2000, 2 * GIB)),), 20.0, "60s", 300.0)
    measured = Measured(scenario, tuple(Replay(scenario, s).run() for s in STRATEGIES))
    gang_report.write(tmp_path, [measured])
    page = (tmp_path / "gang-costs.md").read_text()
    assert page.startswith("# Before\n")
    assert page.endswith(f"{END}after\n")
    assert "earlier" not in page
    assert "**tiny**: 6 jobs, of which 6 are gangs; 18 pods; 2 nodes" in page
    assert "| jobs never bound whole | 0 | 0 | 0 | 6 |" in page
    assert (tmp_path / "gang-costs.svg").read_text().count("<svg") == 1
