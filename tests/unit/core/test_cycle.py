"""The cycle: the node it picks and the words it finds when there is none.

That cached answers are the fresh ones is left to tests/property/test_cycle_cache.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from scheduler.core.cycle import Cycle, Placement
from scheduler.core.mix import ShapeMix
from scheduler.core.nodes import NodeView
from scheduler.core.plugin import FilterPlugin, FilterResult, PreFilterResult, ScorePlugin, Scores
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile, WeightedScore
from scheduler.core.state import ClusterState
from tests.builders import NodeBuilder, PodBuilder, make_node, make_pod, make_profile


def cycle_of(*nodes: NodeBuilder | str, profile: Profile | None = None) -> Cycle:
    state = ClusterState(ShapeMix().frozen)
    for node in nodes:
        state.upsert_node((make_node(node) if isinstance(node, str) else node).obj())
    return Cycle(profile or make_profile(), state.nodes)


class Table(FilterPlugin):
    """Rejects nodes by name with given reasons; may narrow or reject a pod before."""

    name = "Table"
    reads = ()

    def __init__(
        self,
        reasons: Mapping[str, int] | None = None,
        *,
        name: str = "Table",
        prefilter: PreFilterResult | None = None,
    ) -> None:
        self.name = name  # type: ignore[misc]  # (several of one class in one profile)
        self._bits, self._prefilter = reasons or {}, prefilter or PreFilterResult()
        self.calls = 0

    def prefilter(self, pod: PodInfo) -> PreFilterResult:
        return self._prefilter

    def reasons(self, pod: PodInfo) -> tuple[str, ...]:
        return ("node(s) said one thing", "node(s) said another")

    def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
        self.calls += nodes.count
        bits = np.array([self._bits.get(name, 0) for name in nodes.names], np.uint64)
        return FilterResult(bits, np.zeros(nodes.count, np.bool_))


class Points(ScorePlugin):
    """Scores by name; raw scores of up to a thousand when not normalised."""

    name = "Points"
    reads = ()

    def __init__(self, points: Mapping[str, int], *, normalized: bool = True) -> None:
        self._points = points
        self.normalized = normalized  # type: ignore[misc]

    def score(self, pod: PodInfo, nodes: NodeView) -> Scores:
        return np.array([self._points.get(name, 0) for name in nodes.names], np.int64)

    def normalize(self, raw: Scores) -> Scores:
        if self.normalized:
            return raw
        return raw * 100 // max(int(raw.max()), 1)


def profile_of(*filters: FilterPlugin, scores: Mapping[ScorePlugin, int] | None = None) -> Profile:
    return Profile("wholepod", filters, [WeightedScore(p, w) for p, w in (scores or {}).items()])


# ---- texts

TEXTS: dict[str, tuple[list[NodeBuilder], PodBuilder, str]] = {
    "no nodes at all": ([], make_pod(), "no nodes available to schedule pods"),
    "one reason, several nodes": (
        [make_node("a").cordoned(), make_node("b").cordoned()],
        make_pod(),
        "0/2 nodes are available: 2 node(s) were unschedulable.",
    ),
    "reasons are sorted as texts, counts included": (
        [*(make_node(f"full{i}").allocatable(cpu="0") for i in range(10)), make_node("c").cordoned()],
        make_pod().req(cpu="1"),
        "0/11 nodes are available: 1 node(s) were unschedulable, 10 Insufficient cpu.",
    ),
    "all missing resources of a node count": (
        [make_node("a").allocatable(cpu="1", memory="1", pods="0")],
        make_pod().req({"example.com/gpu": "1"}, cpu="2", memory="1Gi"),
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, "
        "1 Insufficient memory, 1 Too many pods.",
    ),
    "only the first filter that rejects a node counts": (
        [make_node("a").cordoned().taint("t").allocatable(cpu="0"), make_node("b").taint("t")],
        make_pod().req(cpu="1").selector({"no": "such"}),
        "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
    ),
    "nodes outside a pod's short list": (
        [make_node("a").cordoned(), make_node("b"), make_node("c")],
        make_pod().pinned_to("a"),
        "0/3 nodes are available: 1 node(s) were unschedulable, "
        "2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
    ),
    "a short list of nodes that do not exist": (
        [make_node("a"), make_node("b")],
        make_pod().pinned_to("x", "y"),
        "0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
    ),
    "a pod that fits no node whatever": (
        [make_node("a"), make_node("b")],
        make_pod().spec(resourceClaims=[{"name": "c"}]),
        "0/2 nodes are available: Wholepod does not support resource claims yet.",
    ),
    "names that exclude each other": (
        [make_node("a"), make_node("b")],
        make_pod().affinity(
            {
                "matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["a"]},
                    {"key": "metadata.name", "operator": "In", "values": ["b"]},
                ]
            }
        ),
        "0/2 nodes are available: pod affinity terms conflict.",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_of_a_failure(case: str) -> None:
    nodes, pod, text = TEXTS[case]
    placement = cycle_of(*nodes).place(pod.info())
    assert (placement.node, placement.message) == (None, text)


def test_pods_that_name_resources_in_another_order_get_their_own_reasons() -> None:
    """They are of one kind, and a reason is a bit that stands for the n-th resource."""
    one = make_pod("one").req({"example.com/gpu": "1"}, cpu="1", memory="1Gi").info()
    other = (
        make_pod("other")
        .req(memory="512Mi", cpu="500m")
        .req({"example.com/gpu": "1"}, cpu="500m", memory="512Mi")
        .info()
    )
    cycle = cycle_of(make_node("a").allocatable(cpu="0"))
    assert cycle.read_key(one) == cycle.read_key(other)
    text = "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu."
    assert (cycle.place(one).message, cycle.place(other).message) == (text, text)


def test_more_resources_than_reason_bits() -> None:
    """The author of a pod decides how many there are."""
    many = {f"example.com/r{i:03}": "1" for i in range(200)}
    message = cycle_of("a").place(make_pod().req(many).info()).message
    assert message.count("Insufficient") == 63
    nearly_all = dict.fromkeys(list(many)[:-1], "1")
    node = make_node("a").allocatable(nearly_all, pods="1")
    assert cycle_of(node).place(make_pod().req(many).info()).node is None


def test_who_rejected() -> None:
    profile = profile_of(Table({"a": 1, "b": 0}, name="First"), Table({"a": 1, "b": 2}, name="Second"))
    placement = cycle_of("a", "b", profile=profile).place(make_pod().info())
    assert placement.rejected_by == {"First", "Second"}
    assert placement.message == ("0/2 nodes are available: 1 node(s) said another, 1 node(s) said one thing.")


def test_a_failure_is_told_anew_when_the_nodes_have_changed() -> None:
    state = ClusterState(ShapeMix().frozen)
    cycle, pod = Cycle(make_profile(), state.nodes), make_pod().req(cpu="1").info()
    for name in "abc":
        state.upsert_node(make_node(name).cordoned().obj())
        assert cycle.place(pod).message.startswith(f"0/{len(state.nodes)} nodes")
    state.upsert_node(make_node("b").taint("t").obj())
    assert "1 node(s) had untolerated taint(s), 2 node(s) were" in cycle.place(pod).message
    state.remove_node("c")
    assert cycle.place(pod).message == (
        "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."
    )


@pytest.mark.parametrize("gone", ["a", "b", "c"])
def test_a_node_that_left_is_never_chosen(gone: str) -> None:
    state = ClusterState(ShapeMix().frozen)
    profile = profile_of(scores={Points({gone: 100}): 1})
    cycle, pod = Cycle(profile, state.nodes), make_pod().info()
    for name in "abc":
        state.upsert_node(make_node(name).obj())
    assert cycle.place(pod).node == gone
    state.remove_node(gone)
    assert cycle.place(pod).node in set("abc") - {gone}


# ---- PreFilter


def only(*names: str) -> PreFilterResult:
    return PreFilterResult(node_names=frozenset(names))


def test_a_short_list_is_all_that_is_looked_at() -> None:
    profile = profile_of(Table(prefilter=only("b", "c", "gone")), scores={Points({"a": 9, "c": 5}): 1})
    assert cycle_of("a", "b", "c", profile=profile).place(make_pod().info()).node == "c"


@pytest.mark.parametrize(
    ("lists", "node", "text"),
    [
        ((only("a", "b"), only("b", "c")), "b", ""),
        ((only("a"), only("b")), None, "node(s) didn't satisfy plugin(s) [First Second] simultaneously"),
        ((PreFilterResult(), only()), None, "node(s) didn't satisfy plugin Second"),
        ((PreFilterResult(rejection="no way"), only("a")), None, "no way"),
        ((only(), PreFilterResult(rejection="no way")), None, "node(s) didn't satisfy plugin First"),
    ],
)
def test_short_lists_meet(
    lists: tuple[PreFilterResult, PreFilterResult], node: str | None, text: str
) -> None:
    first, second = lists
    profile = profile_of(Table(name="First", prefilter=first), Table(name="Second", prefilter=second))
    placement = cycle_of("a", "b", "c", profile=profile).place(make_pod().info())
    message = f"0/3 nodes are available: {text}." if text else ""
    assert (placement.node, placement.message) == (node, message)


# ---- scores


def place(scores: Mapping[ScorePlugin, int], *filters: FilterPlugin) -> str | None:
    return cycle_of("a", "b", "c", profile=profile_of(*filters, scores=scores)).place(make_pod().info()).node


def test_scores_are_weighed_and_added() -> None:
    first, second = Points({"a": 60, "b": 50}), Points({"b": 40, "c": 70})
    assert place({first: 1, second: 1}) == "b"
    assert place({first: 1, second: 3}) == "c"
    assert place({first: 5, second: 1}) == "a"


def test_alone_raw_scores_decide_at_full_resolution() -> None:
    close = Points({"a": 1000, "b": 1001, "c": 999}, normalized=False)
    assert place({close: 1}) == "b"


def test_in_a_mix_scores_are_normalised_over_the_nodes_that_fit() -> None:
    raw = Points({"a": 100_000, "b": 1000, "c": 500}, normalized=False)
    other = Points({"c": 40})
    assert place({raw: 1, other: 1}) == "a"
    # Without a, b's thousand is worth 100 and c's five hundred 50.
    assert place({raw: 1, other: 1}, Table({"a": 1})) == "b"
    assert place({raw: 1, other: 1}, Table(prefilter=only("b", "c"))) == "b"
    assert place({raw: 1, other: 2}, Table({"a": 1})) == "c"


def test_negative_scores_are_scores() -> None:
    assert place({Points({"a": -5, "b": -3, "c": -4}): 1}) == "b"


def test_a_node_that_does_not_fit_wins_with_no_score() -> None:
    assert place({Points({"a": 100}): 1}, Table({"a": 1, "b": 1})) == "c"


# ---- ties


def test_of_equal_nodes_the_one_with_less_free_memory() -> None:
    nodes = [make_node("a"), make_node("b").allocatable(memory="2Gi"), make_node("c")]
    assert cycle_of(*nodes, profile=profile_of()).place(make_pod().info()).node == "b"


def test_of_still_equal_nodes_pods_choose_different_ones_and_always_the_same() -> None:
    names = [f"n{i}" for i in range(8)]
    pods = [make_pod(f"p{i}").info() for i in range(400)]

    def choices(order: list[str]) -> list[str | None]:
        cycle = cycle_of(*order, profile=profile_of())
        return [cycle.place(pod).node for pod in pods]

    chosen = choices(names)
    assert choices(names[::-1]) == chosen, "the order of rows must not matter"
    counts = [chosen.count(name) for name in names]
    assert min(counts) > 20


# ---- what is not computed twice


def test_answers_are_shared_and_patched() -> None:
    state = ClusterState(ShapeMix().frozen)
    table = Table()
    cycle = Cycle(profile_of(table), state.nodes)
    for i in range(100):
        state.upsert_node(make_node(f"n{i}").obj())
    cycle.place(make_pod("one").info())
    assert table.calls == 100
    cycle.place(make_pod("two").info())
    state.confirm(make_pod("on").on("n7").info())
    cycle.place(make_pod("three").info())
    assert table.calls == 100, "this filter does not read usage"
    state.upsert_node(make_node("n7").cordoned().obj())
    cycle.place(make_pod("four").info())
    assert table.calls == 101


def test_an_exception_leaves_no_half_answer_behind() -> None:
    class Fails(Table):
        fails = False

        def filter(self, pod: PodInfo, nodes: NodeView) -> FilterResult:
            if self.fails:
                raise RuntimeError("bad day")
            return super().filter(pod, nodes)

    state = ClusterState(ShapeMix().frozen)
    table = Fails({"b": 1})
    cycle, pod = Cycle(profile_of(table), state.nodes), make_pod().info()
    state.upsert_node(make_node("a").obj())
    assert cycle.place(pod).node == "a"
    state.remove_node("a")
    state.upsert_node(make_node("b").obj())
    table.fails = True
    with pytest.raises(RuntimeError):
        cycle.place(pod)
    table.fails = False
    assert cycle.place(pod).message == "0/1 nodes are available: 1 node(s) said one thing."


# ---- rejected_by


@pytest.mark.parametrize(
    ("rows", "who"),
    [
        ([0], {"First"}),
        ([1], {"Second"}),
        ([0, 1], {"First", "Second"}),
        ([2], None),
        ([0, 2], None),
    ],
)
def test_who_rejects_a_pod_on_some_rows(rows: list[int], who: set[str] | None) -> None:
    profile = profile_of(Table({"a": 1}, name="First"), Table({"a": 1, "b": 1}, name="Second"))
    cycle = cycle_of("a", "b", "c", profile=profile)
    assert cycle.rejected_by(make_pod().info(), np.array(rows, np.intp)) == who


@pytest.mark.parametrize(
    ("result", "who"),
    [
        (only("a"), {"First"}),
        (only("c"), None),
        (PreFilterResult(rejection="no way"), {"First"}),
    ],
)
def test_what_a_plugin_said_beforehand_counts(result: PreFilterResult, who: set[str] | None) -> None:
    cycle = cycle_of("a", "b", "c", profile=profile_of(Table(name="First", prefilter=result)))
    assert cycle.rejected_by(make_pod().info(), np.array([1, 2], np.intp)) == who


def test_explain_shows_filters_and_raw_scores() -> None:
    points: Any = Points({"a": 7})
    cycle = cycle_of("a", "b", profile=profile_of(Table({"b": 1}), scores={points: 2}))
    (static, _), raw = cycle.explain(make_pod().info())
    assert static.first.tolist() == [127, 0]
    assert {name: scores.tolist() for name, scores in raw.items()} == {"Points": [7, 0]}


def test_a_pod_for_one_node_is_looked_at_on_that_node_alone() -> None:
    """As long as it fits there; if not, all nodes have their say in the event."""
    table = Table({"d": 1}, prefilter=PreFilterResult(node_names=frozenset(["b"])))
    cycle = cycle_of("a", "b", "c", "d", profile=Profile("test", [table], []))
    assert cycle.place(make_pod().info()) == Placement("b")
    assert table.calls == 1
    table = Table({"d": 1}, prefilter=PreFilterResult(node_names=frozenset(["d"])))
    cycle = cycle_of("a", "b", "c", "d", profile=Profile("test", [table], []))
    assert cycle.place(make_pod().info()).message == (
        "0/4 nodes are available: 1 node(s) said one thing, 3 node(s) didn't satisfy plugin(s) [Table]."
    )
