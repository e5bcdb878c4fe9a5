"""What-ifs over the node table: whatever is tried, a rollback leaves everything as it was."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.mix import ShapeMix
from scheduler.core.nodes import NodeTable
from scheduler.core.pod_index import Query, Role
from scheduler.core.pod_info import PodInfo
from scheduler.core.topology_rules import Who
from scheduler.core.transaction import Transaction
from tests.builders import make_node, make_pod

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
GPU = "example.com/gpu"
QUERIES = [Query([Who(("default",), None, (("app", "In", (app,)),))]) for app in ("a", "b")]


def apart(app: str) -> dict[str, Any]:
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}}
    return {"podAntiAffinity": {REQUIRED: [term]}}


def make(number: int) -> PodInfo:
    """Eight pods that differ in all that the table accounts for."""
    builder = make_pod().named(f"p{number}").labels(app="ab"[number % 2]).req(cpu="1", memory="1Gi")
    if number & 1:
        builder.host_port(8000 + number // 4)
    if number & 2:
        builder.spec(affinity=apart("ba"[number % 2]))
    if number & 4:
        builder.req({GPU: "1"}, cpu="500m")
    return builder.info()


PODS = [make(number) for number in range(8)]


def table_of(placed: list[int]) -> NodeTable:
    """Three nodes; pod k of `placed` is on the k-th, round and round."""
    table = NodeTable(ShapeMix().frozen)
    for name in ("n0", "n1", "n2"):
        table.upsert(make_node(name).labels({"zone": name}).obj())
    for position, number in enumerate(placed):
        table.add_pod(position % 3, PODS[number])
    return table


def everything(table: NodeTable) -> dict[str, Any]:
    """All that anybody can see, but for generations; resources that nobody uses don't count."""
    view = table.view()
    carried = {(c.role, c.term): (dict(c.by_node), c.carriers) for c in table.pods._carried.values()}
    return {
        "requested": {n: view.requested[r].tolist() for n, r in table.resources.items() if n != GPU},
        "gpu": view.requested[table.resources[GPU]].tolist() if GPU in table.resources else [0, 0, 0],
        "nonzero": view.nonzero_requested.tolist(),
        "count": view.pod_count.tolist(),
        "ports": [dict(ports) for ports in table.ports],
        "port_count": table.port_count[:3].tolist(),
        "matching": [view.matching(query).amounts[:3].tolist() for query in QUERIES],
        "carried": carried,
        "carrying": {key: view.carrying(table.pods._carried[key]).amounts[:3].tolist() for key in carried},
        "concerning": [[c.serial for c in view.concerning(pod)] for pod in PODS],
        "signed": {ns: {s: dict(x.by_node) for s, x in g.items()} for ns, g in table.pods._signed.items()},
    }


def clocks(table: NodeTable) -> tuple[Any, ...]:
    return table.stamp, table.last_object_change, table.row_generation[:3].tolist()


def try_out(what_if: Transaction, table: NodeTable, placed: list[int], steps: list[tuple[int, int]]) -> None:
    """Each step puts a pod on a node, or takes one of the placed ones off; questions are asked meanwhile."""
    there = {(position % 3, number) for position, number in enumerate(placed)}
    for row, number in steps:
        if (row, number) in there:
            there.discard((row, number))
            what_if.remove(row, PODS[number])
        else:
            there.add((row, number))
            what_if.add(row, PODS[number])
        everything(table)


numbers = st.integers(0, len(PODS) - 1)
placements = st.lists(numbers, max_size=6, unique=True)
steps = st.lists(st.tuples(st.integers(0, 2), numbers), max_size=8)


@given(placements, steps, steps)
def test_a_hidden_transaction_leaves_no_trace(
    placed: list[int], before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    table = table_of(placed)
    was, clock = everything(table), clocks(table)
    with Transaction(table, hidden=True) as what_if:
        try_out(what_if, table, placed, before)
        between = everything(table)
        checkpoint = what_if.checkpoint()
        row_of = {number: position % 3 for position, number in enumerate(placed)}
        for number in placed:
            if (row_of[number], number) not in before:
                what_if.remove(row_of[number], PODS[number])
        what_if.rollback(checkpoint)
        assert _without_empty_terms(everything(table)) == _without_empty_terms(between)
    assert everything(table) == was
    assert clocks(table) == clock
    with Transaction(table, hidden=True) as what_if:  # and again, on what the first one has left
        try_out(what_if, table, placed, after)
    assert everything(table) == was
    assert clocks(table) == clock


def _without_empty_terms(seen: dict[str, Any]) -> dict[str, Any]:
    """Within a hidden transaction a term may outlast its carriers."""
    kept = {key: value for key, value in seen["carried"].items() if value[1]}
    carrying = {key: value for key, value in seen["carrying"].items() if key in kept}
    return {**seen, "carried": kept, "carrying": carrying, "concerning": None}


@given(placements, steps)
def test_an_open_transaction_is_undone_in_full_view(placed: list[int], done: list[tuple[int, int]]) -> None:
    table = table_of(placed)
    was, generation = everything(table), table.generation
    with Transaction(table) as what_if:
        try_out(what_if, table, placed, done)
    now = everything(table)
    now["concerning"] = was["concerning"] = None  # a term that goes and comes has a new serial
    assert now == was
    assert set(table.changed_since(generation).tolist()) == {row for row, _ in done}


@given(placements, steps, st.booleans())
def test_a_commit_is_the_same_as_having_done_it(
    placed: list[int], done: list[tuple[int, int]], hidden: bool
) -> None:
    table, other = table_of(placed), table_of(placed)
    generation, version = table.generation, table.pods.version
    with Transaction(table, hidden=hidden) as what_if:
        try_out(what_if, table, placed, done)
        what_if.commit()
    try_out(Transaction(other), other, placed, done)  # nobody leaves the block, so nothing is undone
    now, then = everything(table), everything(other)
    now["concerning"] = then["concerning"] = None
    assert now == then
    assert set(table.changed_since(generation).tolist()) == {row for row, _ in done}
    before = {key for number in placed for key in _terms(number)}
    if now["carried"].keys() != before:
        assert table.pods.version != version


def _terms(number: int) -> list[tuple[Role, Any]]:
    return [(Role.ANTI_AFFINITY, term) for term in PODS[number].rules.anti_affinity]


def test_what_a_term_said_in_a_hidden_transaction_is_not_remembered() -> None:
    table = table_of([])
    with Transaction(table, hidden=True) as what_if:
        what_if.add(0, PODS[2])  # keeps pods of app b out of its zone
        assert table.view().concerning(PODS[1])
    table.add_pod(1, PODS[3])  # keeps pods of app a away; as many changes as there were before
    assert not table.view().concerning(PODS[1])


def test_two_hidden_transactions_cannot_be_told_apart() -> None:
    table = table_of([])
    with Transaction(table, hidden=True), pytest.raises(RuntimeError):
        Transaction(table, hidden=True).__enter__()
    with Transaction(table, hidden=True):
        pass


def test_a_row_is_found_again_by_the_node_on_it() -> None:
    """An open transaction may outlast the moving of rows."""
    table = table_of([])
    with Transaction(table) as what_if:
        what_if.add(2, PODS[0])
        table.remove("n0")
    assert not np.any(table.view().pod_count)


def test_an_error_undoes_everything() -> None:
    table = table_of([0])
    was = everything(table)
    with suppress(ZeroDivisionError), Transaction(table, hidden=True) as what_if:
        what_if.add(1, PODS[3])
        1 / 0  # noqa: B018
    assert everything(table) == was
