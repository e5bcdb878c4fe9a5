"""`wholepod controller` on a real API server: what it writes, and what it never writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.integration.controlling import (
    CRDS,
    CREATE,
    LABEL,
    Stage,
    exists,
    said,
    stateful_set,
    template,
)
from tests.integration.harness import Controller, Json, Scheduler, eventually

JOB_SETS = "/apis/jobset.x-k8s.io/v1alpha2"


@pytest.fixture(scope="module")
def shared(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    log = tmp_path_factory.mktemp("controller") / "controller.log"
    with Controller(kubeconfig=kubeconfig, log=log) as controller:
        yield controller
        assert controller.records("a defect of the controller") == []
        assert controller.metric("wholepod_controller_following_restarts") == 0


@pytest.fixture
def controller(shared: Controller) -> Iterator[Controller]:
    yield shared
    shared.show_log()


# Status.


@pytest.mark.usefixtures("controller")
def test_the_phases_of_a_gangs_life(stage: Stage) -> None:
    stage.group("g", 2)
    assert stage.wait_status("g", phase="Pending")["scheduled"] == 0
    stage.member("a", "g")
    stage.wait_group("g", lambda g: said(g, "Scheduled") == ("False", "WaitingForMembers"), "waits")
    stage.member("b", "g")
    status = stage.wait_status("g", phase="Scheduling", scheduled=0)
    start = status["scheduleStartTime"]
    stage.bind("a", "node")
    stage.wait_status("g", phase="Scheduling", scheduled=1)
    stage.bind("b", "node")
    stage.wait_group("g", lambda g: said(g, "Scheduled") == ("True", "Scheduled"), "is scheduled")
    stage.set_phase("a", "Running")
    stage.set_phase("b", "Running")
    status = stage.wait_status("g", phase="Running", running=2, succeeded=0, failed=0)
    assert status["scheduleStartTime"] == start
    stage.set_phase("a", "Succeeded")
    stage.wait_status("g", phase="Running", running=1, succeeded=1)
    stage.set_phase("b", "Succeeded")
    stage.wait_status("g", phase="Finished", running=0, succeeded=2)
    conditions = stage.api.get(stage.group_path("g"))["status"]["conditions"]
    history = {each["type"]: each["status"] for each in conditions}
    assert history == {"Scheduled": "True", "Running": "False", "Finished": "True"}
    # Pods are deleted some time after their end; that they ended well stays.
    stage.remove("a")
    stage.remove("b")
    stage.group("later", 1)
    stage.wait_status("later", phase="Pending")
    assert stage.api.get(stage.group_path("g"))["status"]["phase"] == "Finished"


@pytest.mark.usefixtures("controller")
def test_a_member_that_fails(stage: Stage) -> None:
    stage.group("g", 2)
    for pod in ("a", "b"):
        stage.member(pod, "g")
        stage.bind(pod, "node")
        stage.set_phase(pod, "Running")
    stage.wait_status("g", phase="Running")
    stage.set_phase("a", "Failed")
    stage.wait_status("g", phase="Failed", failed=1, running=1)


@pytest.mark.usefixtures("controller")
def test_members_that_go(stage: Stage) -> None:
    stage.group("g", 1)
    stage.member("a", "g")
    assert "scheduleStartTime" in stage.wait_status("g", phase="Scheduling")
    stage.remove("a")
    assert "scheduleStartTime" not in stage.wait_status("g", phase="Pending")


@pytest.mark.usefixtures("controller")
def test_scheduling_takes_too_long(stage: Stage) -> None:
    stage.group("g", 2, scheduleTimeoutSeconds=2)
    stage.member("a", "g")
    stage.wait_status("g", phase="Pending")
    stage.member("b", "g")
    stage.wait_group("g", lambda g: said(g, "Scheduled") == ("False", "ScheduleTimeout"), "is late")
    event = stage.wait_event_of("PodGroup", "g", "ScheduleTimeout")
    assert event["note"] == (
        "0 of the 2 members that are needed are bound, 2 s (scheduleTimeoutSeconds) after all of them existed"
    )
    assert event["type"] == "Warning"
    # It goes on, and may still come about.
    for pod in ("a", "b"):
        stage.bind(pod, "node")
    stage.wait_group("g", lambda g: said(g, "Scheduled") == ("True", "Scheduled"), "is scheduled")


@pytest.mark.usefixtures("controller")
def test_a_group_of_another_scheduler_is_left_alone(stage: Stage) -> None:
    stage.group("theirs", 1)
    stage.group("ours", 1)
    stage.wait_status("theirs", phase="Pending")
    stage.member("a", "theirs", schedulerName="their-scheduler")
    stage.member("b", "ours")
    stage.wait_status("ours", phase="Scheduling")
    assert stage.api.get(stage.group_path("theirs"))["status"]["phase"] == "Pending"


# Creation.


@pytest.mark.usefixtures("controller")
def test_a_group_for_a_job(stage: Stage) -> None:
    annotations = {CREATE: "true", "wholepod.io/strategy": "hoarding", "example.com/other": "stays here"}
    owner = stage.job("train", 3, annotations=annotations, labels={LABEL: "train"})
    status = stage.wait_status("train", phase="Scheduling")
    assert status["occupiedBy"] == f"{stage.namespace}/train"
    group = stage.api.get(stage.group_path("train"))
    assert group["spec"] == {"minMember": 3}
    assert group["metadata"]["annotations"] == {"wholepod.io/strategy": "hoarding"}
    [reference] = group["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"]) == ("Job", owner["metadata"]["uid"])
    # Nothing is written on users' objects.
    job = stage.api.get(f"/apis/batch/v1/namespaces/{stage.namespace}/jobs/train")
    assert job["metadata"]["annotations"] == annotations
    assert "finalizers" not in job["metadata"]
    assert {each["manager"] for each in job["metadata"]["managedFields"]}.isdisjoint(
        {"wholepod-controller", "kopf"}
    )
    # It goes with its Job.
    stage.api.delete(
        f"/apis/batch/v1/namespaces/{stage.namespace}/jobs/train", propagationPolicy="Background"
    )
    stage.groups.wait(lambda seen: f"{stage.namespace}/train" not in seen, "the group is gone")


@pytest.mark.usefixtures("controller")
def test_a_group_that_is_deleted_comes_back(stage: Stage) -> None:
    stage.job("train", 2, annotations={CREATE: "true"}, labels={LABEL: "train"})
    first = stage.wait_group("train", lambda group: group["metadata"]["uid"], "is there")
    stage.api.delete(stage.group_path("train"))
    stage.wait_group("train", lambda group: group["metadata"]["uid"] != first, "is there again")


@pytest.mark.usefixtures("controller")
def test_a_group_follows_its_stateful_set(stage: Stage) -> None:
    collection = f"/apis/apps/v1/namespaces/{stage.namespace}/statefulsets"
    stage.api.post(collection, stateful_set("db", 2, labels={LABEL: "db"}, podManagementPolicy="Parallel"))
    stage.wait_status("db", phase="Scheduling")
    stage.api.patch(f"{collection}/db", {"spec": {"replicas": 3}})
    stage.wait_group("db", lambda group: group["spec"]["minMember"] == 3, "has 3 members")
    stage.api.patch(f"{collection}/db", {"metadata": {"annotations": {"wholepod.io/min-count": "2"}}})
    stage.wait_group("db", lambda group: group["spec"]["minMember"] == 2, "needs 2 again")


@pytest.mark.usefixtures("controller")
def test_a_stateful_set_that_creates_one_pod_after_the_other(stage: Stage) -> None:
    collection = f"/apis/apps/v1/namespaces/{stage.namespace}/statefulsets"
    stage.api.post(collection, stateful_set("db", 2, labels={LABEL: "db"}))
    event = stage.wait_event_of("StatefulSet", "db", "PodsOneByOne")
    assert "set it to Parallel" in event["note"]
    assert exists(stage.plane, stage.group_path("db")) is None


@pytest.mark.usefixtures("controller")
def test_a_job_whose_pods_name_no_group(stage: Stage) -> None:
    stage.job("train", 2, annotations={CREATE: "true"}, labels={})
    event = stage.wait_event_of("Job", "train", "PodGroupLabelMissing")
    assert f"add the label {LABEL}: train to spec.template.metadata.labels" in event["note"]


@pytest.mark.usefixtures("controller")
def test_a_job_that_names_anothers_group(stage: Stage) -> None:
    stage.group("mine", 5)
    stage.wait_status("mine", phase="Pending")
    stage.job("train", 2, annotations={CREATE: "true"}, labels={LABEL: "mine"})
    stage.wait_event_of("Job", "train", "PodGroupTaken")
    assert stage.api.get(stage.group_path("mine"))["spec"] == {"minMember": 5}


@pytest.mark.usefixtures("controller")
def test_job_sets_once_they_are_served(stage: Stage, plane: ControlPlane) -> None:
    assert exists(plane, f"{JOB_SETS}/jobsets") is None
    plane.api.post(CRDS, job_set_crd())
    eventually(lambda: exists(plane, f"{JOB_SETS}/jobsets"), "JobSets are served")

    def part(name: str, replicas: int, pods: int, labels: dict[str, str]) -> Json:
        spec = {"parallelism": pods, "completions": pods, "template": template(labels, {})}
        return {"name": name, "replicas": replicas, "template": {"spec": spec}}

    label = {LABEL: "set"}
    stage.api.post(
        f"{JOB_SETS}/namespaces/{stage.namespace}/jobsets",
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": "set", "annotations": {CREATE: "true"}},
            "spec": {"replicatedJobs": [part("a", 2, 2, label), part("b", 1, 1, label), part("c", 1, 9, {})]},
        },
    )
    stage.wait_group("set", lambda group: group["spec"]["minMember"] == 5, "is created for the JobSet")
    stage.api.delete(f"{CRDS}/jobsets.jobset.x-k8s.io")
    eventually(lambda: not exists(plane, f"{JOB_SETS}/jobsets"), "JobSets are served no more")
    stage.group("after", 1)
    stage.wait_status("after", phase="Pending")


@pytest.mark.usefixtures("controller")
def test_a_job_from_its_manifest_to_its_end(stage: Stage, plane: ControlPlane, log: Path) -> None:
    """With the scheduler, and nothing made by hand but what kubelets do."""
    with Scheduler("--leader-elect=false", kubeconfig=plane.kubeconfig, log=log) as scheduler:
        stage.job("train", 3, annotations={CREATE: "true"}, labels={LABEL: "train"})
        stage.wait_group("train", lambda g: said(g, "Scheduled") == ("True", "Scheduled"), "is scheduled")
        pods = stage.pods.ask(
            lambda seen: [
                pod["metadata"] for pod in seen.values() if pod["metadata"]["namespace"] == stage.namespace
            ]
        )
        assert len({pod["annotations"]["wholepod.io/txn"] for pod in pods}) == 1, "bound by one commit"
        for phase in ("Running", "Succeeded"):
            for pod in pods:
                stage.set_phase(pod["name"], phase)
            stage.wait_status("train", phase="Finished" if phase == "Succeeded" else phase)
        scheduler.check_cache()


# Ports.


@pytest.mark.usefixtures("controller")
def test_an_event_for_containers_that_share_a_port(stage: Stage) -> None:
    port = {"ports": [{"containerPort": 8080}]}
    containers = [{"name": name, "image": "pause", **port} for name in ("web", "admin")]
    sidecar = {"name": "proxy", "image": "pause", "restartPolicy": "Always", **port}
    stage.pod(
        "p", containers=containers, initContainers=[sidecar, {"name": "init", "image": "pause", **port}]
    )
    event = stage.wait_event("p", "SharedPort")
    assert event["note"].startswith("containers proxy, web and admin declare the same port 8080/TCP; ")
    assert len([each for each in stage.events_of("p") if each["reason"] == "SharedPort"]) == 1


def job_set_crd() -> Json:
    """The least that can be called JobSets."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "jobsets.jobset.x-k8s.io"},
        "spec": {
            "group": "jobset.x-k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "JobSet", "plural": "jobsets", "singular": "jobset"},
            "versions": [
                {
                    "name": "v1alpha2",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                            },
                        }
                    },
                }
            ],
        },
    }
