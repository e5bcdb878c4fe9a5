"""Two Wholepods and one lease: one schedules, and the other takes over when it leaves, dies or falls silent.

Both run as the ServiceAccount of `deploy/base/rbac.yaml`, so these tests also show that its rights are
enough. The lease is short here; everything else is as in a cluster.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.integration.harness import REPOSITORY, Json, Scheduler, eventually
from tests.integration.workbench import Workbench

CONFIG = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
leaderElection: {leaseDuration: 4s, renewDeadline: 2s, retryPeriod: 500ms}
"""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/wholepod"


@pytest.fixture(scope="module")
def kubeconfig(shared_plane: ControlPlane) -> Path:
    shared_plane.kubectl("apply", f"--filename={REPOSITORY / 'deploy' / 'base' / 'rbac.yaml'}")
    token = shared_plane.kubectl("create", "token", "wholepod", "--namespace=kube-system").strip()
    return shared_plane.kubeconfig_with_token("wholepod", token)


@pytest.fixture
def pair(bench: Workbench, kubeconfig: Path, tmp_path: Path) -> Iterator[tuple[Scheduler, Scheduler]]:
    """The leader, and one that stands by."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    with ExitStack() as stack:

        def start(name: str) -> Scheduler:
            log = tmp_path / f"{name}.log"
            return stack.enter_context(Scheduler(f"--config={config}", kubeconfig=kubeconfig, log=log))

        leader = start("leader")
        wait_leads(leader)
        standby = start("standby")
        assert not leads(standby)
        bench.node("node", memory="3Gi")
        bench.pod("first", "1Gi")
        bench.wait_bound("first")
        yield leader, standby
        leader.show_log()
        standby.show_log()


def check_takes_over(bench: Workbench, heir: Scheduler) -> None:
    """It places a pod, fills the node with another, and gives nothing away twice."""
    for pod in ("second", "third"):
        bench.pod(pod, "1Gi")
        bench.wait_bound(pod)
    bench.pod("fourth", "1Gi")
    bench.wait_unschedulable("fourth")
    assert leads(heir)
    assert heir.metric("scheduler_schedule_attempts_total", result="scheduled") == 2
    heir.check_cache()


def leads(scheduler: Scheduler) -> bool:
    return scheduler.metric("leader_election_master_status", name="wholepod") == 1


def wait_leads(scheduler: Scheduler) -> None:
    eventually(lambda: leads(scheduler), "it leads")


def test_the_leader_leaves(bench: Workbench, pair: tuple[Scheduler, Scheduler]) -> None:
    leader, standby = pair
    # Not merely absent: an alert has to tell that nobody leads from that nobody was asked.
    assert 'leader_election_master_status{name="wholepod"} 0.0' in standby.text("/metrics")
    before = lease(bench)
    assert leader.terminate() == 0
    wait_leads(standby)
    after = lease(bench)
    assert after["holderIdentity"] not in ("", before["holderIdentity"])
    assert after["leaseTransitions"] == before["leaseTransitions"] + 1
    check_takes_over(bench, standby)


def test_the_leader_is_killed(bench: Workbench, pair: tuple[Scheduler, Scheduler]) -> None:
    leader, standby = pair
    leader.kill()
    check_takes_over(bench, standby)


def test_the_leader_falls_silent_and_comes_back(bench: Workbench, pair: tuple[Scheduler, Scheduler]) -> None:
    leader, standby = pair
    leader.pause()
    check_takes_over(bench, standby)
    leader.resume()
    # Its picture of the cluster is another's business now: it ends, and is to be started anew.
    assert leader.wait() == 3
    assert "wholepod: leadership lost: " in leader.log.read_text()
    assert leads(standby)


def lease(bench: Workbench) -> Json:
    spec: Json = bench.api.get(LEASE)["spec"]
    return spec
