"""One control plane for all tests that neither break it nor fill it: starting one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.integration.controlling import Stage, account, staged, with_crd
from tests.integration.harness import Scheduler, eventually
from tests.integration.observer import Observer
from tests.integration.storage import CLAIMS, FLAGS, VOLUMES, Storage, waiting
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


@pytest.fixture(scope="session")
def volume_plane() -> Iterator[ControlPlane]:
    """With kube-controller-manager, which binds claims to volumes."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def storage(volume_plane: ControlPlane) -> Iterator[Storage]:
    """An empty namespace with three storage classes, and no nodes or volumes."""
    with (
        Observer(volume_plane, "/api/v1/pods") as pods,
        Observer(volume_plane, "/apis/events.k8s.io/v1/events") as events,
        Observer(volume_plane, CLAIMS) as claims,
        Observer(volume_plane, VOLUMES) as volumes,
    ):
        storage = Storage(volume_plane, pods, events, claims, volumes)
        yield storage
        storage.clear()


@pytest.fixture(scope="module")
def volume_scheduler(
    volume_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scheduler]:
    """One for all tests of a module that don't harm it; it serves the name `wholepod`."""
    log = tmp_path_factory.mktemp("volumes") / "scheduler.log"
    with Scheduler(*FLAGS, kubeconfig=volume_plane.kubeconfig, log=log) as scheduler:
        yield scheduler


@pytest.fixture
def shared(volume_scheduler: Scheduler, storage: Storage) -> Iterator[Scheduler]:
    """The same; at the end no pod may wait for volumes, and its picture must be the API server's."""
    yield volume_scheduler
    volume_scheduler.show_log()
    eventually(lambda: waiting(volume_scheduler) == 0, "no pod waits for volumes")
    volume_scheduler.check_cache()


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


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """One for each module that tests the controller: PodGroups of scheduling.x-k8s.io are served."""
    with ControlPlane() as plane:
        with_crd(plane)
        yield plane


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane) -> Path:
    """Of the controller's own account."""
    return account(plane)


@pytest.fixture
def stage(plane: ControlPlane) -> Iterator[Stage]:
    with staged(plane) as stage:
        yield stage
