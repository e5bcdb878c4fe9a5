"""NodeResourcesFit and NodeResourcesBalancedAllocation.

Cases follow plugins/noderesources/{fit,least_allocated,balanced_allocation}_test.go.
"""

from __future__ import annotations

import pytest

from scheduler.core.plugin import ScorePlugin
from scheduler.core.profile import Profile
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit, held_by
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod
from tests.unit.plugins.filtering import reasons, state_of

GPU = "example.com/gpu"


def on(node: str, name: str = "other") -> PodBuilder:
    return make_pod(name).on(node)


@pytest.mark.parametrize(
    ("pod", "node", "pods", "expected"),
    [
        (make_pod(), make_node(), [], []),
        (make_pod().req(cpu="4", memory="8Gi"), make_node(), [], []),
        (make_pod().req(cpu="4001m"), make_node(), [], ["Insufficient cpu"]),
        (make_pod().req(memory="8Gi"), make_node(), [on("node").req(memory="1")], ["Insufficient memory"]),
        (
            make_pod().req(cpu="1", memory="1Gi"),
            make_node(),
            [on("node").req(cpu="3500m", memory="7.5Gi")],
            ["Insufficient cpu", "Insufficient memory"],
        ),
        # What a pod does not ask for is not looked at, however overfull the node is.
        (make_pod().req(cpu="1"), make_node(), [on("node").req(memory="100Gi")], []),
        (make_pod(), make_node(), [on("node").req(cpu="100", memory="100Gi")], []),
        (make_pod().req(cpu="0"), make_node(), [on("node").req(cpu="100")], []),
        # Number of pods.
        (make_pod(), make_node().allocatable(pods="1"), [on("node")], ["Too many pods"]),
        (make_pod(), make_node().allocatable(pods="2"), [on("node")], []),
        (make_pod(), make_node().without("pods"), [], ["Too many pods"]),
        (
            make_pod().req(cpu="5"),
            make_node().allocatable(pods="0"),
            [],
            ["Too many pods", "Insufficient cpu"],
        ),
        # Other resources.
        (make_pod().req({GPU: "1"}), make_node(), [], [f"Insufficient {GPU}"]),
        (make_pod().req({GPU: "1"}), make_node().allocatable({GPU: "0"}), [], [f"Insufficient {GPU}"]),
        (make_pod().req({GPU: "1"}), make_node().allocatable({GPU: "1"}), [], []),
        (
            make_pod().req({GPU: "2"}),
            make_node().allocatable({GPU: "2"}),
            [on("node").req({GPU: "1"})],
            [f"Insufficient {GPU}"],
        ),
        (make_pod().req({GPU: "0"}), make_node(), [], []),
        (
            make_pod().req({"hugepages-2Mi": "4Mi", "ephemeral-storage": "2Gi"}),
            make_node().allocatable({"hugepages-2Mi": "2Mi", "ephemeral-storage": "1Gi"}),
            [],
            ["Insufficient ephemeral-storage", "Insufficient hugepages-2Mi"],
        ),
        # The whole pod: init containers, sidecars, overhead, pod-level resources.
        (
            make_pod().req(cpu="1").sidecar(resources={"requests": {"cpu": "3500m"}}),
            make_node(),
            [],
            ["Insufficient cpu"],
        ),
        (make_pod().req(cpu="4").spec(overhead={"cpu": "1m"}), make_node(), [], ["Insufficient cpu"]),
        (
            make_pod().req(cpu="1").spec(resources={"requests": {"cpu": "5"}}),
            make_node(),
            [],
            ["Insufficient cpu"],
        ),
    ],
)
def test_fit(pod: PodBuilder, node: NodeBuilder, pods: list[PodBuilder], expected: list[str]) -> None:
    assert reasons(NodeResourcesFit(), pod, node, pods=tuple(pods)) == [expected]


def test_unresolvable_is_what_even_an_empty_node_could_not_hold() -> None:
    nodes = make_node("small").allocatable(cpu="1"), make_node("full"), make_node("no-pods")
    view = state_of(*nodes, pods=(on("full").req(cpu="4"),)).nodes.view()
    result = NodeResourcesFit().filter(make_pod().req(cpu="2").info(), view)
    assert result.reason_bits.astype(bool).tolist() == [True, True, False]
    assert result.unresolvable.tolist() == [True, False, False]
    unknown = NodeResourcesFit().filter(make_pod().req({GPU: "1"}).info(), view)
    assert unknown.unresolvable.tolist() == [True] * 3


