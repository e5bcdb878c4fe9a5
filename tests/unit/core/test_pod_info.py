"""What a pod says to those who decide."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.quantity import QuantityError
from tests.builders import PodBuilder, make_pod


def test_an_empty_pod() -> None:
    info = make_pod().info()
    assert (info.name, info.namespace, info.uid) == ("default/pod", "default", "uid-of-default/pod")
    assert (info.priority, info.node_name, info.gated, info.terminating) == (0, "", False, False)
    assert (info.labels, info.annotations, info.node_selector, info.tolerations) == ({}, {}, {}, [])
    assert (info.requests, info.usage, info.host_ports, info.unsupported_rules) == ({}, {}, (), ())
    assert info.required_node_affinity is None
    assert not info.owned_by_daemon_set


def test_requests_are_in_order_of_names() -> None:
    pod = make_pod().req(memory="1").req({"example.com/gpu": "1"}, cpu="1")
    assert list(pod.info().requests) == ["cpu", "example.com/gpu", "memory"]


@pytest.mark.parametrize(
    "pod",
    [
        make_pod().req(cpu="lots"),
        make_pod().spec(overhead={"cpu": "lots"}),
        make_pod().on("n").status(containerStatuses=[{"name": "c0", "allocatedResources": {"cpu": "lots"}}]),
    ],
)
def test_an_unreadable_quantity_is_an_error_at_once(pod: PodBuilder) -> None:
    with pytest.raises(QuantityError, match="'lots'"):
        pod.info()


def test_host_ports_of_containers_and_sidecars() -> None:
    pod = (
        make_pod()
        .host_port(80)
        .host_port(80, ip="0.0.0.0")
        .host_port(53, protocol="UDP", ip="10.0.0.1")
        .container(ports=[{"containerPort": 8080}])
        .sidecar(ports=[{"hostPort": 9}])
        .spec(schedulerName="wholepod")
    )
    assert pod.info().host_ports == (("TCP", 9, "0.0.0.0"), ("TCP", 80, "0.0.0.0"), ("UDP", 53, "10.0.0.1"))
    plain_init = make_pod().spec(initContainers=[{"name": "i", "ports": [{"hostPort": 9}]}])
    assert plain_init.info().host_ports == ()


@pytest.mark.parametrize(
    ("kind", "controller", "owned"),
    [("DaemonSet", True, True), ("DaemonSet", False, False), ("Job", True, False)],
)
def test_daemon_pods(kind: str, controller: bool, owned: bool) -> None:
    manifest = make_pod().owner(kind)
    manifest._metadata["ownerReferences"][0]["controller"] = controller
    assert manifest.info().owned_by_daemon_set is owned


@pytest.mark.parametrize(
    ("spec", "rules"),
    [
        ({"resourceClaims": [{"name": "c"}]}, ["resource claims"]),
        ({"schedulingGroup": {"podGroupName": "g"}}, []),
        (
            {
                "volumes": [
                    {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
                    {"name": "b", "csi": {"driver": "d"}},
                    {"name": "c", "emptyDir": {}},
                ]
            },
            [],
        ),
        (
            {
                "volumes": [
                    {"name": source, source: {}}
                    for source in "emptyDir configMap secret projected downwardAPI hostPath".split()
                ]
            },
            [],
        ),
    ],
)
def test_hard_rules_that_nobody_enforces_yet(spec: dict[str, Any], rules: list[str]) -> None:
    assert list(make_pod().spec(**spec).info().unsupported_rules) == rules
