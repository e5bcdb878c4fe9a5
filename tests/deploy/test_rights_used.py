"""Each right that the manifests grant is used, and nothing else is asked for: by the audit log.

Scheduler and controller run under their accounts on a real API server, through a scene with everything that
they ever have to do; what the API server has logged of each account is compared with its role. Answers are
lost here and there, since some rights are for nothing else than to find out what became of a write.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from scheduler.kube.permissions import Permission
from tests.cluster import ControlPlane, pod_manifest
from tests.cluster.assets import asked_minor
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.deploy.generate import DEPLOY, NAMESPACE
from tests.deploy.rights import granted
from tests.integration.controlling import CRDS, CREATE, LABEL, staged, stateful_set, template, with_crd
from tests.integration.forger import Fault, Forger
from tests.integration.harness import Controller, Json, Scheduler, eventually
from tests.integration.observer import Observer
from tests.integration.storage import CLAIMS, VOLUMES, Provisioner, Storage, host
from tests.integration.test_controller import JOB_SETS, job_set_crd

pytestmark = pytest.mark.skipif(
    asked_minor() is not None, reason="PodGroups of scheduling.k8s.io are served since Kubernetes 1.37"
)

CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles: [{schedulerName: wholepod}, {schedulerName: default-scheduler}]
authorization: delegated
"""
PAGES = {"WatchList": False}
"""As in 1.33: where lists can be streamed through watches, nothing is listed otherwise."""
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
REVIEWS = Permission("create", "selfsubjectaccessreviews", "authorization.k8s.io")
"""Of its own rights, which everybody may ask for."""


