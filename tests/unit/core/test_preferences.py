"""What a score that does not read usage costs, and when it takes part in a decision at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest

from scheduler.core.cycle import Cycle
from scheduler.core.mix import ShapeMix
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import ScorePlugin, Scores, scaled_to_highest
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile, WeightedScore
from scheduler.core.state import ClusterState
from tests.builders import NodeBuilder, make_node, make_pod, make_profile


class Fondness(ScorePlugin):
    """Points by the node's label `like`; counts what it is asked."""

    name = "Fondness"
    reads = ("annotations",)
    normalized = False

    def __init__(self) -> None:
        self.rated = self.scored = self.normalizations = 0
        self.epoch = 0

    def rates(self, pod: PodInfo) -> bool:
        self.rated += 1
        return "indifferent" not in pod.annotations

    def version(self, nodes: NodeView) -> int:
        return self.epoch

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        self.scored += nodes.count
        column, ids = nodes.label("like")
        return np.array([int(column.values[i] or 0) for i in ids], np.int64)

    def normalize(self, raw: Scores) -> Scores:
        self.normalizations += 1
        return scaled_to_highest(raw)


class Room(ScorePlugin):
    """Raw scores by name, of full resolution; percent when mixed."""

    name = "Room"
    reads = ("requests",)
    reads_usage = True
    normalized = False
    full_resolution = True
    points: ClassVar[Mapping[str, int]] = {"a": 1001, "b": 1002, "c": 2000, "d": 0}

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        return np.array([self.points[name] for name in nodes.names], np.int64)

    def normalize(self, raw: Scores) -> Scores:
        return scaled_to_highest(raw)


class World:
    def __init__(self, **likes: str) -> None:
        self.state = ClusterState(ShapeMix().frozen)
        self.fond = Fondness()
        self.cycle = Cycle(
            Profile("test", [], [WeightedScore(Room(), 1), WeightedScore(self.fond, 2)]), self.state.nodes
        )
        for name in "abcd":
            self.upsert(liked(name, likes.get(name, "")))

    def upsert(self, node: NodeBuilder) -> None:
        self.state.upsert_node(node.obj())

    def place(self, **annotations: str) -> str | None:
        return self.cycle.place(pod_with(**annotations)).node


def liked(name: str, points: str) -> NodeBuilder:
    return make_node(name).labels({"like": points} if points else {})


def pod_with(**annotations: str) -> PodInfo:
    manifest = make_pod().req(memory="1Gi")
    manifest._metadata["annotations"] = annotations
    return manifest.info()


def test_equal_scores_everywhere_leave_the_decision_to_the_rest() -> None:
    for points in ("", "7"):
        world = World(a=points, b=points, c=points, d=points)
        assert world.place() == "c"
        assert world.fond.normalizations == 0


def test_a_preference_is_weighed_and_the_full_resolution_decides_among_equals() -> None:
    world = World(a="3", b="3")
    # a and b: 100 * 2 + 50; c: 100; and of a and b, b has a thousandth more room.
    assert world.place() == "b"
    world = World(a="3", b="1")
    assert world.place() == "a"


def test_nothing_is_asked_again_after_a_placement() -> None:
    world = World(a="3", b="3")
    assert world.place() == "b"
    assert (world.fond.rated, world.fond.scored) == (1, 4)
    for i in range(5):
        world.state.confirm(make_pod(f"p{i}").req(memory="1Gi").on("b").info())
        assert world.place() == "b"
    assert (world.fond.rated, world.fond.scored) == (1, 4)


def test_only_nodes_that_changed_are_asked_again() -> None:
    world = World(a="3")
    assert world.place() == "a"
    world.upsert(liked("d", "9"))
    assert world.place() == "d"
    assert world.fond.scored == 4 + 1
    world.upsert(make_node("e").labels({"like": "1"}))
    world.state.remove_node("e")
    world.state.remove_node("d")
    assert world.place() == "a"


def test_a_new_version_drops_all_scores_when_nodes_change() -> None:
    world = World(a="3")
    world.place()
    world.fond.epoch = 1
    world.upsert(liked("d", "1"))
    world.place()
    assert world.fond.scored == 4 + 4


def test_an_indifferent_pod_costs_one_question() -> None:
    world = World(a="3")
    assert world.place(indifferent="yes") == "c"
    assert world.place(indifferent="yes") == "c"
    assert (world.fond.rated, world.fond.scored) == (1, 0)


def test_pods_that_differ_elsewhere_share_scores() -> None:
    world = World(a="3")
    for memory in ("1Gi", "2Gi", "3Gi"):
        assert world.cycle.place(make_pod().req(memory=memory).info()).node == "a"
    assert world.fond.scored == 4


def test_what_a_pod_prefers_does_not_make_it_another_kind() -> None:
    """Kinds share filters and scores of usage; images say nothing of these."""
    cycle = World().cycle
    assert cycle.read_key(pod_with(a="1")) == cycle.read_key(pod_with(b="2"))


@pytest.mark.parametrize("preset", ["kube", "memory-fit"])
def test_plain_pods_are_decided_without_mixing(preset: str) -> None:
    """Whatever preferences others have: this pod has none, and no node repels it."""
    state = ClusterState(ShapeMix().frozen)
    for name in "ab":
        state.upsert_node(make_node(name).labels({"zone": name}).images({"other:1": 1 << 30}).obj())
    cycle = Cycle(make_profile(preset=preset), state.nodes)
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    fond = make_pod().prefers(1, zone).info()
    plain = make_pod().container(image="mine:1").info()
    assert preferences(cycle, fond) == ["NodeAffinity"]
    assert preferences(cycle, plain) == []
    state.upsert_node(make_node("c").taint("t", effect="PreferNoSchedule").images({"mine:1": 1 << 30}).obj())
    assert preferences(cycle, plain) == ["TaintToleration", "ImageLocality"]


def preferences(cycle: Cycle, pod: PodInfo) -> list[str]:
    """Plugins whose static scores take part in the pod's decision."""
    return [score.plugin.name for score in cycle._preferences.of(pod, cycle.read_key(pod))]


def test_memory_decides_among_nodes_that_are_preferred_alike() -> None:
    state = ClusterState(ShapeMix().frozen)
    for name in "abc":
        state.upsert_node(make_node(name).obj())
    state.upsert_node(make_node("avoided").taint("t", effect="PreferNoSchedule").obj())
    state.confirm(make_pod("one").req(memory="4000Mi", cpu="2").on("b").info())
    state.confirm(make_pod("two").req(memory="4001Mi", cpu="2").on("c").info())
    state.confirm(make_pod("three").req(memory="7Gi", cpu="3").on("avoided").info())
    cycle = Cycle(make_profile(), state.nodes)
    # The fullest, were it not for the taint; of b and c the fuller by a thousandth.
    assert cycle.place(make_pod().req(memory="512Mi", cpu="500m").info()).node == "c"
    tolerant = make_pod().req(memory="512Mi", cpu="500m").toleration("t", operator="Exists")
    assert cycle.place(tolerant.info()).node == "avoided"
