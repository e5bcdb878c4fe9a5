"""The release's whole life on a real API server: installed, used, upgraded, rolled back, gone.

No kubelet runs the image here. The scheduler runs beside, from the rendered configuration and under the
release's account, so what is shown is that its roles and its configuration are enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import HelmError, Json, helm
from tests.chart.schema import CHART, CRD
from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.integration.harness import Scheduler, eventually

NAMESPACE, RELEASE = "scheduling", "wholepod"
LABEL = "app.kubernetes.io/instance=wholepod"
KINDS = (
    "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,clusterroles,"
    "clusterrolebindings,poddisruptionbudgets,leases,validatingwebhookconfigurations,customresourcedefinitions"
)


class Release:
    """`helm` on a control plane."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def __call__(self, verb: str, *arguments: str | Path) -> str:
        where = (f"--kubeconfig={self.plane.kubeconfig}", f"--namespace={NAMESPACE}")
        return helm(verb, RELEASE, *arguments, *where)

    def install(self, *values: str) -> None:
        self("install", CHART, "--create-namespace", *values)

    def there(self) -> set[tuple[str, str]]:
        """(kind, name) of all objects of the release."""
        listed = self.plane.kubectl("get", KINDS, "--all-namespaces", f"--selector={LABEL}", "--output=json")
        return {(item["kind"], item["metadata"]["name"]) for item in json.loads(listed)["items"]}

    def configuration(self) -> Json:
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/wholepod"
        found: Json = yaml.safe_load(self.plane.api.get(path)["data"]["config.yaml"])
        return found


@pytest.fixture
def release() -> Iterator[Release]:
    with ControlPlane(controller_manager=False) as plane:
        yield Release(plane)


def test_the_life_of_a_release(release: Release, tmp_path: Path) -> None:
    plane, api = release.plane, release.plane.api
    release.install("--set=webhook.enabled=true", "--set=crds.keep=false")
    installed = release.there()
    assert {kind for kind, _ in installed} >= {"Deployment", "Lease", "Secret", "CustomResourceDefinition"}

    # It works with what it was given; the address and the certificate are those of a pod.
    configuration = release.configuration()
    configuration |= {"bindAddress": "127.0.0.1:0", "authorization": "none", "tls": {}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration))
    account = plane.kubeconfig_for_account("wholepod", namespace=NAMESPACE)
    with Scheduler(f"--config={config}", kubeconfig=account, log=tmp_path / "log") as scheduler:
        api.create(node_manifest("node", memory="4Gi", cpu="8"))
        for name in ("a", "b"):
            manifest = pod_manifest(name, {"memory": "1Gi"})
            manifest["metadata"]["annotations"] = {"wholepod.io/gang": "pair", "wholepod.io/min-count": "2"}
            api.create(manifest)

        def placed() -> bool:
            pods = api.get("/api/v1/namespaces/default/pods")["items"]
            return [pod["spec"].get("nodeName") for pod in pods] == ["node", "node"]

        eventually(placed, "both are placed")
        assert scheduler.terminate() == 0

    # An upgrade changes what it is told to and keeps the rest; a rollback takes it back.
    secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/wholepod-tls"
    certificate = api.get(secret)["data"]
    journal = api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/wholepod-journal")["data"]
    release("upgrade", CHART, "--reuse-values", "--set=configuration.clientConnection.qps=77")
    assert release.configuration()["clientConnection"]["qps"] == 77
    assert api.get(secret)["data"] == certificate
    assert api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/wholepod-journal")["data"] == journal
    release("rollback", "1")
    assert release.configuration()["clientConnection"]["qps"] == 200
    assert release.there() == installed

    release("uninstall")
    assert release.there() == set()
    left = json.loads(plane.kubectl("get", KINDS, f"--namespace={NAMESPACE}", "--output=json"))["items"]
    assert [i["metadata"]["name"] for i in left if "wholepod" in i["metadata"]["name"]] == []


def test_a_crd_of_somebody_else_is_left_alone(release: Release) -> None:
    crd = yaml.safe_load(CRD.read_text())
    crd["metadata"]["labels"] = {"whose": "others"}
    release.plane.kubectl("create", "--filename=-", stdin=yaml.safe_dump(crd))
    release.install()
    assert not any(kind == "CustomResourceDefinition" for kind, _ in release.there())
    release("uninstall")
    listed = release.plane.kubectl("get", "customresourcedefinitions", "--output=json")
    [left] = json.loads(listed)["items"]
    assert left["metadata"]["labels"] == crd["metadata"]["labels"]


def test_our_own_crd_stays_when_the_release_goes(release: Release) -> None:
    release.install()
    release("upgrade", CHART)
    release("uninstall")
    assert release.there() == {("CustomResourceDefinition", "podgroups.scheduling.x-k8s.io")}
    release.install()  # finds it, and is content


def test_a_mistake_installs_nothing(release: Release) -> None:
    with pytest.raises(HelmError, match="additional properties 'replicas' not allowed"):
        release.install("--set=replicas=3")
    assert release.there() == set()
