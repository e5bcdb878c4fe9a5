"""The mix of pods: what counts as one shape, how it fades, and that it is bounded and repeatable."""

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.mix import (
    EPOCH_ARRIVALS,
    HALF_LIFE_EPOCHS,
    MAX_SHAPES,
    FrozenMix,
    ShapeMix,
    quantise,
)

SMALL = {"cpu": 100, "memory": 2**27}
LARGE = {"cpu": 4000, "memory": 2**34}


def observe(mix: ShapeMix, pods: Iterable[Mapping[str, int]], prefix: str = "") -> None:
    for i, requests in enumerate(pods):
        mix.observe(f"{prefix}{i}", requests, daemon=False)


def weight_of(frozen: FrozenMix, requests: Mapping[str, int]) -> float:
    row = [requests.get(name, 0) for name in frozen.resources]
    return float(frozen.weights[(frozen.shapes == row).all(axis=1)].sum())


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [(1, 1), (15, 15), (16, 16), (17, 18), (31, 32), (32, 32), (33, 36), (1000, 1024), (1025, 1152)],
)
def test_amounts_are_rounded_up_to_an_eighth_of_a_power_of_two(amount: int, rounded: int) -> None:
    assert quantise(amount) == rounded


@given(st.integers(1, 2**60), st.integers(1, 2**60))
def test_quantise_is_tight_stable_and_monotone(a: int, b: int) -> None:
    assert a <= quantise(a) <= a * 9 / 8
    assert quantise(quantise(a)) == quantise(a)
    assert (quantise(a) <= quantise(b)) or a > b


def test_nothing_is_known_before_the_first_epoch_ends() -> None:
    mix = ShapeMix()
    observe(mix, [SMALL] * (EPOCH_ARRIVALS - 1))
    assert mix.frozen.epoch == 0
    assert mix.frozen.weights.size == 0
    mix.observe("last", SMALL, daemon=False)
    assert mix.frozen.epoch == 1
    assert mix.frozen.resources == ("cpu", "memory")
    assert mix.frozen.shapes.tolist() == [[100, 2**27]]
    assert mix.frozen.weights.tolist() == [1.0]


def test_the_mix_stays_frozen_within_an_epoch() -> None:
    mix = ShapeMix()
    observe(mix, [SMALL] * EPOCH_ARRIVALS)
    frozen = mix.frozen
    observe(mix, [LARGE] * (EPOCH_ARRIVALS - 1), "later-")
    assert mix.frozen is frozen
    with pytest.raises(ValueError, match="read-only"):
        frozen.shapes[0, 0] = 1


def test_a_pod_counts_once_and_some_do_not_count() -> None:
    mix = ShapeMix()
    for _ in range(3 * EPOCH_ARRIVALS):
        mix.observe("same", SMALL, daemon=False)
    for i in range(EPOCH_ARRIVALS):
        mix.observe(f"daemon-{i}", LARGE, daemon=True)
        mix.observe(f"best-effort-{i}", {}, daemon=False)
    assert mix.frozen.epoch == 0
    observe(mix, [SMALL] * (EPOCH_ARRIVALS - 1))
    assert mix.frozen.shapes.tolist() == [[100, 2**27]]


def test_older_pods_count_half_after_the_half_life() -> None:
    mix = ShapeMix()
    observe(mix, [LARGE] * EPOCH_ARRIVALS)
    for epoch in range(HALF_LIFE_EPOCHS):
        observe(mix, [SMALL] * EPOCH_ARRIVALS, f"{epoch}-")
    newer = sum(2 ** (-k / HALF_LIFE_EPOCHS) for k in range(HALF_LIFE_EPOCHS))
    assert weight_of(mix.frozen, LARGE) == pytest.approx(0.5 / (0.5 + newer))


def test_pods_of_almost_the_same_size_are_one_shape_and_the_latest_stands_for_it() -> None:
    mix = ShapeMix()
    observe(mix, [{"cpu": 1000 + i % 8} for i in range(EPOCH_ARRIVALS)])
    assert mix.frozen.shapes.tolist() == [[1007]]
    observe(mix, [{"cpu": 1003}], "once-more-")
    observe(mix, [LARGE] * (EPOCH_ARRIVALS - 1), "large-")
    assert weight_of(mix.frozen, {"cpu": 1003}) > 0
    assert weight_of(mix.frozen, {"cpu": 1007}) == 0


def test_resources_are_named_and_missing_ones_are_zero() -> None:
    mix = ShapeMix()
    observe(mix, [{"memory": 5, "example.com/gpu": 1}, {"cpu": 3}] * (EPOCH_ARRIVALS // 2))
    assert mix.frozen.resources == ("cpu", "example.com/gpu", "memory")
    assert sorted(mix.frozen.shapes.tolist()) == [[0, 1, 5], [3, 0, 0]]


def test_shapes_with_little_demand_are_dropped_first() -> None:
    mix = ShapeMix()
    sizes = [(8 + eighth) << power for power in range(4, 42) for eighth in range(8)]
    observe(mix, [{"memory": size} for size in sizes])
    observe(mix, [{"memory": sizes[-1]}] * (2 * EPOCH_ARRIVALS - len(sizes)), "more-")
    assert sorted(mix.frozen.shapes[:, 0].tolist()) == sizes[-MAX_SHAPES:]
    assert mix.frozen.weights.sum() == pytest.approx(1.0)


def test_a_uid_is_remembered_for_a_while_not_for_ever() -> None:
    mix = ShapeMix()
    observe(mix, [SMALL] * (EPOCH_ARRIVALS - 1))
    observe(mix, [SMALL] * (EPOCH_ARRIVALS - 1))
    assert mix.frozen.epoch == 0
    observe(mix, [SMALL] * 40_000, "others-")
    observe(mix, [SMALL] * EPOCH_ARRIVALS)
    assert mix.frozen.epoch == (EPOCH_ARRIVALS - 1 + 40_000 + EPOCH_ARRIVALS) // EPOCH_ARRIVALS


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["cpu", "memory", "x/y"]), st.integers(1, 2**40), max_size=3),
        max_size=40,
    ),
    st.integers(1, 20),
)
def test_equal_arrivals_give_equal_mixes(pods: list[dict[str, int]], repeats: int) -> None:
    first, second = ShapeMix(), ShapeMix()
    arrivals = pods * repeats
    observe(first, arrivals)
    observe(second, [dict(reversed(pod.items())) for pod in arrivals])
    assert first.frozen.resources == second.frozen.resources
    assert np.array_equal(first.frozen.shapes, second.frozen.shapes)
    assert np.array_equal(first.frozen.weights, second.frozen.weights)
