"""Gangs that would block or starve each other for ever get on, on a real API server: the scenes of
`make bench-gang-liveness`, smaller. (Exact bounds, in virtual time: tests/property/test_gang_liveness.py)"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from scheduler.core.gangs.gang import Strategy
from tests.bench.gang_liveness.scenes import Deadlock, Starvation, Words, play_deadlock, play_starvation
from tests.cluster import ControlPlane
from tests.integration.harness import DEADLINE_S, Scheduler
from tests.integration.workbench import Workbench

pytestmark = pytest.mark.usefixtures("true_picture")

CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles:
- schedulerName: wholepod
  gangs:
    starvationAfter: 2s
    maxHeldFraction: {namespace: 1, cluster: 1}
"""
STRATEGIES = [strategy.value for strategy in Strategy]


@pytest.fixture(scope="module")
def scheduler(shared_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    folder = tmp_path_factory.mktemp("liveness")
    configuration = folder / "wholepod.yaml"
    configuration.write_text(CONFIGURATION)
    flags = [
        "--leader-elect=false",
        f"--config={configuration}",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]
    log = folder / "scheduler.log"
    with Scheduler(*flags, kubeconfig=shared_plane.kubeconfig, log=log) as scheduler:
        yield scheduler


def words(bench: Workbench, strategy: str) -> Words:
    return Words(bench.namespace, "wholepod", strategy, native=False)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gangs_that_block_each_other_all_complete(
    bench: Workbench, scheduler: Scheduler, strategy: str
) -> None:
    """With holds that would last for an hour."""
    before = scheduler.metric("wholepod_gang_deadlocks_total")
    scene = Deadlock(gangs=8, size=4, run_s=0.2, pause_s=1.0)
    end = play_deadlock(bench.api, bench.pods, words(bench, strategy), scene, give_up_s=DEADLINE_S)
    assert end.complete == scene.gangs
    assert (scheduler.metric("wholepod_gang_deadlocks_total") > before) is (strategy == "hoarding")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_large_gang_does_not_starve_among_single_pods(
    bench: Workbench, scheduler: Scheduler, strategy: str
) -> None:
    scene = Starvation(nodes=6, slots=8, size=44, run_s=6.0, backlog=30)
    reserved = scheduler.metric("wholepod_gang_reserved_memory_byte_seconds_total", strategy=strategy)
    end = play_starvation(bench.api, bench.pods, words(bench, strategy), scene, give_up_s=DEADLINE_S)
    assert math.isfinite(end.seconds)
    now = scheduler.metric("wholepod_gang_reserved_memory_byte_seconds_total", strategy=strategy)
    assert now > reserved
