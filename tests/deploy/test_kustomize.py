"""deploy/ as kustomize builds it: equal to the chart, valid in every minor, taken by a real API server."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.chart.test_chart import MINORS, OF_OPERATORS
from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.cluster.errors import ClusterError
from tests.deploy import generate
from tests.deploy.generate import CONFIG_MAP, DEPLOY, NAMESPACE, OVERLAYS, SECRET, Overlay, identity, rendered
from tests.deploy.kubectl import Json, build
from tests.integration.harness import Scheduler, eventually

SECOND = DEPLOY / "overlays" / "second-scheduler"
EACH = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
TIMEOUT = "--timeout=120s"


def folder(overlay: Overlay) -> Path:
    return DEPLOY / "overlays" / overlay.name


def test_the_files_are_those_that_the_chart_makes() -> None:
    for path, text in generate.files().items():
        assert (DEPLOY / path).read_text() == text, "run `make chart`"


def by_identity(items: list[Json]) -> dict[tuple[str, str], Json]:
    """Objects by kind and name; the hash that kustomize puts behind the configuration's name left out."""
    text = re.sub(rf'"{CONFIG_MAP}(-[2456789bcdfghkmt]{{10}})?"', '"wholepod"', json.dumps(items))
    found = {identity(item): item for item in json.loads(text)}
    assert len(found) == len(items)
    return found


@EACH
def test_an_overlay_is_what_the_chart_installs_with_its_values(overlay: Overlay) -> None:
    chart = by_identity(
        [
            yaml.safe_load(text)
            for template, text in rendered(overlay.values)
            if not template.startswith("tests/")
        ]
    )
    built = by_identity(build(folder(overlay)))
    configurations = [found.pop(("ConfigMap", "wholepod")) for found in (built, chart)]
    assert built == chart
    files = [yaml.safe_load(item["data"].pop("config.yaml")) for item in configurations]
    assert files[0] == files[1]
    assert configurations[0] == configurations[1]


def test_a_new_configuration_is_a_new_rollout(tmp_path: Path) -> None:
    configuration = {"name": CONFIG_MAP, "namespace": NAMESPACE, "files": ["config.yaml"]}
    overlay = {
        "resources": [os.path.relpath(SECOND, tmp_path)],
        "configMapGenerator": [{**configuration, "behavior": "replace"}],
    }
    (tmp_path / "config.yaml").write_text("profiles: []\n")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))

    def configurations(kustomization: Path) -> set[str]:
        """What the Deployments mount."""
        return {
            volume["configMap"]["name"]
            for item in build(kustomization)
            if item["kind"] == "Deployment"
            for volume in item["spec"]["template"]["spec"]["volumes"]
            if "configMap" in volume
        }

    [ours], [theirs] = configurations(SECOND), configurations(tmp_path)
    assert ours.startswith(CONFIG_MAP)
    assert theirs.startswith(CONFIG_MAP)
    assert ours != theirs


@pytest.mark.parametrize("minor", MINORS)
@EACH
def test_every_object_is_valid_in_every_minor(overlay: Overlay, minor: str) -> None:
    for item in build(folder(overlay)):
        if item["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(item, f"{minor}.0", strict=True)


# ---- On a real API server.


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(scheduler=True, kwok=True) as plane:
        for name in ("node-1", "node-2"):
            plane.api.create(node_manifest(name, memory="8Gi", cpu="8"))
        for kind in OF_OPERATORS:
            plane.kubectl("create", "--filename=-", stdin=json.dumps(any_object(kind)))
        plane.kubectl(
            *("create", "secret", "generic", SECRET, f"--namespace={NAMESPACE}", "--type=kubernetes.io/tls"),
            *("--from-literal=tls.crt=c", "--from-literal=tls.key=k", "--from-literal=ca.crt=a"),
        )
        yield plane


def any_object(kind: str) -> Json:
    """A CRD in the place of the Prometheus operator's."""
    names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower(), "listKind": f"{kind}List"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "names": names,
            "scope": "Namespaced",
            "versions": [version],
        },
    }


@EACH
def test_a_cluster_takes_it_runs_it_and_gives_it_back(overlay: Overlay, plane: ControlPlane) -> None:
    where = f"--kustomize={folder(overlay)}"
    eventually(
        lambda: all(f" {kind}\n" in plane.kubectl("api-resources") for kind in OF_OPERATORS),
        "they are served",
    )
    plane.kubectl("apply", "--server-side", "--dry-run=server", where)
    plane.kubectl("apply", where)
    for deployment in ("wholepod", "wholepod-controller"):
        plane.kubectl("rollout", "status", f"--namespace={NAMESPACE}", f"deployment/{deployment}", TIMEOUT)
    versions = "--output=jsonpath={.items[*].metadata.generation}"
    before = plane.kubectl("get", versions, where)
    plane.kubectl("apply", where)
    assert plane.kubectl("get", versions, where) == before, "applied again it changes nothing"
    plane.kubectl("delete", "--wait=true", where)
    label = "--selector=app.kubernetes.io/instance=wholepod"
    kinds = {item["kind"] for item in build(folder(overlay))}
    assert plane.kubectl("get", ",".join(sorted(kinds)), "--all-namespaces", label, "--output=name") == ""


def may_update_the_lease(plane: ControlPlane) -> bool:
    account = f"--as=system:serviceaccount:{NAMESPACE}:wholepod"
    try:
        plane.kubectl("auth", "can-i", "update", "leases/wholepod", f"--namespace={NAMESPACE}", account)
    except ClusterError:
        return False
    return True


def test_its_account_and_configuration_place_pods(plane: ControlPlane, tmp_path: Path) -> None:
    """The scheduler runs beside, since kwok runs no images; the address and the certificate are a pod's."""
    plane.kubectl("apply", f"--kustomize={SECOND}")
    configuration = yaml.safe_load((SECOND / "config.yaml").read_text())
    configuration |= {"bindAddress": "127.0.0.1:0", "authorization": "none", "tls": {}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration))
    account = plane.kubeconfig_for_account("wholepod", namespace=NAMESPACE)
    eventually(lambda: may_update_the_lease(plane), "the API server has seen the new roles")
    with Scheduler(f"--config={config}", kubeconfig=account, log=tmp_path / "log") as scheduler:
        for name in ("a", "b"):
            manifest = pod_manifest(name, {"memory": "1Gi"})
            manifest["metadata"]["annotations"] = {"wholepod.io/gang": "pair", "wholepod.io/min-count": "2"}
            plane.api.create(manifest)

        def placed() -> bool:
            pods = plane.api.get("/api/v1/namespaces/default/pods")["items"]
            return all(pod["spec"].get("nodeName") for pod in pods)

        eventually(placed, "the gang is placed")
        assert scheduler.terminate() == 0
    plane.kubectl("delete", "--wait=true", f"--kustomize={SECOND}")
