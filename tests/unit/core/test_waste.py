"""The worth of free room, worked out by hand and held to what must not change it."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scheduler.core.mix import FrozenMix
from scheduler.core.waste import TUNING, WORTH_OF_CLUSTER, RoomWorth, Tuning

RESOURCES = {"cpu": 0, "memory": 1, "ephemeral-storage": 2, "gpu": 3}
FILL_ONLY = Tuning(wholeness=0.0)


def frozen(*shapes: tuple[float, Mapping[str, int]]) -> FrozenMix:
    names = tuple(sorted({name for _, shape in shapes for name in shape}))
    amounts = np.array([[shape.get(name, 0) for name in names] for _, shape in shapes], np.int64)
    amounts = amounts.reshape(len(shapes), len(names))
    return FrozenMix(1, names, amounts, np.array([weight for weight, _ in shapes]))


def column(**amounts: int) -> NDArray[np.int64]:
    return np.array([amounts.get(name, 0) for name in RESOURCES], np.int64)[:, None]


def worth(room: RoomWorth, free: NDArray[np.int64], allocatable: NDArray[np.int64]) -> list[float]:
    """In units of the cluster."""
    return [w / WORTH_OF_CLUSTER for w in room.worth(free[room.rows], allocatable[room.rows])]


def test_one_shape_fills_the_room_up_to_its_scarcer_resource() -> None:
    capacity = column(cpu=20, memory=20)[:, 0]
    room = RoomWorth(frozen((1.0, {"cpu": 1, "memory": 1})), RESOURCES, capacity, FILL_ONLY)
    node = column(cpu=10, memory=10)
    # A copy is 1/20 of the cluster's cpu plus 1/20 of its memory; five fit.
    assert worth(room, column(cpu=5, memory=10), node) == pytest.approx([0.5])
    assert worth(room, column(cpu=5, memory=2), node) == pytest.approx([0.2])
    assert worth(room, column(cpu=0, memory=10), node) == pytest.approx([0.0], abs=1e-6)
    assert worth(room, column(cpu=-3, memory=10), node) == pytest.approx([0.0], abs=1e-6)


def test_shapes_count_by_their_volume() -> None:
    capacity = column(cpu=10, memory=10)[:, 0]
    mix = frozen((0.8, {"cpu": 1}), (0.2, {"cpu": 1, "memory": 4}))
    room = RoomWorth(mix, RESOURCES, capacity, FILL_ONLY)
    # Demand is 1.0 core and 0.8 of memory an arrival: prices 1 and 0.64. Volumes 0.8 * 0.1 and
    # 0.2 * 0.4 are equal. With 5 cores and 4 of memory: 5 copies of 0.1, and one of 0.1 + 0.4 * 0.64.
    expected = 0.5 * 5 * 0.1 + 0.5 * 1 * (0.1 + 0.4 * 0.64)
    node = column(cpu=10, memory=10)
    assert worth(room, column(cpu=5, memory=4), node) == pytest.approx([expected])


def test_wholeness_fades_with_the_fourth_power_of_what_is_free() -> None:
    capacity = column(cpu=100)[:, 0]
    node = column(cpu=100)
    mix = frozen((1.0, {"cpu": 1}))
    with_bonus, without = (RoomWorth(mix, RESOURCES, capacity, t) for t in (Tuning(wholeness=0.1), FILL_ONLY))
    bonus = [
        worth(with_bonus, column(cpu=free), node)[0] - worth(without, column(cpu=free), node)[0]
        for free in (100, 99, 50)
    ]
    assert bonus == pytest.approx([0.025, 0.025 * 0.99**4, 0.025 / 16])


def test_a_resource_that_is_not_asked_for_is_not_looked_at() -> None:
    capacity = column(cpu=10, memory=10, gpu=8)[:, 0]
    room = RoomWorth(frozen((1.0, {"cpu": 1, "memory": 1})), RESOURCES, capacity)
    assert room.rows.tolist() == [0, 1]


def test_shapes_that_no_node_can_hold_are_left_out() -> None:
    capacity = column(cpu=10, memory=10)[:, 0]
    mix = frozen((0.5, {"cpu": 1}), (0.3, {"cpu": 1, "gpu": 1}), (0.1, {"fpga": 1}), (0.1, {"cpu": 11}))
    room = RoomWorth(mix, RESOURCES, capacity, FILL_ONLY)
    alone = RoomWorth(frozen((1.0, {"cpu": 1})), RESOURCES, capacity, FILL_ONLY)
    free, node = column(cpu=7, memory=1), column(cpu=10, memory=10)
    assert worth(room, free, node) == worth(alone, free, node)
    assert not RoomWorth(frozen((1.0, {"gpu": 1})), RESOURCES, capacity)
    assert not RoomWorth(frozen(), RESOURCES, capacity)


def test_a_node_without_a_resource_can_still_be_whole() -> None:
    capacity = column(cpu=20, gpu=8)[:, 0]
    mix = frozen((0.9, {"cpu": 1}), (0.1, {"cpu": 1, "gpu": 1}))
    with_bonus, without = (RoomWorth(mix, RESOURCES, capacity, t) for t in (Tuning(wholeness=0.1), FILL_ONLY))
    free, node = column(cpu=9), column(cpu=10)
    bonus = worth(with_bonus, free, node)[0] - worth(without, free, node)[0]
    assert bonus == pytest.approx(0.1 * 0.5 * 0.9**4 / 4)


AMOUNT = st.integers(0, 2**42)


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, 1), st.dictionaries(st.sampled_from(list(RESOURCES)), st.integers(1, 2**40))
        ),
        max_size=80,
    ),
    st.lists(st.tuples(AMOUNT, AMOUNT, AMOUNT, AMOUNT), min_size=1, max_size=4),
    st.data(),
)
def test_room_is_never_worth_less_for_being_larger_nor_more_than_it_is(
    shapes: list[tuple[float, dict[str, int]]], nodes: list[tuple[int, ...]], data: st.DataObject
) -> None:
    allocatable = np.array(nodes, np.int64).T
    room = RoomWorth(frozen(*shapes), RESOURCES, allocatable.sum(axis=1))
    if not room:
        return
    share = data.draw(st.floats(0, 1))
    free = (allocatable * share).astype(np.int64)
    whole = room.worth(allocatable[room.rows], allocatable[room.rows])
    part = room.worth(free[room.rows], allocatable[room.rows])
    assert (part >= 0).all()
    assert (part <= whole).all()
    assert whole.sum() <= 1.001 * (1 + TUNING.wholeness / 4) * len(room.rows) * WORTH_OF_CLUSTER
