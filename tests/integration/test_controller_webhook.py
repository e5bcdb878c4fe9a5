"""The validating webhook, registered with a real API server: what users are told, and that it is never in the
way."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
import trustme
import yaml

from tests.cluster import ApiError, ControlPlane
from tests.cluster.ports import free_port
from tests.integration.controlling import (
    CREATE,
    DEPLOY,
    GROUPS,
    LABEL,
    Stage,
    account,
    job,
    staged,
    stateful_set,
    template,
)
from tests.integration.harness import Controller, Json, eventually

CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles:
- schedulerName: wholepod
  gangs:
    strategies: [atomic, hoarding]
    maxHoldTimeout: 10m
"""
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """With the webhook of deploy/overlays/webhook/webhook.yaml, but for where it is."""
    folder = tmp_path_factory.mktemp("webhook")
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_pem.write_to_path(folder / "tls.key")
    for blob in pair.cert_chain_pems:
        blob.write_to_path(folder / "tls.crt", append=True)
    (folder / "wholepod.yaml").write_text(CONFIGURATION)
    port = free_port()
    flags = (
        f"--config={folder / 'wholepod.yaml'}",
        f"--webhook-address=127.0.0.1:{port}",
        f"--webhook-cert-file={folder / 'tls.crt'}",
        f"--webhook-key-file={folder / 'tls.key'}",
    )
    with Controller(*flags, kubeconfig=account(plane), log=folder / "controller.log") as controller:
        bundle = base64.b64encode(authority.cert_pem.bytes()).decode()
        plane.api.post(HOOKS, _configuration(f"https://127.0.0.1:{port}/validate", bundle))
        eventually(lambda: _is_asked(plane, controller), "the API server asks the webhook")
        yield controller
        assert controller.records("a defect of the controller: an object was admitted unjudged") == []


@pytest.fixture
def stage(plane: ControlPlane, controller: Controller) -> Iterator[Stage]:
    with staged(plane) as stage:
        yield stage
        controller.show_log()


def refused(stage: Stage, manifest: Json) -> str:
    """What kubectl says; fails if it is not refused."""
    code, text = stage.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    assert code == 1, text
    assert 'admission webhook "' in text
    return text


def warnings(stage: Stage, manifest: Json) -> list[str]:
    """What kubectl warns of; fails if the manifest is refused."""
    code, text = stage.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    assert code == 0, text
    return [line.removeprefix("Warning: ") for line in text.splitlines() if line.startswith("Warning: ")]


def test_a_group_with_an_unknown_strategy(stage: Stage) -> None:
    assert (
        "annotation wholepod.io/strategy must be one of atomic, hoarding, optimistic, got 'eager'"
        in refused(stage, _group({"wholepod.io/strategy": "eager"}))
    )


def test_a_group_over_the_caps(stage: Stage) -> None:
    text = refused(stage, _group({"wholepod.io/strategy": "optimistic"}))
    assert (
        "optimistic is none of the strategies (atomic, hoarding) that gangs.strategies of profile wholepod"
        in text
    )
    [cut] = warnings(stage, _group({"wholepod.io/hold-timeout": "1h"}))
    assert (
        cut == "annotation wholepod.io/hold-timeout is cut to 600s, gangs.maxHoldTimeout of profile wholepod"
    )


def test_a_group_that_turns_bad(stage: Stage) -> None:
    assert warnings(stage, _group({})) == []
    code, text = stage.kubectl("annotate", "podgroup", "g", "wholepod.io/hold-timeout=soon")
    assert code == 1
    assert "annotation wholepod.io/hold-timeout must be a duration such as 90s, 5m or 1h, got 'soon'" in text


def test_a_job_that_asks_for_more_members_than_it_has(stage: Stage) -> None:
    annotations = {CREATE: "true", "wholepod.io/min-count": "4"}
    text = refused(stage, job("train", 3, annotations=annotations, labels={LABEL: "train"}))
    assert "wholepod.io/min-count is 4, but only 3 pods run at a time (spec.parallelism)" in text
    assert "lower wholepod.io/min-count to 3 or less, or run more pods" in text


def test_a_job_whose_template_lacks_the_label(stage: Stage) -> None:
    text = refused(stage, job("train", 3, annotations={CREATE: "true"}, labels={}))
    assert f"add the label {LABEL}: train to spec.template.metadata.labels" in text


def test_a_stateful_set_that_could_never_be_complete(stage: Stage) -> None:
    text = refused(stage, stateful_set("db", 2, labels={LABEL: "db"}))
    assert "spec.podManagementPolicy is OrderedReady: set it to Parallel" in text
    assert warnings(stage, stateful_set("db", 2, labels={LABEL: "db"}, podManagementPolicy="Parallel")) == []
    # Scaled to nothing it is not wrong, only off.
    code, text = stage.kubectl("scale", "statefulset", "db", "--replicas=0")
    assert code == 0, text