def score(plugin: ScorePlugin, pod: PodBuilder, node: NodeBuilder, *pods: PodBuilder) -> int:
    """0 where the plugin has nothing to say of the pod."""
    info = pod.info()
    return int(plugin.score(info, state_of(node, pods=pods).nodes.view())[0]) if plugin.rates(info) else 0


ROUND = make_node().allocatable(cpu="4", memory="10000")


@pytest.mark.parametrize(
    ("pod", "node", "pods", "expected"),
    [
        # ((4000 - 3000) / 4000 + (10000 - 5000) / 10000) / 2
        (make_pod().req(cpu="3", memory="5000"), ROUND, [], 37),
        (make_pod().req(cpu="3", memory="5000"), make_node().allocatable(cpu="6", memory="10000"), [], 50),
        (make_pod().req(cpu="0", memory="0"), ROUND, [], 100),
        (make_pod().req(cpu="1", memory="5000"), ROUND, [on("node").req(cpu="3", memory="5000")], 0),
        (make_pod().req(cpu="9", memory="5000"), ROUND, [], 25),
        # A container that names nothing counts as 100m and 200 MiB.
        (make_pod(), make_node().allocatable(cpu="1", memory="400Mi"), [], 70),
        (
            make_pod().req(cpu="0", memory="0"),
            make_node().allocatable(cpu="1", memory="400Mi"),
            [on("node")],
            70,
        ),
        # Resources that a node has none of are left out of the mean.
        (make_pod().req(cpu="3"), make_node().allocatable(cpu="4").without("memory"), [], 25),
        (make_pod(), make_node().without("memory").without("cpu"), [], 0),
    ],
)
def test_least_allocated(pod: PodBuilder, node: NodeBuilder, pods: list[PodBuilder], expected: int) -> None:
    assert score(NodeResourcesFit(), pod, node, *pods) == expected


@pytest.mark.parametrize(
    ("pod", "node", "pods", "expected"),
    [
        # Deviation 0.125 with the pod and 0 without: 50 + (50 + 87 - 100) / 2
        (make_pod().req(cpu="3", memory="5000"), ROUND, [], 68),
        # The pod evens out what was uneven: 50 + (50 + 100 - 75) / 2
        (make_pod().req(memory="5000"), ROUND, [on("node").req(cpu="2")], 87),
        (make_pod().req(cpu="2", memory="5000"), ROUND, [], 75),
        (make_pod(), ROUND, [on("node").req(cpu="4")], 0),
        # Used fractions stop at 1: both are full before and after.
        (make_pod().req(cpu="9", memory="90000"), ROUND, [on("node").req(cpu="4", memory="10000")], 75),
        (make_pod().req(cpu="1"), make_node().without("memory"), [], 75),
    ],
)
def test_balanced_allocation(
    pod: PodBuilder, node: NodeBuilder, pods: list[PodBuilder], expected: int
) -> None:
    assert score(NodeResourcesBalancedAllocation(), pod, node, *pods) == expected


@pytest.mark.parametrize("plugin", [NodeResourcesFit(), NodeResourcesBalancedAllocation()])
def test_scores_stay_in_range_on_any_node(plugin: ScorePlugin) -> None:
    nodes = [
        make_node("empty"),
        make_node("over").allocatable(cpu="1", memory="1"),
        make_node("zero").allocatable(cpu="0", memory="0"),
        make_node("huge").allocatable(cpu="9E", memory="9E"),
    ]
    pods = tuple(on(name, name).req(cpu="3", memory="7Gi") for name in ("over", "zero", "huge"))
    view = state_of(*nodes, pods=pods).nodes.view()
    for pod in (make_pod(), make_pod().req(cpu="9E", memory="9E"), make_pod().req(cpu="1m", memory="1")):
        scores = plugin.score(pod.info(), view)
        assert ((scores >= 0) & (scores <= 100)).all(), scores


def test_what_all_profiles_filter_by() -> None:
    strict = Profile("strict", [NodeResourcesFit()], [])
    lenient = Profile("lenient", [NodeResourcesFit({"ignoredResources": [GPU]})], [])
    assert [held_by([strict])(name) for name in ("memory", "pods", GPU)] == [True, True, True]
    assert [held_by([strict, lenient])(name) for name in ("memory", "pods", GPU)] == [True, True, False]
    assert not held_by([strict, Profile("none", [], [])])("memory")
