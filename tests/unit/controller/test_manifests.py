"""What deploy/ says of the controller is what the controller is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler.config import DEFAULT_SCHEDULER_NAME
from scheduler.controller import crds
from scheduler.controller.admission import KINDS
from scheduler.controller.metrics import Metrics
from scheduler.controller.rights import CONTROLLER, CRD_MANIFEST, INSTALL_CRDS, MANIFEST
from scheduler.controller.wanted import WantedGroup, wanted_group
from scheduler.controller.webhook import PATH
from scheduler.controller.workloads import workload
from scheduler.kube.permissions import DELEGATION, Permission
from tests.unit.test_rbac import granted

ROOT = Path(__file__).parents[3]


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / name).read_text()))


@pytest.mark.parametrize(
    ("name", "wanted"), [(MANIFEST, [*CONTROLLER, *DELEGATION]), (CRD_MANIFEST, INSTALL_CRDS)]
)
def test_roles_grant_what_it_asks_for_at_start_and_no_more(name: str, wanted: list[Permission]) -> None:
    [role] = [each for each in manifests(name) if each["kind"] == "ClusterRole"]
    assert sorted(granted(role), key=str) == sorted(((p, ()) for p in wanted), key=str)


@pytest.mark.parametrize("name", [MANIFEST, CRD_MANIFEST])
def test_roles_are_bound_to_its_own_account(name: str) -> None:
    [role] = [each for each in manifests(name) if each["kind"] == "ClusterRole"]
    [binding] = [each for each in manifests(name) if each["kind"] == "ClusterRoleBinding"]
    [account] = [each for each in manifests(MANIFEST) if each["kind"] == "ServiceAccount"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    [subject] = binding["subjects"]
    for key in ("name", "namespace"):
        assert subject[key] == account["metadata"][key]


def test_the_crd_in_the_package_is_the_one_in_deploy() -> None:
    assert crds.manifest() == (ROOT / "deploy/crd-podgroups.yaml").read_text()


def test_the_webhook_is_in_nobodys_way_and_asks_where_it_is_served() -> None:
    [configuration] = manifests("deploy/overlays/webhook/webhook.yaml")
    for hook in configuration["webhooks"]:
        assert hook["failurePolicy"] == "Ignore"
        assert hook["sideEffects"] == "None"
        assert hook["timeoutSeconds"] <= 2
        assert hook["clientConfig"]["service"]["path"] == PATH
    [pods, others] = configuration["webhooks"]
    assert pods["matchConditions"][0]["expression"].endswith(f"in ['{DEFAULT_SCHEDULER_NAME}']")
    plurals = {plural for hook in (pods, others) for rule in hook["rules"] for plural in rule["resources"]}
    assert plurals == {f"{kind.lower()}s" for kind in KINDS}


def test_every_metric_is_documented() -> None:
    metrics = Metrics()
    metrics.watch(phases=dict, queues={}, restarts=lambda: 0)
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
    }
    rows = (ROOT / "docs/controller.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    assert {f"`{name}`" for name in names} == set(re.findall(r"^\| (`\w+`) ", rows, re.MULTILINE))


def test_the_documented_job_gets_its_group() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/controller.md").read_text(), re.DOTALL)
    wanted = wanted_group(workload("Job", yaml.safe_load(text)))
    assert wanted == WantedGroup("train", 4, {"wholepod.io/strategy": "hoarding"})
