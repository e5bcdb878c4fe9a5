"""Invariants 1 to 4 of gangs, for each strategy: the real scheduler in a world of faults, in virtual time.

1. Until it is complete for the first time, no gang stays bound in part. 2. No node is given more than it has.
3. With room for all, every gang gets its places. 4. Holds, claims and what is assumed are gone at the end.
"""

from collections.abc import Callable
from zlib import crc32

import pytest
from hypothesis import given, note, seed, settings
from hypothesis import strategies as st

from tests.property.cluster_world import ClusterWorld, Happening, play_cluster
from tests.property.fault_counts import STRATEGIES, Counts
from tests.property.gang_faults import COMPENSATED, POINTS, WAYS, Fault, faults_for
from tests.property.gang_world import GangSpec
from tests.property.long_runs import HandOver, is_long

each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)

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


@each_strategy
def test_without_faults_all_is_bound_and_nothing_deleted(strategy: str) -> None:
    world = ClusterWorld({"a": GangSpec(4, 3), "b": GangSpec(3, 3)}, [], seed=1, strategy=strategy, singles=2)
    play_cluster(world)
    assert len(world.binds) == 9
    assert world.deletes == []


@each_strategy
@pytest.mark.parametrize("point", POINTS)
def test_whatever_happens(strategy: str, point: str, hand_over: HandOver) -> None:
    """As many histories aim at the fault in each way, and have others on the way."""
    counts = Counts()
    each = settings(max_examples=max(2, -(-settings().max_examples // (len(POINTS) * len(WAYS)))))
    try:
        for way in WAYS:
            history = _histories(strategy, point, way, counts)
            if settings().derandomize:  # or each would be the same
                history = seed(crc32(f"{strategy} {point} {way}".encode()))(history)
            each(history)()
    finally:
        hand_over("faults-model", {"strategy": strategy, **counts.plain()})
    struck = [way for way in WAYS if counts.played[point, way]]
    assert struck == [*WAYS] if is_long() else struck or point == "FENCED", "not struck in all ways"


def _histories(strategy: str, point: str, way: str, counts: Counts) -> Callable[[], None]:
    @given(
        gangs=st.dictionaries(st.sampled_from("abc"), specs, min_size=1),
        nodes_gi=st.lists(st.integers(1, 5), min_size=1, max_size=4),
        singles=st.integers(0, 3),
        policy=st.sampled_from(["replace", "restart", "keep"]),
        happenings=st.lists(happenings, max_size=4),
        others=some_faults,
        disturbed=st.booleans(),
        world_seed=st.integers(0, 2**32),
    )
    def one_history(
        gangs: dict[str, GangSpec],
        nodes_gi: list[int],
        singles: int,
        policy: str,
        happenings: list[Happening],
        others: list[Fault],
        disturbed: bool,
        world_seed: int,
    ) -> None:
        if point in COMPENSATED:
            gangs = {**gangs, "a": GangSpec(members=3, min_count=3, unbindable=1)}
            nodes_gi = [4, *nodes_gi]  # with room for it, or nothing is begun that could be taken back
        faults = [*faults_for(point, way), *others]
        if any(fault.way == "freeze" for fault in faults):
            singles = 0  # a bind that a stopped process was about to send is fenced for members only
        world = ClusterWorld(
            gangs,
            faults,
            seed=world_seed,
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
        counts.add(world.hit, world.longest_partial_s)

    return one_history