def test_a_gang_of_annotations(stage: Stage) -> None:
    gang = {"wholepod.io/gang": "g", "wholepod.io/min-count": "three"}
    pod: Json = {"apiVersion": "v1", "kind": "Pod", **template({}, gang)}
    pod["metadata"]["name"] = "p"
    text = refused(stage, pod)
    assert "annotation wholepod.io/min-count of a pod with wholepod.io/gang must be a whole number" in text
    # Others' pods may make up for what one Job lacks.
    small = job(
        "train", 2, annotations={}, labels={}, template_annotations={**gang, "wholepod.io/min-count": "3"}
    )
    [warning] = warnings(stage, small)
    assert warning.startswith("spec.template: wholepod.io/min-count is 3, but only 2 pods run at a time")
    assert warning.endswith("(unless other workloads' pods belong to gang g, too)")


def test_pods_of_other_schedulers_are_not_looked_at(stage: Stage) -> None:
    other = job("other", 3, annotations={CREATE: "true"}, labels={})
    other["spec"]["template"]["spec"]["schedulerName"] = "default-scheduler"
    assert warnings(stage, other) == []


def test_a_shared_port_is_warned_of(stage: Stage) -> None:
    manifest = job("web", 1, annotations={}, labels={})
    ports = [{"containerPort": 8080}]
    manifest["spec"]["template"]["spec"]["containers"] = [
        {"name": name, "image": "pause", "ports": ports} for name in ("a", "b")
    ]
    found = [text for text in warnings(stage, manifest) if "share one network namespace" in text]
    [text] = found
    assert text.startswith("spec.template: containers a and b declare the same port 8080/TCP; ")
    # Who reads no warnings finds an event at each pod.
    pods = stage.pods.wait(
        lambda seen: [key for key in seen if key.startswith(f"{stage.namespace}/web-")],
        "the Job's pod exists",
    )
    stage.wait_event(pods[0].partition("/")[2], "SharedPort")


def test_an_object_that_was_wrong_before_can_still_be_changed(stage: Stage) -> None:
    hook = stage.api.get(f"{HOOKS}/wholepod")
    stage.api.delete(f"{HOOKS}/wholepod")
    eventually(lambda: _admitted(stage, "probe"), "the webhook is not asked any more")
    stage.api.post(
        f"/apis/batch/v1/namespaces/{stage.namespace}/jobs",
        job("old", 3, annotations={CREATE: "true"}, labels={}),
    )
    hook["metadata"] = {"name": "wholepod"}
    stage.api.post(HOOKS, hook)
    eventually(lambda: not _admitted(stage, "probe"), "the webhook is asked again")
    code, text = stage.kubectl("label", "job", "old", "some=label")
    assert code == 0, text
    code, text = stage.kubectl("annotate", "job", "old", "wholepod.io/strategy=eager")
    assert code == 1, "that one is new"
    code, text = stage.kubectl("delete", "job", "old", "--wait=false")
    assert code == 0, text


def test_nobody_is_kept_waiting_by_a_controller_that_is_down(stage: Stage, controller: Controller) -> None:
    controller.kill()
    try:
        assert warnings(stage, _group({"wholepod.io/strategy": "eager"})) == []
    finally:
        controller.start()


def _group(annotations: dict[str, str]) -> Json:
    return {
        "apiVersion": "scheduling.x-k8s.io/v1alpha1",
        "kind": "PodGroup",
        "metadata": {"name": "g", "annotations": annotations},
        "spec": {"minMember": 2},
    }


def _configuration(url: str, bundle: str) -> Json:
    configuration: Json = yaml.safe_load((DEPLOY / "overlays" / "webhook" / "webhook.yaml").read_text())
    for hook in configuration["webhooks"]:
        hook["clientConfig"] = {"url": url, "caBundle": bundle}
        # A machine under load must not look like a controller that is down.
        hook["timeoutSeconds"] = 30
    return configuration


def _is_asked(plane: ControlPlane, controller: Controller) -> bool:
    """A group that has to be refused is; until then it is created in vain."""
    path = f"{GROUPS}/namespaces/default/podgroups"
    try:
        plane.api.post(f"{path}?dryRun=All", _group({"wholepod.io/strategy": "eager"}))
    except ApiError:
        return controller.metric("wholepod_controller_admission_reviews_total", answer="refused") > 0
    return False


def _admitted(stage: Stage, name: str) -> bool:
    manifest = _group({"wholepod.io/strategy": "eager"})
    manifest["metadata"]["name"] = name
    code, _ = stage.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
    return code == 0
