"""NodeName, NodeUnschedulable, TaintToleration, NodePorts, UnsupportedRules: Kubernetes' rules as tables."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.plugin import PreFilterResult
from scheduler.plugins.node_name import NodeName
from scheduler.plugins.node_ports import NodePorts
from scheduler.plugins.node_unschedulable import NodeUnschedulable
from scheduler.plugins.taint_toleration import TaintToleration
from scheduler.plugins.unsupported_rules import UnsupportedRules
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod
from tests.unit.plugins.filtering import fits, reasons, state_of


def test_node_name() -> None:
    nodes = (make_node("a"), make_node("b"))
    assert reasons(NodeName(), make_pod(), *nodes) == [[], []]
    wants_b = make_pod().on("b")
    assert reasons(NodeName(), wants_b, *nodes) == [["node(s) didn't match the requested node name"], []]
    assert NodeName().prefilter(wants_b.info()) == PreFilterResult(node_names=frozenset(["b"]))
    assert NodeName().prefilter(make_pod().info()) == PreFilterResult()


@pytest.mark.parametrize(
    ("node", "toleration", "fit"),
    [
        (make_node(), None, True),
        (make_node().cordoned(), None, False),
        (make_node().cordoned(), {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}, True),
        (make_node().cordoned(), {"operator": "Exists"}, True),
        (make_node().cordoned(), {"operator": "Exists", "effect": "NoSchedule"}, True),
        (make_node().cordoned(), {"operator": "Exists", "effect": "NoExecute"}, False),
        (make_node().cordoned(), {"key": "node.kubernetes.io/unschedulable", "operator": "Equal"}, True),
        (make_node().cordoned(), {"key": "node.kubernetes.io/unschedulable", "value": "true"}, False),
        (make_node().cordoned(), {"key": "something-else", "operator": "Exists"}, False),
    ],
)
def test_node_unschedulable(node: NodeBuilder, toleration: dict[str, str] | None, fit: bool) -> None:
    pod = make_pod() if toleration is None else make_pod().toleration(**toleration)
    assert reasons(NodeUnschedulable(), pod, node) == [[] if fit else ["node(s) were unschedulable"]]


TAINT = ("key", "value", "NoSchedule")


@pytest.mark.parametrize(
    ("taints", "tolerations", "fit"),
    [
        ([], [], True),
        ([TAINT], [], False),
        ([TAINT], [{"key": "key", "operator": "Equal", "value": "value", "effect": "NoSchedule"}], True),
        ([TAINT], [{"key": "key", "value": "value"}], True),
        ([TAINT], [{"key": "key", "value": "other"}], False),
        ([TAINT], [{"key": "key"}], False),
        ([TAINT], [{"key": "key", "operator": "Exists"}], True),
        ([TAINT], [{"key": "key", "operator": "Exists", "effect": "NoExecute"}], False),
        ([TAINT], [{"key": "other", "operator": "Exists"}], False),
        ([TAINT], [{"operator": "Exists"}], True),
        ([TAINT], [{"key": "key", "operator": "Sometimes"}], False),
        ([TAINT], [{"key": "other", "operator": "Exists"}, {"key": "key", "operator": "Exists"}], True),
        # Numeric comparison is behind a gate that is off in 1.37.
        ([("level", "5", "NoSchedule")], [{"key": "level", "operator": "Gt", "value": "3"}], False),
        ([("level", "5", "NoSchedule")], [{"key": "level", "operator": "Lt", "value": "9"}], False),
        ([("key", "", "NoSchedule")], [{"key": "key"}], True),
        ([("key", "", "NoExecute")], [], False),
        ([("key", "", "NoExecute")], [{"key": "key", "effect": "NoExecute"}], True),
        ([("key", "", "PreferNoSchedule")], [], True),
        ([TAINT, ("second", "", "NoExecute")], [{"key": "key", "value": "value"}], False),
        ([TAINT, ("second", "", "PreferNoSchedule")], [{"key": "key", "value": "value"}], True),
    ],
)
def test_taint_toleration(
    taints: list[tuple[str, str, str]], tolerations: list[dict[str, str]], fit: bool
) -> None:
    node, pod = make_node(), make_pod()
    for taint in taints:
        node.taint(*taint)
    for toleration in tolerations:
        pod.toleration(**toleration)
    assert reasons(TaintToleration(), pod, node) == [[] if fit else ["node(s) had untolerated taint(s)"]]


@pytest.mark.parametrize(
    ("wanted", "in_use", "fit"),
    [
        ({"port": 80}, {"port": 80}, False),
        ({"port": 80}, {"port": 81}, True),
        ({"port": 80}, {"port": 80, "protocol": "UDP"}, True),
        ({"port": 80, "ip": "127.0.0.1"}, {"port": 80, "ip": "127.0.0.1"}, False),
        ({"port": 80, "ip": "127.0.0.1"}, {"port": 80, "ip": "127.0.0.2"}, True),
        # The wildcard address is all addresses, from either side.
        ({"port": 80, "ip": "127.0.0.1"}, {"port": 80}, False),
        ({"port": 80}, {"port": 80, "ip": "127.0.0.1"}, False),
        ({"port": 80, "ip": "0.0.0.0"}, {"port": 80, "ip": "127.0.0.1"}, False),
        ({"port": 80, "ip": "127.0.0.1"}, {"port": 80, "protocol": "UDP"}, True),
        ({"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "UDP", "ip": "10.0.0.1"}, False),
    ],
)
def test_node_ports(wanted: dict[str, Any], in_use: dict[str, Any], fit: bool) -> None:
    other = make_pod("other").on("node").host_port(**in_use)
    free = make_node("free")
    expected = [] if fit else ["node(s) didn't have free ports for the requested pod ports"]
    found = reasons(NodePorts(), make_pod().host_port(**wanted), make_node(), free, pods=(other,))
    assert found == [expected, []]


def test_node_ports_looks_at_all_ports_of_all_pods() -> None:
    others = [make_pod(f"p{i}").on("node").host_port(i).host_port(100 + i) for i in range(1, 5)]
    pod = make_pod().host_port(1000)
    assert fits(NodePorts(), pod, make_node(), *others)
    assert not fits(NodePorts(), pod.host_port(103), make_node(), *others)


def test_ports_of_a_pod_that_left_are_free() -> None:
    state = state_of(make_node(), pods=(make_pod("other").on("node").host_port(80),))
    pod = make_pod().host_port(80).info()
    assert NodePorts().filter(pod, state.nodes.view()).reason_bits.tolist() == [1]
    state.remove_pod("uid-of-default/other")
    assert NodePorts().filter(pod, state.nodes.view()).reason_bits.tolist() == [0]


@pytest.mark.parametrize(
    ("pod", "rejection"),
    [
        (make_pod(), None),
        (make_pod().spec(resourceClaims=[{"name": "c"}]), "Wholepod does not support resource claims yet"),
        (make_pod().spec(schedulingGroup={"podGroupName": "g"}), None),
        (make_pod().spec(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]), None),
    ],
)
def test_unsupported_rules(pod: PodBuilder, rejection: str | None) -> None:
    assert UnsupportedRules().prefilter(pod.info()) == PreFilterResult(rejection=rejection)


@pytest.mark.parametrize("plugin", [NodeName(), NodeUnschedulable(), TaintToleration()])
def test_what_no_eviction_can_cure_is_unresolvable(plugin: Any) -> None:
    view = state_of(make_node("a").cordoned().taint("t")).nodes.view()
    result = plugin.filter(make_pod().on("elsewhere").info(), view)
    assert (result.reason_bits.tolist(), result.unresolvable.tolist()) == ([1], [True])


@pytest.mark.parametrize(
    "plugin", [NodeName, NodeUnschedulable, TaintToleration, NodePorts, UnsupportedRules]
)
def test_arguments_are_refused(plugin: type[Any]) -> None:
    with pytest.raises(ValueError, match="takes no arguments, got strict"):
        plugin({"strict": True})
