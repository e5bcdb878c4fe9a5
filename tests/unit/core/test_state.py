"""Assume, confirm, forget, and pods whose node is not there."""

from __future__ import annotations

import pytest

from scheduler.core.mix import ShapeMix
from scheduler.core.plugin import Wake
from scheduler.core.state import ClusterState
from tests.builders import PodBuilder, make_node, make_pod


def state_of(*nodes: str) -> ClusterState:
    state = ClusterState(ShapeMix().frozen)
    for name in nodes:
        state.upsert_node(make_node(name).obj())
    return state


def cpu(state: ClusterState) -> dict[str, int]:
    table = state.nodes
    return {name: int(table.requested[0, row]) for name, row in table.row_of.items()}


def pod(cpu: str = "1") -> PodBuilder:
    return make_pod().req(cpu=cpu)


UID = "uid-of-default/pod"


def test_assumed_room_counts_at_once() -> None:
    state = state_of("a")
    state.assume(pod().info(), "a")
    assert (cpu(state), state.assumed_count) == ({"a": 1000}, 1)
    assert [placed.assumed for placed in state.pods_on("a")] == [True]


def test_confirming_changes_no_room_and_no_generation() -> None:
    state = state_of("a")
    state.assume(pod().info(), "a")
    generation = state.nodes.generation
    assert state.confirm(pod().on("a").info()) is Wake.NOTHING
    assert (cpu(state), state.assumed_count) == ({"a": 1000}, 0)
    assert state.nodes.generation == generation, "nobody needs to look at this node again"


def test_forgetting_gives_the_room_back_once() -> None:
    state = state_of("a")
    state.assume(pod().info(), "a")
    assert state.forget(UID) == "a"
    assert state.forget(UID) is None
    assert (cpu(state), state.pods, state.assumed_count) == ({"a": 0}, {}, 0)


def test_a_confirmed_pod_is_not_forgotten() -> None:
    state = state_of("a")
    state.assume(pod().info(), "a")
    state.confirm(pod().on("a").info())
    assert state.forget(UID) is None
    assert cpu(state) == {"a": 1000}


def test_removal_frees_the_room_of_assumed_and_confirmed_pods() -> None:
    for confirmed in (True, False):
        state = state_of("a")
        state.assume(pod().info(), "a")
        if confirmed:
            state.confirm(pod().on("a").info())
        placed = state.remove_pod(UID)
        assert placed is not None
        assert placed.node == "a"
        assert (cpu(state), state.assumed_count, state.pods_on("a")) == ({"a": 0}, 0, [])
        assert state.remove_pod(UID) is None


@pytest.mark.parametrize(
    ("new", "freed", "room"),
    [
        (pod("1").on("a"), False, {"a": 1000, "b": 0}),
        (pod("2").on("a"), False, {"a": 2000, "b": 0}),
        (pod("500m").on("a"), True, {"a": 500, "b": 0}),
        (pod("1").on("b"), True, {"a": 0, "b": 1000}),
        (pod("1").on("gone"), True, {"a": 0, "b": 0}),
        (make_pod().on("a"), True, {"a": 0, "b": 0}),
    ],
)
def test_what_the_watch_says_is_right(new: PodBuilder, freed: bool, room: dict[str, int]) -> None:
    state = state_of("a", "b")
    state.assume(pod().info(), "a")
    assert (Wake.ASSIGNED_POD_REMOVED in state.confirm(new.info())) is freed
    assert cpu(state) == room
    assert len(state.pods_on("a")) + len(state.pods_on("b")) == (new.manifest()["spec"]["nodeName"] != "gone")


def test_a_freed_port_is_freed_room() -> None:
    state = state_of("a")
    state.confirm(make_pod().host_port(80).host_port(81).on("a").info())
    assert state.confirm(make_pod().host_port(80).on("a").info()) is Wake.ASSIGNED_POD_REMOVED
    assert state.confirm(make_pod().host_port(80).host_port(82).on("a").info()) is Wake.NOTHING


def test_a_resize_under_way_counts_the_most_of_wanted_allocated_and_actual() -> None:
    state = state_of("a")
    state.confirm(pod("1").on("a").info())
    status = {"name": "c0", "allocatedResources": {"cpu": "3"}, "resources": {"requests": {"cpu": "2"}}}
    state.confirm(pod("1").on("a").status(containerStatuses=[status]).info())
    assert cpu(state) == {"a": 3000}


# ---- nodes that are not there


def test_pods_of_an_unknown_node_count_as_soon_as_it_appears() -> None:
    state = state_of()
    state.confirm(pod().on("late").info())
    assert state.upsert_node(make_node("late").obj()) == Wake.NODE_ADD
    assert cpu(state) == {"late": 1000}


def test_pods_outlive_their_node() -> None:
    state = state_of("a", "b")
    state.confirm(pod().on("a").info())
    state.remove_node("a")
    state.remove_node("never there")
    assert cpu(state) == {"b": 0}
    assert [placed.info.uid for placed in state.pods_on("a")] == [UID]
    state.upsert_node(make_node("a").obj())
    assert cpu(state) == {"a": 1000, "b": 0}
    state.remove_node("a")
    state.remove_pod(UID)
    state.upsert_node(make_node("a").obj())
    assert cpu(state) == {"a": 0, "b": 0}


def test_an_update_of_a_node_keeps_its_pods() -> None:
    state = state_of("a")
    state.confirm(pod().on("a").info())
    assert state.upsert_node(make_node("a").allocatable(cpu="1").obj()) == Wake.NODE_ALLOCATABLE
    assert cpu(state) == {"a": 1000}


def test_nothing_is_left_of_pods_and_nodes_that_have_gone() -> None:
    state = state_of()
    for i in range(10):
        state.upsert_node(make_node(f"n{i}").obj())
        state.confirm(make_pod(f"p{i}").on(f"n{i}").info())
        state.remove_node(f"n{i}")
        state.remove_pod(f"uid-of-default/p{i}")
    assert (len(state.nodes), state.pods, state._on_node) == (0, {}, {})
