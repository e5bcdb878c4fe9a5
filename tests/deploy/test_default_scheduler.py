"""The static pod that takes kube-scheduler's place: its own command runs here, as kube-scheduler's own user.

As on a node of kubeadm's, the kubeconfig holds a client certificate of `system:kube-scheduler`, and what that
user may do is what Kubernetes grants it, nothing of ours. Only the kubelet and its paths are missing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import trustme
import yaml

from scheduler import __version__
from tests.chart.test_chart import MINORS
from tests.cluster import ControlPlane, pod_manifest
from tests.deploy.generate import DEPLOY
from tests.deploy.kubectl import Json, kubectl
from tests.integration.harness import Scheduler, eventually
from tests.integration.observer import Observer
from tests.integration.workbench import Workbench

FOLDER = DEPLOY / "default-scheduler"
MANIFEST = FOLDER / "kube-scheduler.yaml"
KUBECONFIG = "/etc/kubernetes/scheduler.conf"
USER = "system:kube-scheduler"
NAME = "default-scheduler"

KUBEADM = {
    "metadata": {
        "labels": {"component": "kube-scheduler", "tier": "control-plane"},
        "name": "kube-scheduler",
    },
    "spec": {
        "containers": [
            {
                "name": "kube-scheduler",
                "image": "registry.k8s.io/kube-scheduler:v1.37.2",
                "command": ["kube-scheduler", "--leader-elect=true", f"--kubeconfig={KUBECONFIG}"],
                "ports": [{"containerPort": 10259, "name": "probe-port", "protocol": "TCP"}],
                "livenessProbe": {
                    "httpGet": {
                        "host": "127.0.0.1",
                        "path": "/livez",
                        "port": "probe-port",
                        "scheme": "HTTPS",
                    },
                },
                "volumeMounts": [{"mountPath": KUBECONFIG, "name": "kubeconfig", "readOnly": True}],
            }
        ],
        "volumes": [{"hostPath": {"path": KUBECONFIG, "type": "FileOrCreate"}, "name": "kubeconfig"}],
    },
}
"""What a patch of kubeadm's own manifest has to hit (cmd/kubeadm/app/phases/controlplane/manifests.go)."""


def manifest() -> Json:
    found: Json = yaml.safe_load(MANIFEST.read_text())
    return found


@pytest.mark.parametrize("minor", MINORS)
def test_it_is_valid_in_every_minor(minor: str) -> None:
    for item in (manifest(), *yaml.safe_load_all((FOLDER / "gangs.yaml").read_text())):
        kubernetes_validate.validate(item, f"{minor}.0", strict=True)


def test_a_probe_that_fails_is_about_the_port_that_is_served() -> None:
    [container] = manifest()["spec"]["containers"]
    [port] = container["ports"]
    address = f"127.0.0.1:{port['containerPort']}"
    assert f"--bind-address={address}" in container["command"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asks = container[probe]["httpGet"]
        assert f"{asks['host']}:{asks['port']}" == address.replace(str(port["containerPort"]), port["name"])
        assert asks["scheme"] == "HTTP"  # as it has no certificate
    assert container["image"] == f"wholepod:{__version__}"


def test_kubeadm_can_take_it_as_a_patch_of_its_own(tmp_path: Path) -> None:
    """A strategic merge by kubectl, which merges as kubeadm does (cmd/kubeadm/app/util/patches)."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **KUBEADM}))
    patch = kubectl(
        "patch",
        "--local",
        "--type=strategic",
        f"--filename={tmp_path}/own.yaml",
        f"--patch-file={MANIFEST}",
        "--output=yaml",
    )
    merged = yaml.safe_load(patch)
    assert merged == manifest()


def kubeconfig_with_certificate(plane: ControlPlane, authority: trustme.CA, folder: Path) -> Path:
    """As kubeadm's scheduler.conf."""
    issued = authority.issue_cert("a-scheduler", common_name=USER)

    def inlined(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "kubernetes",
                "cluster": {
                    "server": plane.server,
                    "certificate-authority-data": inlined(plane.ca_file.read_bytes()),
                },
            }
        ],
        "users": [
            {
                "name": USER,
                "user": {
                    "client-certificate-data": inlined(issued.cert_chain_pems[0].bytes()),
                    "client-key-data": inlined(issued.private_key_pem.bytes()),
                },
            }
        ],
        "contexts": [{"name": f"{USER}@kubernetes", "context": {"cluster": "kubernetes", "user": USER}}],
        "current-context": f"{USER}@kubernetes",
    }
    path = folder / "scheduler.conf"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bench(authority: trustme.CA, tmp_path: Path) -> Iterator[Workbench]:
    authority.cert_pem.write_to_path(tmp_path / "clients.crt")
    trusts = f"--client-ca-file={tmp_path}/clients.crt"
    with (
        ControlPlane(controller_manager=False, apiserver_flags=[trusts]) as plane,
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
    ):
        yield Workbench(plane, pods, events)


