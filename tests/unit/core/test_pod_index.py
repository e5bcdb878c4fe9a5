"""Counts of placed pods by selector and by carried term: kept step by step, equal to counting anew."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.mix import ShapeMix
from scheduler.core.nodes import NodeTable
from scheduler.core.pod_index import PodIndex, Query, Role
from scheduler.core.pod_info import PodInfo
from scheduler.core.state import ClusterState
from scheduler.core.tally import Tally
from scheduler.core.topology_rules import Who
from tests.builders import PodBuilder, make_node, make_pod

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
A, B = (("app", "In", ("a",)),), (("app", "In", ("b",)),)
TEAM = (("team", "In", ("t",)),)
QUERIES = [
    Query([Who(("default",), None, A)]),
    Query([Who(("default",), None, A)], living=True),
    Query([Who(("default", "other"), None, B)]),
    Query([Who((), (), A)]),
    Query([Who((), TEAM, A)]),
    Query([Who(("default",), TEAM, ()), Who((), (), B)]),
    Query([Who((), (), None)]),
]


def term(app: str, **more: Any) -> dict[str, Any]:
    return {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}, **more}


RULES: list[dict[str, Any]] = [
    {},
    {"podAntiAffinity": {REQUIRED: [term("a")]}},
    {"podAffinity": {REQUIRED: [term("b", namespaceSelector={"matchLabels": {"team": "t"}})]}},
    {
        "podAffinity": {PREFERRED: [{"weight": 5, "podAffinityTerm": term("a")}]},
        "podAntiAffinity": {PREFERRED: [{"weight": 5, "podAffinityTerm": term("a")}]},
    },
    {"podAntiAffinity": {PREFERRED: [{"weight": 2, "podAffinityTerm": term("a")}], REQUIRED: [term("b")]}},
]


def pod(number: int, node: str, app: str, namespace: str, terminating: bool, rules: int) -> PodInfo:
    builder: PodBuilder = make_pod().named(f"p{number}", namespace=namespace).uid(f"u{number}").on(node)
    builder.labels(app=app).spec(affinity=RULES[rules])
    return (builder.terminating() if terminating else builder).info()


node_names = st.sampled_from(["n0", "n1", "n2", "n3", "unknown"])
namespaces = st.sampled_from(["default", "other"])
pods = st.builds(
    pod,
    st.integers(0, 9),
    node_names,
    st.sampled_from("abc"),
    namespaces,
    st.booleans(),
    st.integers(0, len(RULES) - 1),
)
steps = st.one_of(
    st.tuples(st.just("pod"), pods),
    st.tuples(st.just("no pod"), st.integers(0, 9).map("u{}".format)),
    st.tuples(st.just("node"), node_names),
    st.tuples(st.just("many nodes"), st.just(70)),
    st.tuples(st.just("no node"), node_names),
    st.tuples(st.just("namespace"), st.tuples(namespaces, st.sampled_from([None, {}, {"team": "t"}]))),
    st.tuples(st.just("ask"), st.sampled_from(QUERIES)),
)


def apply(state: ClusterState, step: tuple[str, Any]) -> None:
    match step:
        case "pod", info:
            state.confirm(info)
        case "no pod", uid:
            state.remove_pod(uid)
        case "node", name if name != "unknown":
            state.upsert_node(make_node(name).obj())
        case "many nodes", count:
            for i in range(count):
                state.upsert_node(make_node(f"m{i}").obj())
        case "no node", name:
            state.remove_node(name)
        case "namespace", (name, labels):
            state.nodes.pods.set_namespace(name, labels)
        case "ask", query:
            state.nodes.view().matching(query)


def amounts(state: ClusterState, tally: Tally) -> list[int]:
    return list(map(int, tally.amounts[: len(state.nodes)]))


def counted_anew(state: ClusterState, query: Query) -> list[int]:
    labels_of = state.nodes.pods.namespace_labels
    return [
        sum(
            all(
                who.matches(p.info.namespace, p.info.labels, labels_of(p.info.namespace))
                for who in query.whos
            )
            and not (query.living and p.info.terminating)
            for p in state.pods_on(name)
        )
        for name in state.nodes.names
    ]


def carried_anew(state: ClusterState, asked: PodInfo) -> dict[tuple[Role, str], list[int]]:
    """Role and selector of each term on a node that means the pod → its sum on each node."""
    labels = state.nodes.pods.namespace_labels(asked.namespace)
    found: dict[tuple[Role, str], list[int]] = {}
    for row, name in enumerate(state.nodes.names):
        for placed in state.pods_on(name):
            rules = placed.info.rules
            for role, weight, carried in (
                *((Role.ANTI_AFFINITY, 1, t) for t in rules.anti_affinity),
                *((Role.AFFINITY, 1, t) for t in rules.affinity),
                *((Role.PREFERRED, w.weight, w.term) for w in rules.preferred),
            ):
                if carried.who.matches(asked.namespace, asked.labels, labels):
                    sums = found.setdefault((role, repr(carried)), [0] * len(state.nodes.names))
                    sums[row] += weight
    return found


@given(
    before=st.lists(steps, max_size=30), after=st.lists(steps, max_size=15), kept=st.sampled_from([2, 512])
)
def test_counts_are_what_counting_anew_gives(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]], kept: int
) -> None:
    state = ClusterState(ShapeMix().frozen)
    state.nodes.pods = PodIndex(state.nodes.row_of, state.nodes.row_generation.size, columns_kept=kept)
    for step in (("node", "n0"), ("node", "n1"), *before):
        apply(state, step)
    for step in [*after, ("ask", QUERIES[0])]:
        for query in QUERIES:
            assert amounts(state, state.nodes.view().matching(query)) == counted_anew(state, query)
        for app in "abc":
            asked = make_pod().labels(app=app).info()
            view = state.nodes.view()
            answers = {
                (c.role, repr(c.term)): amounts(state, view.carrying(c)) for c in view.concerning(asked)
            }
            assert answers == carried_anew(state, asked)
        apply(state, step)


def test_nothing_is_left_of_pods_that_have_gone() -> None:
    state = ClusterState(ShapeMix().frozen)
    state.upsert_node(make_node("n").obj())
    for number in range(50):
        state.confirm(pod(number, "n", f"app-{number}", f"ns-{number}", False, 4))
    for number in range(50):
        state.remove_pod(f"u{number}")
    index = state.nodes.pods
    assert not index.carries_terms
    assert index._carried_by_namespace == {}
    assert index._signed == {}


def test_a_new_term_is_seen_and_one_that_has_gone_is_not() -> None:
    table = NodeTable(ShapeMix().frozen)
    table.upsert(make_node("n").obj())
    asked = make_pod().labels(app="a").info()
    carrier = make_pod("carrier").spec(affinity=RULES[1]).info()
    assert table.view().concerning(asked) == ()
    table.add_pod(0, carrier)
    [carried] = table.view().concerning(asked)
    assert (carried.role, carried.carriers) == (Role.ANTI_AFFINITY, 1)
    assert table.view().concerning(make_pod().labels(app="b").info()) == ()
    table.add_pod(0, carrier, -1)
    assert table.view().concerning(asked) == ()
