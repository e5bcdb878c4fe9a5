"""What the chart renders, and what it refuses to."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography import x509

from scheduler.config import parse
from tests.chart import schema
from tests.chart.helm import EVERYTHING, NAMESPACE, HelmError, Json, helm, of_kind, render

MINORS = ("1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
CONTROLLER = "-controller"
OF_OPERATORS = ("ServiceMonitor", "PrometheusRule")
"""Kinds of which Kubernetes has no schema."""
VALUES = pytest.mark.parametrize("values", [[], ["-f", EVERYTHING]], ids=["defaults", "everything"])


def test_the_schema_is_the_configurations() -> None:
    assert schema.SCHEMA.read_text() == schema.text(), "run `make chart`"
    for original, copy in schema.COPIES.items():
        assert copy.read_text() == original.read_text(), "run `make chart`"


@VALUES
def test_lint(values: list[str | Path]) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", schema.CHART, *values)


@pytest.mark.parametrize("minor", MINORS)
@VALUES
def test_every_object_is_valid_in_every_minor(values: list[str | Path], minor: str) -> None:
    items = render(*values, minor=minor)
    assert len(items) >= 10
    for item in items:
        if item["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(item, f"{minor}.0", strict=True)


def test_older_clusters_are_refused() -> None:
    with pytest.raises(HelmError, match=r"requires kubeVersion: >=1\.32\.0"):
        render(minor="1.31")


def test_the_role_is_for_the_lease_and_the_journal_of_the_configuration() -> None:
    items = render("--set=fullnameOverride=placer")
    names = [rule["resourceNames"] for rule in of_kind(items, "Role")["rules"] if "resourceNames" in rule]
    assert names == [["placer"], ["placer-journal"]]
    lease = parse(of_kind(items, "ConfigMap")["data"]["config.yaml"]).leader_election
    assert (lease.resource_name, lease.resource_namespace) == ("placer", NAMESPACE)


@VALUES
def test_the_scheduler_can_read_its_configuration(values: list[str | Path]) -> None:
    configuration = parse(of_kind(render(*values), "ConfigMap")["data"]["config.yaml"])
    assert configuration.tls.cert_file == "/etc/wholepod/tls/tls.crt"
    if values:
        assert [profile.scheduler_name for profile in configuration.profiles] == ["batch", "even"]
        assert configuration.leader_election.retry_period_s == 0.5
        assert configuration.bind_address == "0.0.0.0:8443"
        assert not configuration.delegates_authorization
    else:
        assert configuration.delegates_authorization


@VALUES
def test_what_selects_pods_selects_the_deployments(values: list[str | Path]) -> None:
    items = render("--set=networkPolicy.enabled=true", *values)
    deployment = of_kind(items, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for kind, path in (
        ("Deployment", ("spec", "selector", "matchLabels")),
        ("Service", ("spec", "selector")),
        ("PodDisruptionBudget", ("spec", "selector", "matchLabels")),
        ("NetworkPolicy", ("spec", "podSelector", "matchLabels")),
    ):
        selector: Any = of_kind(items, kind)
        for step in path:
            selector = selector[step]
        assert selector
        assert selector.items() <= labels.items(), kind


@VALUES
def test_the_pods_are_restricted_and_never_wait_for_themselves(values: list[str | Path]) -> None:
    items = render(*values)
    deployments = [
        of_kind(items, "Deployment", part)["spec"]["template"]["spec"] for part in ("", CONTROLLER)
    ]
    for pod in deployments:
        assert pod["schedulerName"] == "default-scheduler"
    for pod in (*deployments, of_kind(items, "Pod")["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_controllers_service_selects_the_controller() -> None:
    items = render("--set=webhook.enabled=true")
    service, deployment = (of_kind(items, kind, CONTROLLER) for kind in ("Service", "Deployment"))
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    [container] = template["spec"]["containers"]
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(named)
    assert f"--webhook-address=0.0.0.0:{named['webhook']}" in container["args"]


def test_the_webhook_trusts_the_charts_own_authority() -> None:
    items = render("--set=webhook.enabled=true")
    webhooks = of_kind(items, "ValidatingWebhookConfiguration")["webhooks"]
    bundles = {webhook["clientConfig"]["caBundle"] for webhook in webhooks}
    assert bundles == {of_kind(items, "Secret")["data"]["ca.crt"]}


def test_the_webhook_asks_for_the_pods_of_all_profiles() -> None:
    webhooks = of_kind(render("-f", EVERYTHING), "ValidatingWebhookConfiguration")["webhooks"]
    [condition] = webhooks[0]["matchConditions"]
    assert condition["expression"] == "object.spec.schedulerName in ['batch', 'even']"
    assert b64decode(webhooks[0]["clientConfig"]["caBundle"]).startswith(b"-----BEGIN")


def test_the_certificate_is_for_both_services() -> None:
    data = of_kind(render(), "Secret")["data"]
    certificate = x509.load_pem_x509_certificate(b64decode(data["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        f"wholepod.{NAMESPACE}.svc",
        f"wholepod-controller.{NAMESPACE}.svc",
        "localhost",
    ]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(b64decode(data["ca.crt"])))


def test_without_the_controller_nothing_of_it_is_there() -> None:
    items = render("--set=controller.enabled=false")
    assert not [item for item in items if item["metadata"]["name"].endswith(CONTROLLER)]
    with pytest.raises(HelmError, match=r"controller\.enabled has to be true"):
        render("--set=controller.enabled=false", "--set=webhook.enabled=true")


def test_the_crd_is_kept_unless_told_otherwise() -> None:
    def annotations(*values: str) -> Json:
        found: Json = of_kind(render(*values), "CustomResourceDefinition")["metadata"]["annotations"]
        return found

    assert annotations()["helm.sh/resource-policy"] == "keep"
    assert "helm.sh/resource-policy" not in annotations("--set=crds.keep=false")
    assert not [i for i in render("--set=crds.enabled=false") if i["kind"] == "CustomResourceDefinition"]


def test_a_new_configuration_is_a_new_rollout() -> None:
    def checksum(*values: str) -> str:
        template = of_kind(render(*values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/configuration"])

    assert checksum() == checksum("--set=podAnnotations.x=y")
    assert checksum() != checksum("--set=configuration.logging.level=debug")


def test_the_image() -> None:
    def image(*values: str) -> str:
        return str(
            of_kind(render(*values), "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
        )

    digest = "sha256:" + "ab" * 32
    assert image() == "wholepod:0.1.0"
    assert image("--set=image.tag=edge") == "wholepod:edge"
    assert image("--set=image.tag=edge", f"--set=image.digest={digest}") == f"wholepod@{digest}"


def test_one_replica_has_no_budget() -> None:
    kinds = {item["kind"] for item in render("--set=replicaCount=1")}
    assert "PodDisruptionBudget" not in kinds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ("replicaCount=many", "at '/replicaCount': got string, want integer"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of"),
        ("image.digest=abc", "at '/image/digest': 'abc' does not match pattern"),
        ("configuration.profiles=", "at '/configuration/profiles': got string, want array"),
        ("configuration.profiles[0].schedulername=x", "additional properties 'schedulername' not allowed"),
        ("configuration.profiles[0].gangs.strategies={lucky}", "value must be one of 'atomic'"),
        ("configuration.leaderElection.leaseDuration=soon", "'soon' does not match pattern"),
        ("configuration.leaderElection.resourceName=x", "additional properties 'resourceName' not allowed"),
        ("configuration.bindAddress=0.0.0.0:1", "additional properties 'bindAddress' not allowed"),
        ("serving.port=0", "at '/serving/port': minimum: got 0, want 1"),
        ("serviceAccount.create=false", "serviceAccount.name: which account to use is needed"),
        ("podDisruptionBudget.maxUnavailable=0", "at '/podDisruptionBudget/maxUnavailable'"),
    ],
)
def test_mistakes_are_named(value: str, message: str) -> None:
    with pytest.raises(HelmError, match=re.escape(message)):
        render(f"--set={value}")


# ---- monitoring


def test_monitoring_is_off_unless_asked_for() -> None:
    items = render()
    assert not [item for item in items if item["kind"] in OF_OPERATORS]
    assert not [item for item in items if item["metadata"]["name"].endswith("-dashboards")]


def test_the_rules_are_about_the_releases_own_job() -> None:
    plain = yaml.safe_load((schema.MONITORING / "rules.yaml").read_text())
    assert of_kind(render("--set=prometheusRule.enabled=true"), "PrometheusRule")["spec"] == plain
    options = (
        "--set=fullnameOverride=placer",
        "--set=prometheusRule.runbookUrl=https://docs.example/runbooks",
    )
    items = render("--set=prometheusRule.enabled=true", "--set=serviceMonitor.enabled=true", *options)
    rules = [rule for group in of_kind(items, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for group in plain["groups"])
    for rule in rules:
        # Prometheus' operator calls the job like the Service.
        part = CONTROLLER if "Controller" in rule["alert"] else ""
        assert set(re.findall(r'job="(.*?)"', rule["expr"])) == {
            of_kind(items, "Service", part)["metadata"]["name"]
        }
        link = rule["annotations"]["runbook_url"]
        assert link == f"https://docs.example/runbooks#{rule['alert'].lower()}"


def test_the_operator_scrapes_scheduler_and_controller() -> None:
    """Each by its own Service, whose name the certificate has to have."""
    items = render("--set=serviceMonitor.enabled=true")
    for part in ("", CONTROLLER):
        service, monitor = (of_kind(items, kind, part) for kind in ("Service", "ServiceMonitor"))
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        [endpoint] = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["tlsConfig"]["serverName"] == f"{service['metadata']['name']}.{NAMESPACE}.svc"


def test_grafana_finds_the_dashboards() -> None:
    items = render("--set=dashboards.enabled=true")
    found = of_kind(items, "ConfigMap", "-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {path.name: path.read_text() for path in schema.MONITORING.glob("*.json")}