def static_pod(kubeconfig: Path, log: Path) -> Scheduler:
    """What the kubelet would run, at another port."""
    [container] = manifest()["spec"]["containers"]
    command, subcommand, *flags = container["command"]
    assert (command, subcommand) == ("wholepod", "run")
    flags = [flag.replace(KUBECONFIG, str(kubeconfig)) for flag in flags if "bind-address" not in flag]
    return Scheduler(*flags, kubeconfig=None, log=log)


def test_it_takes_over_from_kube_scheduler_with_its_rights(
    bench: Workbench, authority: trustme.CA, tmp_path: Path
) -> None:
    plane, api = bench.plane, bench.api
    kubeconfig = kubeconfig_with_certificate(plane, authority, tmp_path)
    plane.start_scheduler(settings={"leaderElection": {"leaderElect": True}})

    def holder() -> str:
        leases = json.loads(plane.kubectl("get", "leases", "--namespace=kube-system", "--output=json"))
        return "".join(lease["spec"].get("holderIdentity") or "" for lease in leases["items"])

    eventually(holder, "kube-scheduler leads")
    before = holder()
    bench.node("node")
    with static_pod(kubeconfig, tmp_path / "log") as wholepod:
        # Beside kube-scheduler it waits, for there is one lease of both.
        bench.pod("first", scheduler_name=NAME)
        bench.wait_bound("first")
        assert holder() == before
        plane.programs["kube-scheduler"].stop()
        bench.pod("second", scheduler_name=NAME)
        bench.wait_bound("second")
        assert bench.wait_event("second", "Scheduled")["reportingController"] == NAME
        assert holder() not in ("", before)
        bench.pod("big", "64Gi", scheduler_name=NAME)
        bench.wait_unschedulable("big")
        # Victims of preemption are deleted by it.
        critical = pod_manifest("critical", {"memory": "4Gi"}, namespace=bench.namespace, scheduler_name=NAME)
        api.create({**critical, "spec": {**critical["spec"], "priorityClassName": "system-node-critical"}})
        bench.wait_event("critical", "FailedScheduling")
        bench.wait_pod("first", lambda pod: pod["metadata"].get("deletionTimestamp"), "evicted")
        # Gangs wait, and say what is missing.
        create_member(bench, "member")
        event = bench.wait_event("member", "WaitingForGang")
        assert "may not: create configmaps, get configmaps, update configmaps" in event["note"]
        assert wholepod.terminate() == 0


def test_with_what_gangs_take_it_places_gangs(
    bench: Workbench, authority: trustme.CA, tmp_path: Path
) -> None:
    bench.plane.kubectl("apply", f"--filename={FOLDER / 'gangs.yaml'}")
    bench.node("node")
    kubeconfig = kubeconfig_with_certificate(bench.plane, authority, tmp_path)
    with static_pod(kubeconfig, tmp_path / "log") as wholepod:
        create_member(bench, "member")
        bench.wait_bound("member")
        assert not wholepod.said("gangs are not served")
        assert wholepod.terminate() == 0
    bench.api.get("/api/v1/namespaces/kube-system/configmaps/kube-scheduler-journal")


def create_member(bench: Workbench, name: str) -> None:
    """Of a gang of its own."""
    member = pod_manifest(name, {}, namespace=bench.namespace, scheduler_name=NAME)
    member["metadata"]["annotations"] = {"wholepod.io/gang": name, "wholepod.io/min-count": "1"}
    bench.api.create(member)
