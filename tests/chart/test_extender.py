"""The extender's part of the chart, which is off unless asked for."""

import kubernetes_validate
import pytest
import yaml

from scheduler.config import parse
from tests.chart.helm import HelmError, Json, render
from tests.unit.extender.test_deploy import RIGHTS, rights
from tests.unit.test_rbac import granted

ON = ("--set=extender.enabled=true", "--set=extender.tls.secretName=extender-tls")


def of_extender(*values: str) -> dict[str, Json]:
    items = render(*ON, *values)
    return {item["kind"]: item for item in items if item["metadata"]["name"].endswith("-extender")}


def test_it_is_off_and_asks_for_a_certificate() -> None:
    assert not [item for item in render() if item["metadata"]["name"].endswith("-extender")]
    with pytest.raises(HelmError, match=r"extender\.tls\.secretName"):
        render("--set=extender.enabled=true")


@pytest.mark.parametrize("minor", ["1.32", "1.37"])
def test_its_objects_are_valid(minor: str) -> None:
    items = of_extender("--set=networkPolicy.enabled=true", "--set=extender.clusterIP=10.96.0.62")
    assert set(items) == {
        *("ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"),
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding"),
    }
    for item in items.values():
        kubernetes_validate.validate(item, f"{minor}.0", strict=True)
    assert items["Service"]["spec"]["clusterIP"] == "10.96.0.62"


def test_its_configuration_is_one() -> None:
    items = of_extender()
    configuration = parse(items["ConfigMap"]["data"]["config.yaml"])
    [profile] = configuration.profiles
    assert (profile.scheduler_name, profile.effective_preset) == ("default-scheduler", "memory-fit")
    spec = items["Deployment"]["spec"]["template"]["spec"]
    mounted = {each["name"] for each in spec["containers"][0]["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in spec["volumes"]}
    secrets = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    assert "extender-tls" in secrets


def test_it_may_do_as_much_as_it_has_to() -> None:
    role = of_extender()["ClusterRole"]
    assert sorted(granted(role), key=str) == sorted(((right, ()) for right in rights()), key=str)
    [written] = [each for each in yaml.safe_load_all(RIGHTS.read_text()) if each["kind"] == "ClusterRole"]
    assert written["rules"] == role["rules"]
