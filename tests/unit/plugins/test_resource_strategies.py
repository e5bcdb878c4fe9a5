"""Arguments of NodeResourcesFit and NodeResourcesBalancedAllocation.

Cases follow plugins/noderesources/{fit,most_allocated,requested_to_capacity_ratio}_test.go and
apis/config/validation/validation_pluginargs_test.go.
"""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.core.plugin import ScorePlugin
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod
from tests.unit.plugins.filtering import reasons, state_of

GPU, NIC = "example.com/gpu", "vendor.example/nic"
ROUND = make_node().allocatable({GPU: "8"}, cpu="4", memory="10000")


def on_node(name: str = "other") -> PodBuilder:
    return make_pod(name).on("node")


def score(plugin: ScorePlugin, pod: PodBuilder, node: NodeBuilder, *pods: PodBuilder) -> int:
    return int(plugin.score(pod.info(), state_of(node, pods=pods).nodes.view())[0])


def strategy(kind: str, resources: dict[str, int] | None = None, **more: Any) -> NodeResourcesFit:
    listed = [{"name": name, "weight": weight} for name, weight in (resources or {}).items()]
    return NodeResourcesFit({"scoringStrategy": {"type": kind, "resources": listed, **more}})


def ratio(shape: list[tuple[int, int]], resources: dict[str, int] | None = None) -> NodeResourcesFit:
    points = [{"utilization": utilization, "score": points} for utilization, points in shape]
    param = {"requestedToCapacityRatio": {"shape": points}}
    return strategy("RequestedToCapacityRatio", resources, **param)


@pytest.mark.parametrize(
    ("plugin", "pod", "pods", "expected"),
    [
        # (25 + 50) / 2 and (75 + 50) / 2
        (strategy("LeastAllocated"), make_pod().req(cpu="3", memory="5000"), [], 37),
        (strategy("MostAllocated"), make_pod().req(cpu="3", memory="5000"), [], 62),
        # Weights: (25 * 3 + 50) / 4
        (strategy("LeastAllocated", {"cpu": 3, "memory": 1}), make_pod().req(cpu="3", memory="5000"), [], 31),
        # A weight of 0 stands for 1.
        (strategy("LeastAllocated", {"cpu": 0, "memory": 1}), make_pod().req(cpu="3", memory="5000"), [], 37),
        # More than there is scores as none left.
        (strategy("LeastAllocated"), make_pod().req(cpu="5", memory="5000"), [], 25),
        (strategy("MostAllocated"), make_pod().req(cpu="5", memory="5000"), [], 75),
        # An extended resource counts for those who ask for it.
        (strategy("LeastAllocated", {GPU: 1, "cpu": 1}), make_pod().req({GPU: "2"}, cpu="4"), [], 37),
        (strategy("LeastAllocated", {GPU: 1, "cpu": 1}), make_pod().req(cpu="2"), [], 50),
        (strategy("MostAllocated", {GPU: 1}), make_pod().req({GPU: "2"}), [on_node().req({GPU: "4"})], 75),
        (strategy("MostAllocated", {GPU: 1}), make_pod().req(cpu="1"), [on_node().req({GPU: "4"})], 0),
        # One that no node has, or that is not counted at all, is left out.
        (strategy("MostAllocated", {NIC: 1, "cpu": 1}), make_pod().req({NIC: "1"}, cpu="1"), [], 25),
        (strategy("MostAllocated", {"pods": 1, "cpu": 1}), make_pod().req(cpu="1"), [], 25),
        # Containers that ask for nothing count 100m.
        (strategy("MostAllocated", {"cpu": 1}), make_pod(), [on_node().req(memory="1")], 5),
        # A line from 0 to 10 is the same as MostAllocated; a falling one as LeastAllocated.
        (ratio([(0, 0), (100, 10)], {"cpu": 1}), make_pod().req(cpu="3"), [], 75),
        (ratio([(0, 10), (100, 0)], {"cpu": 1}), make_pod().req(cpu="3"), [], 25),
        # Before the first point and after the last the line is flat.
        (ratio([(50, 4), (60, 6)], {"cpu": 1}), make_pod().req(cpu="1"), [], 40),
        (ratio([(50, 4), (60, 6)], {"cpu": 1}), make_pod().req(cpu="3"), [], 60),
        # A falling slope is cut towards the point before, not down: 70 - 70 * 1 / 3 = 70 - 23.
        (ratio([(24, 7), (27, 0)], {"cpu": 1}), make_pod().req(cpu="1"), [], 47),
        # Resources that score 0 are left out of the mean, which is rounded half up: (75 + 50) / 2.
        (ratio([(0, 0), (100, 10)]), make_pod().req(cpu="3", memory="5000"), [], 63),
        (ratio([(60, 0), (100, 10)]), make_pod().req(cpu="4", memory="5000"), [], 100),
        (ratio([(60, 0), (100, 10)]), make_pod().req(cpu="1", memory="5000"), [], 0),
        (ratio([(0, 0), (100, 10)], {"cpu": 1}), make_pod().req(cpu="9"), [], 100),
    ],
)
def test_strategies(plugin: NodeResourcesFit, pod: PodBuilder, pods: list[PodBuilder], expected: int) -> None:
    assert score(plugin, pod, ROUND, *pods) == expected


