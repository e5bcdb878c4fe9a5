"""Invariant 1: no gang stays partly bound, whatever dies, freezes or gets lost, and whenever.

The named fault points are gone through one by one, in each way, and then at random and together.
"""

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from tests.property.gang_faults import COMPENSATED, POINTS, WAYS, Fault, faults_for
from tests.property.gang_world import GangSpec, World, play

SPEC = GangSpec(members=4, min_count=3)
SHORT = GangSpec(members=4, min_count=4, unbindable=1)


def test_without_faults_a_gang_is_bound_and_nothing_else_happens() -> None:
    world = World({"g": SPEC}, [], seed=1)
    play(world, until_s=60.0)
    assert len(world.bound("g")) == 4
    assert world.deletes == []
    assert len(world.processes) == 1


def test_without_faults_a_gang_that_cannot_be_completed_leaves_nothing() -> None:
    world = World({"g": SHORT}, [], seed=1)
    play(world, until_s=200.0)
    assert world.bound("g") == []
    assert world.deletes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("spec", [SPEC, SHORT], ids=["complete", "short"])
def test_each_fault_point_in_each_way(spec: GangSpec, point: str, way: str) -> None:
    world = World({"g": spec}, faults_for(point, way), seed=1)
    play(world)
    if point != "FENCED" and (spec is SHORT) == (point in COMPENSATED):
        assert any(fault.point == point for fault in world.hit), "the point was never reached"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("way", ["executed late", "freeze"])
def test_binds_that_arrive_after_an_heir_gave_the_gang_up(way: str, seed: int) -> None:
    sent = [Fault("BIND_SENT", way, nth=1), Fault("BIND_SENT", way, nth=2)]
    end = [] if way == "freeze" else [Fault("BIND_FIRST", "kill")]
    world = World({"g": SPEC}, sent + end, seed=seed, heirs_give_up=True)
    play(world)
    assert world.bound("g") == [] or len(world.processes) == 1


specs = st.builds(
    lambda members, short, unbindable, orphans, opted_in: GangSpec(
        members, max(2, members - short), unbindable, orphans, opted_in
    ),
    st.integers(2, 5),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2),
    st.booleans(),
)
faults = st.builds(Fault, st.sampled_from(POINTS), st.sampled_from(WAYS), st.integers(1, 3))


@given(
    gangs=st.dictionaries(st.sampled_from(["a", "b", "c"]), specs, min_size=1),
    faults=st.lists(faults, max_size=5),
    disturbed=st.booleans(),
    heirs_give_up=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_no_gang_stays_partly_bound(
    gangs: dict[str, GangSpec], faults: list[Fault], disturbed: bool, heirs_give_up: bool, seed: int
) -> None:
    world = World(gangs, list(faults), seed=seed, disturbed=disturbed, heirs_give_up=heirs_give_up)
    try:
        play(world)
    finally:
        note(f"faults played: {world.hit}")