class Audit:
    """What an API server has logged."""

    def __init__(self, folder: Path) -> None:
        policy, self._log = folder / "policy.yaml", folder / "audit.log"
        policy.write_text(yaml.safe_dump(POLICY))
        self.flags = [f"--audit-policy-file={policy}", f"--audit-log-path={self._log}"]

    def used(self, account: str) -> set[Permission]:
        """What a ServiceAccount asked for, and was let do."""
        found = set()
        for line in self._log.read_text().splitlines():
            event = json.loads(line)
            asked = event.get("objectRef", {})
            if event["user"]["username"] == f"system:serviceaccount:{NAMESPACE}:{account}" and asked:
                assert event["annotations"]["authorization.k8s.io/decision"] == "allow", event
                names = (asked["resource"], asked.get("apiGroup", ""), asked.get("subresource", ""))
                found.add(Permission(event["verb"], *names))
        return found - {REVIEWS}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return Audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def plane(audit: Audit) -> Iterator[ControlPlane]:
    with ControlPlane(
        feature_gates=POD_GROUPS_GATES | PAGES, runtime_config=POD_GROUPS_SERVED, apiserver_flags=audit.flags
    ) as plane:
        for manifest in ("rbac.yaml", "rbac-controller.yaml"):
            plane.kubectl("apply", f"--filename={DEPLOY / 'base' / manifest}")
        with_crd(plane)
        plane.api.post(CRDS, job_set_crd())
        eventually(lambda: " JobSet\n" in plane.kubectl("api-resources"), "JobSets are served")
        yield plane


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How to serve metrics to whom the API server lets, and to ask for them."""
    folder, authority = tmp_path_factory.mktemp("serving"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    config = folder / "config.yaml"
    config.write_text(f"{CONFIGURATION}tls: {{certFile: {folder}/tls.crt, keyFile: {folder}/tls.key}}\n")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return {"flag": f"--config={config}", "tls": trusting}


def assert_all_is_used(manifest: str, audit: Audit, account: str) -> None:
    rights, used = {right.permission for right in granted(manifest)}, audit.used(account)
    assert sorted(map(str, rights - used)) == [], "granted, and never used"
    assert used <= rights


def test_the_scheduler(plane: ControlPlane, audit: Audit, serving: dict[str, Any], tmp_path: Path) -> None:
    account = json.loads(plane.kubeconfig_for_account("wholepod", namespace=NAMESPACE).read_text())
    with (
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
        Observer(plane, CLAIMS) as claims,
        Observer(plane, VOLUMES) as volumes,
        Forger(plane) as forger,
    ):
        storage = Storage(plane, pods, events, claims, volumes)
        account["clusters"] = json.loads(forger.kubeconfig().read_text())["clusters"]
        kubeconfig = tmp_path / "account.kubeconfig"
        kubeconfig.write_text(json.dumps(account))
        forger.faults += [
            Fault(pattern, "lose answer")
            for pattern in (
                "POST .*/pods/first/binding",
                "PATCH .*/persistentvolumes/disk",
                "PATCH .*/persistentvolumeclaims/made",
            )
        ]
        with (
            Provisioner(storage),
            Scheduler(
                serving["flag"], kubeconfig=kubeconfig, log=tmp_path / "log", tls=serving["tls"]
            ) as scheduler,
        ):
            play_for_the_scheduler(storage)
            assert scheduler.request("/metrics", token=plane.users["stranger"].token)[0] == 403
            assert scheduler.terminate() == 0
        storage.clear()
    assert_all_is_used("base/rbac.yaml", audit, "wholepod")


def play_for_the_scheduler(storage: Storage) -> None:
    api, namespace = storage.api, storage.namespace
    storage.node("node", **host("node"))
    storage.pod("first", priority=0)
    storage.wait_bound("first")
    storage.pod("big", "64Gi", priority=0)
    storage.wait_unschedulable("big")
    # A volume that is there, and one that is made.
    storage.volume("disk", on="node")
    storage.claim("kept", "local")
    storage.claim("made", "made")
    storage.consumer("consumer", "kept", "made", priority=0)
    storage.wait_bound("consumer")
    # A gang of Kubernetes' own.
    api.create(
        {
            "apiVersion": "scheduling.k8s.io/v1beta1",
            "kind": "PodGroup",
            "metadata": {"name": "gang", "namespace": namespace},
            "spec": {"schedulingPolicy": {"gang": {"minCount": 1}}},
        }
    )
    group = {"podGroupName": "gang"}
    api.create(pod_manifest("member", {}, namespace=namespace, schedulingGroup=group))
    storage.wait_bound("member")
    path = f"/apis/scheduling.k8s.io/v1beta1/namespaces/{namespace}/podgroups/gang"
    eventually(lambda: api.get(path).get("status", {}).get("conditions"), "the group is told")
    # Victims.
    storage.pod("critical", "4Gi", priorityClassName="system-node-critical")
    storage.wait_pod("first", lambda pod: pod["metadata"].get("deletionTimestamp"), "evicted")


def test_the_controller(plane: ControlPlane, audit: Audit, serving: dict[str, Any], tmp_path: Path) -> None:
    kubeconfig = plane.kubeconfig_for_account("wholepod-controller", namespace=NAMESPACE)
    with (
        staged(plane) as stage,
        Controller(
            serving["flag"], kubeconfig=kubeconfig, log=tmp_path / "log", tls=serving["tls"]
        ) as controller,
    ):
        stage.job("job", 2, annotations={CREATE: "true"}, labels={LABEL: "job"})
        sets = f"/apis/apps/v1/namespaces/{stage.namespace}/statefulsets"
        stage.api.post(sets, stateful_set("set", 2, labels={LABEL: "set"}, podManagementPolicy="Parallel"))
        jobs: Json = {"parallelism": 1, "completions": 1, "template": template({LABEL: "jobset"}, {})}
        stage.api.post(
            f"{JOB_SETS}/namespaces/{stage.namespace}/jobsets",
            {
                "apiVersion": "jobset.x-k8s.io/v1alpha2",
                "kind": "JobSet",
                "metadata": {"name": "jobset", "annotations": {CREATE: "true"}},
                "spec": {"replicatedJobs": [{"name": "a", "replicas": 1, "template": {"spec": jobs}}]},
            },
        )
        for name in ("job", "set", "jobset"):
            stage.wait_status(name, phase="Pending" if name == "jobset" else "Scheduling")
        stage.api.patch(f"{sets}/set", {"spec": {"replicas": 3}})
        stage.wait_group("set", lambda group: group["spec"]["minMember"] == 3, "has 3 members")
        stage.api.post(sets, stateful_set("slow", 2, labels={LABEL: "slow"}))
        stage.wait_event_of("StatefulSet", "slow", "PodsOneByOne")
        stage.group("regrets", 1)
        stage.member("gone", "regrets")
        stage.wait_status("regrets", phase="Scheduling")
        stage.remove("gone")
        stage.wait_status("regrets", phase="Pending")  # taken back only after a look at the API server
        assert controller.request("/metrics", token=plane.users["stranger"].token)[0] == 403
        assert controller.terminate() == 0
    assert_all_is_used("base/rbac-controller.yaml", audit, "wholepod-controller")