@pytest.mark.parametrize(
    ("args", "pod", "expected"),
    [
        ({"ignoredResources": [GPU]}, make_pod().req({GPU: "9", NIC: "1"}), [f"Insufficient {NIC}"]),
        (
            {"ignoredResourceGroups": ["vendor.example"]},
            make_pod().req({GPU: "9", NIC: "1"}),
            [f"Insufficient {GPU}"],
        ),
        ({"ignoredResourceGroups": ["example"]}, make_pod().req({GPU: "9"}), [f"Insufficient {GPU}"]),
        # Only extended resources can be ignored.
        ({"ignoredResources": ["cpu"]}, make_pod().req(cpu="9"), ["Insufficient cpu"]),
        (
            {"ignoredResources": ["hugepages-2Mi"]},
            make_pod().req({"hugepages-2Mi": "2Mi"}),
            ["Insufficient hugepages-2Mi"],
        ),
    ],
)
def test_ignored_resources(args: dict[str, Any], pod: PodBuilder, expected: list[str]) -> None:
    assert reasons(NodeResourcesFit(args), pod, ROUND) == [expected]


def balance(*names: str) -> NodeResourcesBalancedAllocation:
    return NodeResourcesBalancedAllocation({"resources": [{"name": name} for name in names]})


@pytest.mark.parametrize(
    ("plugin", "pod", "pods", "expected"),
    [
        (balance("memory", "cpu"), make_pod().req(cpu="3", memory="5000"), [], 68),
        # A single resource, and one that the pod does not ask for, do not deviate.
        (balance("cpu"), make_pod().req(cpu="3"), [], 75),
        (balance("cpu", GPU), make_pod().req(cpu="3"), [on_node().req({GPU: "8"})], 75),
        # Fractions 3/4, 1/2, 1/4: deviation 0.204, 79 of 100; 50 + (50 + 79 - 100) // 2
        (balance("cpu", "memory", GPU), make_pod().req({GPU: "2"}, cpu="3", memory="5000"), [], 64),
        # The GPU is the second of the two that the node has: |3/4 - 1/4| / 2.
        (balance("cpu", NIC, GPU), make_pod().req({GPU: "2", NIC: "1"}, cpu="3"), [], 62),
    ],
)
def test_balance_of_other_resources(
    plugin: NodeResourcesBalancedAllocation, pod: PodBuilder, pods: list[PodBuilder], expected: int
) -> None:
    assert score(plugin, pod, ROUND, *pods) == expected


def test_a_pod_that_asks_for_none_of_the_resources_is_not_balanced() -> None:
    assert not balance("cpu", GPU).rates(make_pod().req(memory="1Gi").info())
    assert balance("cpu", GPU).rates(make_pod().req({GPU: "1"}).info())


SHAPE = "scoringStrategy.requestedToCapacityRatio.shape"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"ignoredResource": []}, "ignoredResource: unknown field"),
        ({"ignoredResources": ["a b"]}, "ignoredResources[0]: 'a b' is no name of a resource"),
        ({"ignoredResourceGroups": ["a", "b/c"]}, "ignoredResourceGroups[1]: 'b/c' must not contain a slash"),
        ({"scoringStrategy": {}}, "scoringStrategy: object missing required field `type`"),
        ({"scoringStrategy": {"type": "Best"}}, "scoringStrategy.type: invalid enum value 'Best'"),
        (
            {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 101}]}},
            "scoringStrategy.resources[0].weight: must be 1 to 100, got 101",
        ),
        (
            {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": -1}]}},
            "scoringStrategy.resources[0].weight: must be 1 to 100, got -1",
        ),
        (
            {"scoringStrategy": {"type": "RequestedToCapacityRatio"}},
            "scoringStrategy.requestedToCapacityRatio: needed when type is RequestedToCapacityRatio",
        ),
        (
            {"scoringStrategy": {"type": "LeastAllocated", "requestedToCapacityRatio": {"shape": []}}},
            "scoringStrategy.requestedToCapacityRatio: only for type RequestedToCapacityRatio",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"ignored|scoring") as refused:
        NodeResourcesFit(args)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([], f"{SHAPE}: at least one point is needed"),
        ([(0, 0), (101, 10)], f"{SHAPE}[1].utilization: must be 0 to 100, got 101"),
        ([(-1, 0)], f"{SHAPE}[0].utilization: must be 0 to 100, got -1"),
        ([(0, 11)], f"{SHAPE}[0].score: must be 0 to 10, got 11"),
        ([(0, -1)], f"{SHAPE}[0].score: must be 0 to 10, got -1"),
        ([(5, 0), (5, 1)], f"{SHAPE}[1].utilization: points must be in increasing order of utilization"),
    ],
)
def test_shapes_that_are_no_lines_are_refused(shape: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match="shape") as refused:
        ratio(shape)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ([{"name": "cpu"}, {"name": "cpu"}], "resources[1].name: cpu is there twice"),
        ([{"name": "cpu", "weight": 2}], "resources[0].weight: must be 1, got 2"),
        ([{"weight": 1}], "resources[0]: object missing required field `name`"),
    ],
)
def test_balanced_resources_that_make_no_sense(resources: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match="resources") as refused:
        NodeResourcesBalancedAllocation({"resources": resources})
    assert str(refused.value) == message
