"""One control plane for all tests that neither break it nor fill it: starting one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.integration.harness import Scheduler
from tests.integration.observer import Observer
from tests.integration.workbench import Workbench


@pytest.fixture(scope="session")
def shared_plane() -> Iterator[ControlPlane]:
    with ControlPlane(controller_manager=False) as plane:
        yield plane


@pytest.fixture(scope="session")
def all_pods(shared_plane: ControlPlane) -> Iterator[Observer]:
    with Observer(shared_plane, "/api/v1/pods") as pods:
        yield pods


@pytest.fixture(scope="session")
def all_events(shared_plane: ControlPlane) -> Iterator[Observer]:
    with Observer(shared_plane, "/apis/events.k8s.io/v1/events") as events:
        yield events


@pytest.fixture
def bench(shared_plane: ControlPlane, all_pods: Observer, all_events: Observer) -> Iterator[Workbench]:
    """An empty namespace and no nodes."""
    bench = Workbench(shared_plane, all_pods, all_events)
    yield bench
    bench.clear()


@pytest.fixture(scope="module")
def scheduler(shared_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """One for all tests of a module that ask nothing special of it; it serves the name `wholepod`."""
    log = tmp_path_factory.mktemp("shared") / "scheduler.log"
    flags = ("--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000")
    with Scheduler(*flags, kubeconfig=shared_plane.kubeconfig, log=log) as scheduler:
        yield scheduler


@pytest.fixture
def true_picture(scheduler: Scheduler, bench: Workbench) -> Iterator[None]:
    """At the end the scheduler's picture of the cluster must equal the API server's."""
    yield
    scheduler.show_log()
    scheduler.resume()
    scheduler.check_cache()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the test's scheduler writes its log."""
    return tmp_path / "scheduler.log"
