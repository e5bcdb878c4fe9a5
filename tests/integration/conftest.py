"""One control plane for all tests that neither break it nor fill it: starting one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
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


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the test's scheduler writes its log."""
    return tmp_path / "scheduler.log"
