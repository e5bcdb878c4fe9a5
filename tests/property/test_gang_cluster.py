"""Invariants 1 to 4 of gangs, for each strategy: the real scheduler in a world of faults, in virtual time.

1. Until it is complete for the first time, no gang stays bound in part. 2. No node is given more than it has.
3. With room for all, every gang gets its places. 4. Holds, claims and what is assumed are gone at the end.
"""

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.property.cluster_world import ClusterWorld, Happening, play_cluster
from tests.property.fault_counts import RECORD, Counts, is_long
from tests.property.gang_faults import COMPENSATED, POINTS, WAYS, Fault, faults_for
from tests.property.gang_world import GangSpec

STRATEGIES = pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])

specs = st.builds(
    lambda members, short, unbindable: GangSpec(members, max(2, members - short), unbindable),
    st.integers(2, 4),
    st.integers(0, 2),
    st.sampled_from([0, 0, 0, 1, 2]),
)
some_faults = st.lists(
    st.builds(Fault, st.sampled_from(POINTS), st.sampled_from(WAYS), st.integers(1, 3)), max_size=4
)
happenings = st.builds(
    Happening,
    st.floats(0.5, 100.0),
    st.sampled_from(["lost", "failed", "finished", "outsider"]),
    st.sampled_from("abc"),
)


@STRATEGIES
def test_without_faults_all_is_bound_and_nothing_deleted(strategy: str) -> None:
    world = ClusterWorld({"a": GangSpec(4, 3), "b": GangSpec(3, 3)}, [], seed=1, strategy=strategy, singles=2)
    play_cluster(world)
    assert len(world.binds) == 9
    assert world.deletes == []


@STRATEGIES
def test_whatever_happens(strategy: str, capfd: pytest.CaptureFixture[str]) -> None:
    """As many histories aim at each fault in each way, and have others on the way."""
    counts = Counts(strategy)
    aims = [*product(POINTS, WAYS)]
    each = settings(max_examples=max(2, -(-settings().max_examples // len(aims))))
    for point, way in aims:
        each(_histories(strategy, point, way, counts))()
        with capfd.disabled():
            counts.tell()
    RECORD[strategy] = counts
    rare = {"FENCED", "COMP_RECORDED", "COMP_PARTIAL"}  # need room and luck: asked for in long runs
    assert {point for point, _ in counts.played} >= {*POINTS} - rare, "not every step was struck"
    if is_long():
        assert counts.missing() == []


def _histories(strategy: str, point: str, way: str, counts: Counts) -> Callable[[], None]:
    @given(
        gangs=st.dictionaries(st.sampled_from("abc"), specs, min_size=1),
        nodes_gi=st.lists(st.integers(1, 5), min_size=1, max_size=4),
        singles=st.integers(0, 3),
        policy=st.sampled_from(["replace", "restart", "keep"]),
        happenings=st.lists(happenings, max_size=4),
        others=some_faults,
        disturbed=st.booleans(),
        seed=st.integers(0, 2**32),
    )
    def one_history(
        gangs: dict[str, GangSpec],
        nodes_gi: list[int],
        singles: int,
        policy: str,
        happenings: list[Happening],
        others: list[Fault],
        disturbed: bool,
        seed: int,
    ) -> None:
        if point in COMPENSATED:
            gangs = {**gangs, "a": GangSpec(members=3, min_count=3, unbindable=1)}
        faults = [*faults_for(point, way), *others]
        if any(fault.way == "freeze" for fault in faults):
            singles = 0  # a bind that a stopped process was about to send is fenced for members only
        world = ClusterWorld(
            gangs,
            faults,
            seed=seed,
            disturbed=disturbed,
            strategy=strategy,
            policy=policy,
            nodes_gi=tuple(nodes_gi),
            singles=singles,
            happenings=tuple(h for h in happenings if h.gang in gangs or h.what == "outsider"),
        )
        try:
            play_cluster(world)
        finally:
            note(f"at {point}, {way}; faults played: {world.hit}")
        counts.add(world.hit)

    return one_history
