"""InterPodAffinity and PodTopologySpread where parity's random clusters say little: their arguments, and
what they cost a pod that they have nothing to say of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scheduler.core.cycle import Cycle
from scheduler.plugins.inter_pod_affinity import InterPodAffinity
from scheduler.plugins.pod_topology_spread import PodTopologySpread
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod, make_profile
from tests.unit.plugins.filtering import state_of

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
X = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
NODES: list[NodeBuilder] = [make_node(name).labels({"zone": name[0]}) for name in ("a1", "a2", "b1")]


def follower(name: str = "follower") -> PodBuilder:
    return make_pod(name).spec(affinity={"podAffinity": {REQUIRED: [X]}})


def fan(weight: int, name: str = "fan") -> PodBuilder:
    term = {"weight": weight, "podAffinityTerm": X}
    return make_pod(name).spec(affinity={"podAffinity": {PREFERRED: [term]}})


def raw(args: dict[str, Any], pod: PodBuilder, *pods: PodBuilder) -> list[int] | None:
    """The raw scores of all nodes; None when the plugin has none."""
    plugin, nodes = InterPodAffinity(args), state_of(*NODES, pods=pods).nodes.view()
    if not plugin.prefers(pod.info(), nodes):
        return None
    return list(map(int, plugin.rank(pod.info(), nodes, np.ones(3, np.bool_)).raw))


@pytest.mark.parametrize(
    ("args", "pod", "scores"),
    [
        ({}, make_pod().labels(app="x"), [5, 5, 1]),
        ({"hardPodAffinityWeight": 9}, make_pod().labels(app="x"), [5, 5, 9]),
        ({"hardPodAffinityWeight": 0}, make_pod().labels(app="x"), [5, 5, 0]),
        ({"ignorePreferredTermsOfExistingPods": True}, make_pod().labels(app="x"), None),
        ({"ignorePreferredTermsOfExistingPods": True}, fan(3).labels(app="x"), [5, 5, 1]),
        ({}, make_pod().labels(app="y"), None),
    ],
)
def test_arguments_of_affinity(args: dict[str, Any], pod: PodBuilder, scores: list[int] | None) -> None:
    assert raw(args, pod, fan(5, "in-a").on("a1"), follower("in-b").on("b1")) == scores


@pytest.mark.parametrize(
    "args", [{"hardPodAffinityWeight": True}, {"hardPodAffinityWeight": -1}, {"weight": 1}]
)
def test_arguments_of_affinity_that_make_no_sense(args: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"hardPodAffinityWeight: |weight: unknown field"):
        InterPodAffinity(args)


@pytest.mark.parametrize("preset", ["kube", "memory-fit"])
def test_soft_rules_decide_where_nothing_else_does(preset: str) -> None:
    state = state_of(*NODES, pods=(make_pod("x").labels(app="x").req(memory="1Gi").on("b1"),))
    cycle = Cycle(make_profile(preset=preset), state.nodes)
    apart = {"podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": X}]}}
    spread = [{**X, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}]
    assert cycle.place(fan(1).info()).node == "b1"
    assert cycle.place(make_pod().spec(affinity=apart).info()).node in ("a1", "a2")
    assert cycle.place(make_pod().spec(topologySpreadConstraints=spread).info()).node in ("a1", "a2")


def test_pods_that_no_rule_is_about_are_decided_without_these_plugins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also beside pods with rules, as long as these are about others."""
    state = state_of(*NODES, pods=(follower().on("a1"), fan(1).on("b1"), make_pod("x").labels(app="x")))
    cycle = Cycle(make_profile(preset="kube"), state.nodes)

    def never(*_: object) -> None:
        raise AssertionError("looked at all nodes")

    for plugin in (InterPodAffinity, PodTopologySpread):
        for method in ("follow_filter", "follow_rank"):
            monkeypatch.setattr(plugin, method, never)
    assert cycle.place(make_pod().labels(app="y").info()).node is not None
    with pytest.raises(AssertionError):
        cycle.place(make_pod().labels(app="x").info())
