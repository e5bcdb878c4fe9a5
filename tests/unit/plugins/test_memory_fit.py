"""MemoryFit: each objective on cases worked out by hand, and what must not change a score."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scheduler.api import Container, Node, NodeStatus, ObjectMeta, Pod, PodSpec, ResourceRequirements
from scheduler.core.cycle import Cycle
from scheduler.core.mix import EPOCH_ARRIVALS, FrozenMix, ShapeMix
from scheduler.core.nodes import MEMORY, NodeTable
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile, WeightedScore
from scheduler.core.waste import TUNING
from scheduler.plugins.memory_fit import MemoryFit, Objective
from scheduler.plugins.node_resources import NodeResourcesFit

GIB = 2**30
OBJECTIVES = get_args(Objective)
NOTHING_SEEN = ShapeMix().frozen
FIRST = 2**21


def pod(uid: str = "pod", **requests: str) -> PodInfo:
    resources = ResourceRequirements(requests={k.replace("_", "/"): v for k, v in requests.items()})
    return PodInfo(
        Pod(metadata=ObjectMeta(name=uid, uid=uid), spec=PodSpec(containers=[Container(resources=resources)]))
    )


def table(
    nodes: Mapping[str, Mapping[str, str]],
    mix: FrozenMix = NOTHING_SEEN,
    used: Mapping[str, PodInfo] | None = None,
) -> NodeTable:
    result = NodeTable(mix)
    for name, allocatable in nodes.items():
        status = NodeStatus(allocatable={"pods": "110", **allocatable})
        result.upsert(Node(metadata=ObjectMeta(name=name), status=status))
    for name, usage in (used or {}).items():
        result.add_pod(result.row_of[name], usage)
    return result


def seen(*kinds: Mapping[str, int]) -> FrozenMix:
    """The mix after an epoch in which these kinds of pods came in turn."""
    mix = ShapeMix()
    for i in range(EPOCH_ARRIVALS):
        mix.observe(str(i), kinds[i % len(kinds)], daemon=False)
    return mix.frozen


def scores(objective: str, who: PodInfo, nodes: NodeTable) -> dict[str, int]:
    raw = MemoryFit({"objective": objective}).score(who, nodes.view())
    return dict(zip(nodes.names, raw.tolist(), strict=True))


def best(objective: str, who: PodInfo, nodes: NodeTable) -> str:
    plugin = MemoryFit({"objective": objective})
    placement = Cycle(Profile("test", [NodeResourcesFit()], [WeightedScore(plugin, 1)]), nodes).place(who)
    assert placement.node is not None
    return placement.node


# ---- tight


def test_tight_is_the_share_in_use_of_memory_then_of_the_rest() -> None:
    nodes = table({"n": {"cpu": "4", "memory": "2Gi"}}, used={"n": pod(memory="512Mi")})
    assert scores("tight", pod(cpu="1", memory="1Gi"), nodes) == {"n": 750_000 * FIRST + 250_000}
    assert scores("tight", pod(), nodes) == {"n": 250_000 * FIRST}


def test_tight_takes_the_small_node_first_so_that_a_and_b_land_apart() -> None:
    nodes = table({"node-a": {"cpu": "4", "memory": "1280Mi"}, "node-b": {"cpu": "4", "memory": "2Gi"}})
    a, b = pod("a", memory="1Gi"), pod("b", memory="512Mi")
    assert best("tight", a, nodes) == "node-a"
    nodes.add_pod(nodes.row_of["node-a"], a)
    assert best("tight", b, nodes) == "node-b"


def test_tight_looks_at_memory_first_and_at_the_rest_when_memory_is_equal() -> None:
    node = {"cpu": "4", "memory": "4Gi"}
    nodes = table(
        {"cpu-full": node, "memory-full": node},
        used={"cpu-full": pod(cpu="3", memory="1Gi"), "memory-full": pod(cpu="1", memory="2Gi")},
    )
    assert best("tight", pod(cpu="500m", memory="1Gi"), nodes) == "memory-full"
    nodes.add_pod(nodes.row_of["cpu-full"], pod(memory="1Gi"))
    assert best("tight", pod(cpu="500m", memory="1Gi"), nodes) == "cpu-full"


# ---- balanced and spread


def test_balanced_evens_out_what_is_left() -> None:
    node = {"cpu": "10", "memory": "10Gi"}
    nodes = table(
        {"much-cpu-left": node, "even": node, "much-memory-left": node},
        used={
            "much-cpu-left": pod(cpu="2", memory="6Gi"),
            "even": pod(cpu="1", memory="1Gi"),
            "much-memory-left": pod(cpu="6", memory="2Gi"),
        },
    )
    # With the pod, 4, 9 and 0 cores stay free, and 4, 9 and 8 GiB: imbalances of 0, 4 and 8 tenths.
    assert scores("balanced", pod(cpu="4"), nodes) == {
        "much-cpu-left": 400_000,
        "even": 700_000 - 4 * FIRST,
        "much-memory-left": 400_000 - 8 * FIRST,
    }
    assert best("balanced", pod(cpu="4"), nodes) == "much-cpu-left"
    assert best("balanced", pod(memory="4Gi"), nodes) == "much-memory-left"


def test_balanced_prefers_the_emptier_of_equally_balanced_nodes() -> None:
    node = {"cpu": "10", "memory": "10Gi"}
    nodes = table({"empty": node, "half": node}, used={"half": pod(cpu="5", memory="5Gi")})
    assert best("balanced", pod(cpu="1", memory="1Gi"), nodes) == "empty"


def test_spread_takes_the_emptiest() -> None:
    node = {"cpu": "10", "memory": "10Gi"}
    nodes = table({"cpu": node, "memory": node}, used={"cpu": pod(cpu="4"), "memory": pod(memory="3Gi")})
    assert scores("spread", pod(cpu="1"), nodes) == {"cpu": 750_000, "memory": 800_000}


def test_a_further_resource_counts_when_the_pod_asks_for_it() -> None:
    node = {"cpu": "10", "memory": "10Gi", "example.com/gpu": "4"}
    gpu = {"example.com_gpu": "1"}
    nodes = table({"one-left": node, "all-left": node}, used={"one-left": pod(**{"example.com_gpu": "3"})})
    assert best("tight", pod(memory="1Gi", **gpu), nodes) == "one-left"
    assert best("spread", pod(memory="1Gi", **gpu), nodes) == "all-left"
    without = scores("spread", pod(memory="1Gi"), nodes)
    assert without["one-left"] == without["all-left"]


# ---- expected


CPU_POD, MEMORY_POD = {"cpu": 1000, "memory": GIB // 4}, {"cpu": 250, "memory": GIB}


def test_expected_fills_the_gap_that_the_pods_to_come_cannot_use() -> None:
    node = {"cpu": "10", "memory": "10Gi"}
    nodes = table(
        {"little-memory": node, "little-cpu": node, "empty": node},
        mix=seen(CPU_POD, MEMORY_POD),
        used={"little-memory": pod(cpu="2", memory="9Gi"), "little-cpu": pod(cpu="9", memory="2Gi")},
    )
    assert best("expected", pod(cpu="1", memory="256Mi"), nodes) == "little-memory"
    assert best("expected", pod(cpu="250m", memory="1Gi"), nodes) == "little-cpu"


def test_expected_keeps_an_empty_node_whole() -> None:
    node = {"cpu": "10", "memory": "10Gi"}
    nodes = table(
        {"empty": node, "in-use": node, "fuller": node},
        mix=seen({"cpu": 1000, "memory": GIB}),
        used={"in-use": pod(cpu="1", memory="1Gi"), "fuller": pod(cpu="5", memory="5Gi")},
    )
    ranking = scores("expected", pod(cpu="1", memory="1Gi"), nodes)
    assert ranking["fuller"] > ranking["in-use"] > ranking["empty"]
    # Both the pod and what its room would hold are a tenth of a node, in cpu as in memory: the room
    # lost is worth two sizes, and the node's wholeness, ten times two sizes, falls by 1 - 0.9⁴.
    started = 10 * 2_000_000 * TUNING.wholeness / 4 * (1 - 0.9**4)
    assert ranking["empty"] == pytest.approx(-2_000_000 - started, abs=2)


def test_expected_starts_another_node_rather_than_strand_memory() -> None:
    node = {"cpu": "10", "memory": "10Gi"}
    nodes = table(
        {"empty": node, "little-cpu": node},
        mix=seen(CPU_POD, MEMORY_POD),
        used={"little-cpu": pod(cpu="7", memory="1Gi")},
    )
    assert best("expected", pod(cpu="1", memory="256Mi"), nodes) == "empty"
    assert best("tight", pod(cpu="1", memory="256Mi"), nodes) == "little-cpu"


def test_expected_spares_rare_devices_for_the_pods_that_need_them() -> None:
    plain = {"cpu": "10", "memory": "40Gi"}
    nodes = table(
        {"with-gpu": {**plain, "example.com/gpu": "4"}, "plain": plain},
        mix=seen({"cpu": 1000, "memory": GIB}, {"cpu": 2000, "memory": GIB, "example.com/gpu": 1}),
        used={"plain": pod(cpu="5", memory="1Gi"), "with-gpu": pod(cpu="5", memory="8Gi")},
    )
    assert best("expected", pod(cpu="1", memory="1Gi"), nodes) == "plain"
    assert best("tight", pod(cpu="1", memory="1Gi"), nodes) == "with-gpu"


def test_expected_does_not_care_where_a_pod_without_requests_goes() -> None:
    nodes = table({"a": {"cpu": "4", "memory": "4Gi"}, "b": {"cpu": "8"}}, mix=seen(CPU_POD))
    assert scores("expected", pod(), nodes) == {"a": 0, "b": 0}


# ---- the same scores, however one asks


Sizes = list[tuple[int, int, int, int]]
"""(cpu millicores, MiB, used percent of cpu, used percent of memory) of each node."""
sizes = st.lists(
    st.tuples(st.integers(0, 128_000), st.integers(0, 2**20), st.integers(0, 120), st.integers(0, 120)),
    min_size=1,
    max_size=12,
)
requests = st.tuples(st.integers(0, 64_000), st.integers(0, 2**18))


def random_table(nodes: Sizes, mix: FrozenMix, *, memory_unit: int = 2**20) -> NodeTable:
    result = NodeTable(mix)
    for i, (cpu_milli, memory, cpu_percent, memory_percent) in enumerate(nodes):
        amounts = {"cpu": f"{cpu_milli}m", "memory": str(memory * memory_unit), "pods": "110"}
        result.upsert(Node(metadata=ObjectMeta(name=f"n{i}"), status=NodeStatus(allocatable=amounts)))
        result.requested[0, i] = cpu_milli * cpu_percent // 100
        result.requested[1, i] = memory * memory_percent // 100 * memory_unit
    return result


def random_pod(request: tuple[int, int], *, memory_unit: int = 2**20) -> PodInfo:
    return pod(cpu=f"{request[0]}m", memory=str(request[1] * memory_unit))


@lru_cache
def varied_mix(*, memory_unit: int = 2**20) -> FrozenMix:
    rng = np.random.default_rng(7)
    kinds = [
        {"cpu": int(c), "memory": int(m) * memory_unit}
        for c, m in zip(rng.integers(10, 8000, 100), rng.integers(1, 2**15, 100), strict=True)
    ]
    return seen(*kinds, {"memory": 2**10 * memory_unit}, {"cpu": 100})


def raw_scores(objective: str, who: PodInfo, nodes: NodeTable, rows: Any = None) -> NDArray[np.int64]:
    return MemoryFit({"objective": objective}).score(who, nodes.view(rows))


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(sizes, requests, st.data())
def test_some_rows_in_any_order_score_as_all_rows(
    objective: str, nodes: Sizes, request_: tuple[int, int], data: st.DataObject
) -> None:
    everything = random_table(nodes, varied_mix())
    rows = np.array(data.draw(st.permutations(range(len(nodes)))), np.intp)
    rows = rows[: data.draw(st.integers(1, len(nodes)))]
    all_scores = raw_scores(objective, random_pod(request_), everything)
    assert all_scores.dtype == np.int64
    assert raw_scores(objective, random_pod(request_), everything, rows).tolist() == all_scores[rows].tolist()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_row_of_a_large_cluster_scores_as_all_rows(objective: str) -> None:
    rng = np.random.default_rng(3)
    count = 1_300
    columns = [rng.integers(low, high, count) for low, high in ((1, 128_000), (1, 2**20), (0, 101), (0, 101))]
    nodes = random_table(list(zip(*(c.tolist() for c in columns), strict=True)), varied_mix())
    who = random_pod((150, 300))
    all_scores = raw_scores(objective, who, nodes)
    for row in (0, 511, 512, 1_023, 1_024, count - 1):
        assert raw_scores(objective, who, nodes, slice(row, row + 1)).tolist() == [all_scores[row]]


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(sizes, requests)
def test_the_unit_of_memory_does_not_matter(objective: str, nodes: Sizes, request_: tuple[int, int]) -> None:
    small, large = (
        raw_scores(
            objective,
            random_pod(request_, memory_unit=unit),
            random_table(nodes, varied_mix(memory_unit=unit), memory_unit=unit),
        )
        for unit in (2**12, 2**20)
    )
    # `expected` adds a millionth of a byte to free room, which may show in the last digit.
    tolerance = np.abs(large) / 1e6 + 1 if objective == "expected" else np.zeros(len(nodes))
    assert (np.abs(small - large) <= tolerance).all()


@given(sizes, requests)
def test_expected_is_tight_until_something_is_known(nodes: Sizes, request_: tuple[int, int]) -> None:
    cluster = random_table(nodes, NOTHING_SEEN)
    who = random_pod(request_)
    assert raw_scores("expected", who, cluster).tolist() == raw_scores("tight", who, cluster).tolist()


@given(sizes, requests)
def test_a_pod_never_makes_room_worth_more(nodes: Sizes, request_: tuple[int, int]) -> None:
    roomy = (128_000, 2**20, 0, 0)  # so that the mix can be placed at all
    cluster = random_table([*nodes, roomy], varied_mix())
    assert (raw_scores("expected", random_pod(request_), cluster) <= 0).all()


# ---- the contract with the cycle


def test_cached_scores_of_expected_end_with_the_epoch_and_with_the_clusters_size() -> None:
    nodes = table({"n": {"cpu": "4", "memory": "4Gi"}}, mix=seen(CPU_POD))
    expected, tight = MemoryFit(), MemoryFit({"objective": "tight"})
    versions = [expected.version(nodes.view())]
    nodes.add_pod(0, pod(memory="1Gi"))
    assert expected.version(nodes.view()) == versions[0]
    nodes.upsert(Node(metadata=ObjectMeta(name="m"), status=NodeStatus(allocatable={"memory": "1Gi"})))
    versions.append(expected.version(nodes.view()))
    mix = ShapeMix()
    for i in range(2 * EPOCH_ARRIVALS):
        mix.observe(str(i), CPU_POD, daemon=False)
    nodes.mix = mix.frozen
    versions.append(expected.version(nodes.view()))
    assert len(set(versions)) == 3
    assert tight.version(nodes.view()) == 0


def test_one_plugin_follows_mix_and_capacity() -> None:
    nodes = table({"n": {"cpu": "4", "memory": "4Gi"}, "m": {"cpu": "8", "memory": "4Gi"}}, mix=seen(CPU_POD))
    plugin, who = MemoryFit(), pod(cpu="1", memory="1Gi")
    for change in (
        lambda: setattr(nodes, "mix", seen(MEMORY_POD)),
        lambda: nodes.upsert(
            Node(metadata=ObjectMeta(name="x"), status=NodeStatus(allocatable={"cpu": "64", "memory": "2Gi"}))
        ),
    ):
        before = plugin.score(who, nodes.view()).tolist()
        change()
        after = plugin.score(who, nodes.view()).tolist()
        assert after != before
        assert after == MemoryFit().score(who, nodes.view()).tolist()


def test_ties_go_to_the_node_with_less_free_memory() -> None:
    nodes = table({"roomy": {"cpu": "4", "memory": "8Gi"}, "small": {"cpu": "4", "memory": "4Gi"}})
    assert best("tight", pod(cpu="1"), nodes) == "small"
    assert scores("tight", pod(cpu="1"), nodes)["roomy"] == scores("tight", pod(cpu="1"), nodes)["small"]


@pytest.mark.parametrize(
    ("raw", "normalized"), [([-5, 0, 5], [0, 50, 100]), ([7, 7], [100, 100]), ([-(2**40), 2**40], [0, 100])]
)
def test_normalize_stretches_over_the_whole_range(raw: list[int], normalized: list[int]) -> None:
    assert MemoryFit().normalize(np.array(raw, np.int64)).tolist() == normalized


def test_overcommitted_and_odd_nodes_get_a_score() -> None:
    nodes = table(
        {"shrunk": {"cpu": "1", "memory": "1Gi"}, "no-memory": {"cpu": "4"}, "nothing": {}},
        mix=seen(CPU_POD, MEMORY_POD),
        used={"shrunk": pod(cpu="2", memory="2Gi")},
    )
    assert (nodes.requested[MEMORY] > nodes.allocatable[MEMORY]).any()
    for objective in OBJECTIVES:
        assert len(scores(objective, pod(cpu="1", memory="1Gi"), nodes)) == 3


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="one of tight, balanced, spread, expected, got 'tigth'"):
        MemoryFit({"objective": "tigth"})
    with pytest.raises(ValueError, match="takes no arguments, got strategy"):
        MemoryFit({"objective": "tight", "strategy": "x"})
    assert MemoryFit().objective == "expected"
