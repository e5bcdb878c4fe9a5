"""CRDs of PodGroups: ours is installed where there is none; another's is left as it is, and put up with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import ControlPlane
from tests.integration.controlling import CRDS, DEPLOY, GROUPS, account, exists, staged
from tests.integration.harness import Controller, Json, eventually

NAME = "podgroups.scheduling.x-k8s.io"


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


def upstreams() -> Json:
    """As far as it matters, the CRD of scheduler-plugins: a status without conditions and `scheduled`."""
    crd: Json = yaml.safe_load((DEPLOY / "crd-podgroups.yaml").read_text())
    crd["metadata"]["annotations"]["controller-gen.kubebuilder.io/version"] = "v0.14.0"
    [version] = crd["spec"]["versions"]
    version["additionalPrinterColumns"] = []
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    del status["conditions"], status["scheduled"]
    return crd


def test_installing_takes_the_right_to_and_is_done_once(plane: ControlPlane, log: Path) -> None:
    kubeconfig = account(plane)
    controller = Controller("--install-crds", kubeconfig=kubeconfig, log=log)
    controller.launch()
    assert controller.wait() == 3
    text = log.read_text()
    assert "create customresourcedefinitions.apiextensions.k8s.io" in text
    assert "deploy/rbac-controller-crds.yaml" in text
    assert exists(plane, f"{CRDS}/{NAME}") is None
    # Without a CRD it runs, and waits for one.
    with Controller(kubeconfig=kubeconfig, log=log) as waiting:
        plane.kubectl("apply", "-f", str(DEPLOY / "rbac-controller-crds.yaml"))
        with Controller("--install-crds", kubeconfig=kubeconfig, log=log.with_name("other")) as installing:
            assert installing.said("installed the CRD of PodGroups")
        eventually(lambda: exists(plane, f"{GROUPS}/podgroups"), "PodGroups are served")
        with staged(plane) as stage:
            stage.group("g", 1)
            assert stage.wait_status("g", phase="Pending")["scheduled"] == 0
        # One, if kopf looked at the CRD before its kind was served.
        assert waiting.metric("wholepod_controller_following_restarts") <= 1
    found = plane.api.get(f"{CRDS}/{NAME}")
    with Controller("--install-crds", kubeconfig=kubeconfig, log=log) as again:
        assert again.said("the CRD of PodGroups is installed already and is left as it is")
    assert plane.api.get(f"{CRDS}/{NAME}")["metadata"]["generation"] == found["metadata"]["generation"]


def test_anothers_crd_is_left_alone_and_put_up_with(plane: ControlPlane, log: Path) -> None:
    kubeconfig = account(plane)
    plane.kubectl("apply", "-f", str(DEPLOY / "rbac-controller-crds.yaml"))
    created = plane.api.post(CRDS, upstreams())
    eventually(lambda: exists(plane, f"{GROUPS}/podgroups"), "PodGroups are served")
    with (
        staged(plane) as stage,
        Controller("--install-crds", kubeconfig=kubeconfig, log=log) as controller,
    ):
        stage.group("g", 1, scheduleTimeoutSeconds=1)
        stage.wait_status("g", phase="Pending")
        stage.member("a", "g")
        stage.wait_status("g", phase="Scheduling")
        stage.wait_event_of("PodGroup", "g", "ScheduleTimeout")
        stage.bind("a", "node")
        stage.set_phase("a", "Running")
        status = stage.wait_status("g", phase="Running", running=1)
        assert "conditions" not in status
        assert "scheduled" not in status
        # What is not stored is not written again and again.
        fields = {
            each["field"]
            for each in controller.records("the installed CRD of PodGroups has no such field of the status")
        }
        assert fields == {"conditions", "scheduled"}
        assert controller.metric("wholepod_controller_status_writes_total", outcome="written") <= 4
        crd = plane.api.get(f"{CRDS}/{NAME}")
        assert crd["metadata"]["generation"] == created["metadata"]["generation"]
        assert crd["spec"] == created["spec"] | {"conversion": crd["spec"]["conversion"]}
