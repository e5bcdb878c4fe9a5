"""The cluster that the tests run on: four nodes in two zones, and one scheduler.

Two things are there for the tests' sake. Every node has a Running pod in kube-system whose name holds
`kube-proxy`, `fluentd-elasticsearch` and `node-problem-detector`: before each test
`WaitForTotalHealthy` (k8s.io/kubernetes/test/e2e/node) looks for them, and waits a minute in vain when
they are missing. And kwok, in the kubelets' place, keeps the grace period and finalizers
(tests/cluster/kwok-stages.yaml), since tests of preemption watch how victims go.
"""

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import ApiError, ControlPlane, node_manifest, pod_manifest
from tests.cluster.assets import Report
from tests.cluster.control_plane import CONTROLLER_MANAGER, KWOK, SCHEDULER
from tests.cluster.errors import ClusterError
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.cluster.ports import free_port
from tests.cluster.process import Program

ROOT = Path(__file__).parents[3]
KUBE_SCHEDULER, WHOLEPOD = SCHEDULER, "wholepod"
SCHEDULERS = (WHOLEPOD, KUBE_SCHEDULER)
NODES, ZONES = 4, 2
HEALTHY = "kube-proxy-fluentd-elasticsearch-node-problem-detector"
TIMEOUT_S = 120.0


@contextmanager
def stage(scheduler: str, *, log: Path, report: Report) -> Iterator[ControlPlane]:
    """A control plane whose only scheduler is `scheduler`, which writes to `log`; all gone at the end.

    Raises ClusterError when something does not start, or when the scheduler is not alive at the end.
    """
    with ControlPlane(
        kwok=True,
        feature_gates=POD_GROUPS_GATES,
        runtime_config=POD_GROUPS_SERVED,
        apiserver_flags=["--allow-privileged"],  # some tests' pods are, which is no business of a scheduler
        report=report,
    ) as plane:
        report(f"Starting {scheduler}")
        _create_nodes(plane)
        if scheduler == KUBE_SCHEDULER:
            plane.start_scheduler()
            program = plane.programs[SCHEDULER]
        else:
            program = _start_wholepod(plane, log)
        try:
            yield plane
            if program.pid is None:
                raise ClusterError(f"{scheduler} died under the tests\n{program.tail()}")
        finally:
            program.stop()
            if program.log != log:
                log.write_bytes(program.log.read_bytes())


def _create_nodes(plane: ControlPlane) -> None:
    for number in range(1, NODES + 1):
        node = node_manifest(
            f"node-{number}",
            cpu="8",
            memory="32Gi",
            labels={"topology.kubernetes.io/zone": f"zone-{1 + number % ZONES}"},
        )
        for room in (node["status"]["capacity"], node["status"]["allocatable"]):
            room["ephemeral-storage"] = "100Gi"
        plane.api.create(node)
    account = "/api/v1/namespaces/kube-system/serviceaccounts/default"
    plane.programs[CONTROLLER_MANAGER].wait_until(lambda: _exists(plane, account), timeout_s=TIMEOUT_S)
    for number in range(1, NODES + 1):
        name = f"node-{number}"
        plane.api.create(pod_manifest(f"{HEALTHY}-{name}", {}, namespace="kube-system", nodeName=name))
    pods = "/api/v1/namespaces/kube-system/pods"
    plane.programs[KWOK].wait_until(
        lambda: plane.api.count(pods, fieldSelector="status.phase=Running") == NODES, timeout_s=TIMEOUT_S
    )


def _start_wholepod(plane: ControlPlane, log: Path) -> Program:
    """As deploy/ would: with the rights of its own role, serving pods that name no scheduler."""
    plane.kubectl("apply", f"--filename={ROOT / 'deploy' / 'base' / 'rbac.yaml'}")
    address = f"127.0.0.1:{free_port()}"
    program = plane.start_beside(
        WHOLEPOD,
        [
            str(Path(sys.executable).with_name("wholepod")),
            "run",
            "--scheduler-name=default-scheduler",
            f"--kubeconfig={plane.kubeconfig_for_account('wholepod')}",
            f"--bind-address={address}",
            "--log-format=json",
        ],
        log=log,
    )
    program.wait_until(lambda: _ready(f"http://{address}/readyz"), timeout_s=TIMEOUT_S)
    return program


def _exists(plane: ControlPlane, path: str) -> bool:
    try:
        plane.api.get(path)
    except ApiError:
        return False
    return True


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
