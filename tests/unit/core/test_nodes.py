"""The node table: rows that move, columns that grow, generations that tell what changed."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import numpy as np
import pytest

from scheduler.core.labels import InternedColumn
from scheduler.core.mix import ShapeMix
from scheduler.core.nodes import NodeTable, Rows
from scheduler.core.plugin import Wake
from scheduler.quantity import QuantityError
from tests.builders import NodeBuilder, make_node, make_pod

GPU = "example.com/gpu"


def table_of(*nodes: NodeBuilder | str) -> NodeTable:
    table = NodeTable(ShapeMix().frozen)
    for node in nodes:
        table.upsert((make_node(node) if isinstance(node, str) else node).obj())
    return table


def requested(table: NodeTable, resource: str = "cpu") -> dict[str, int]:
    return dict(zip(table.names, table.view().requested[table.resources[resource]].tolist(), strict=True))


def labels(table: NodeTable, key: str) -> list[str | None]:
    column, ids = table.view().label(key)
    return [column.values[i] for i in ids]


def test_a_node_in_its_columns() -> None:
    table = table_of(
        make_node("n").allocatable({GPU: "2", "hugepages-2Mi": "4Mi"}, cpu="1500m", pods="7").cordoned()
    )
    view = table.view()
    amounts = {name: int(view.allocatable[row, 0]) for name, row in view.resources.items()}
    assert amounts == {
        "cpu": 1500,
        "memory": 8 << 30,
        "ephemeral-storage": 0,
        GPU: 2,
        "hugepages-2Mi": 4 << 20,
    }
    assert (view.names, view.count, len(table)) == (["n"], 1, 1)
    assert (view.pod_limit[0], view.unschedulable[0]) == (7, True)
    assert "pods" not in view.resources


def test_pods_are_added_and_taken_away() -> None:
    table = table_of("n")
    pod = make_pod().req({GPU: "1"}, cpu="1").container().host_port(80).info()
    table.add_pod(0, pod)
    table.add_pod(0, pod)
    assert requested(table) == {"n": 2000}
    assert requested(table, GPU) == {"n": 2}
    assert table.nonzero_requested[:, 0].tolist() == [2 * 1200, 2 * (600 << 20)]
    assert [(row, dict(ports)) for row, ports in table.view().ports()] == [(0, {("TCP", 80, "0.0.0.0"): 2})]
    table.add_pod(0, pod, -1)
    assert [(row, dict(ports)) for row, ports in table.view().ports()] == [(0, {("TCP", 80, "0.0.0.0"): 1})]
    table.add_pod(0, pod, -1)
    assert (requested(table), requested(table, GPU)) == ({"n": 0}, {"n": 0})
    assert (table.pod_count[0], table.nonzero_requested[:, 0].tolist()) == (0, [0, 0])
    assert list(table.view().ports()) == []


# ---- removal


@pytest.mark.parametrize("gone", ["a", "b", "c"])
def test_the_last_row_takes_the_place_of_one_that_left(gone: str) -> None:
    table = table_of(
        *(
            make_node(name).labels({"name": name}).taint(name).allocatable({GPU: str(i)}).cordoned(i == 2)
            for i, name in enumerate("abc")
        )
    )
    table.label_column("name")
    for i, name in enumerate("abc"):
        table.add_pod(table.row_of[name], make_pod().req(cpu=str(i + 1)).host_port(i + 1).info())
    table.remove(gone)
    kept = [name for name in "abc" if name != gone]
    assert sorted(table.names) == kept
    assert [table.names[table.row_of[name]] for name in kept] == kept
    view = table.view()
    for name in kept:
        i, row = "abc".index(name), table.row_of[name]
        assert requested(table)[name] == 1000 * (i + 1)
        assert view.allocatable[view.resources[GPU], row] == i
        assert view.unschedulable[row] == (i == 2)
        assert labels(table, "name")[row] == name
        taints, ids = view.taints
        assert taints.values[ids[row]] == ((name, "", "NoSchedule"),)
        assert dict(view.ports())[row] == Counter({("TCP", i + 1, "0.0.0.0"): 1})
        assert view.named(name).tolist() == [other == name for other in view.names]
    assert not view.named(gone).any()


@pytest.mark.parametrize("gone", ["a", "c"])
def test_a_removal_is_a_change(gone: str) -> None:
    """The last row too: nothing moves, yet answers for all rows have one row too many."""
    table = table_of("a", "b", "c")
    before = table.generation
    table.remove(gone)
    assert table.generation > before
    changed = {table.names[row] for row in table.changed_since(before)}
    assert changed == ({"c"} if gone == "a" else set())


def test_a_node_that_comes_back_has_nothing_of_its_former_life() -> None:
    table = table_of(make_node("n").labels({"zone": "a"}).taint("t").cordoned().allocatable({GPU: "1"}))
    assert labels(table, "zone") == ["a"]
    table.add_pod(0, make_pod().req(cpu="1").host_port(80).info())
    table.remove("n")
    table.upsert(make_node("n").obj())
    view = table.view()
    assert (requested(table), labels(table, "zone"), list(view.ports())) == ({"n": 0}, [None], [])
    assert (view.pod_count[0], view.unschedulable[0], view.taints[1][0]) == (0, False, 0)
    assert view.allocatable[view.resources[GPU], 0] == 0
    assert view.nonzero_requested.tolist() == [[0], [0]]


# ---- growth


def test_rows_beyond_the_first_capacity() -> None:
    table = table_of()
    table.label_column("name")
    for i in range(200):
        table.upsert(make_node(f"n{i}").labels({"name": str(i)}).allocatable(cpu=str(i)).obj())
        table.add_pod(i, make_pod().req(memory=str(i)).info())
    assert table.view().allocatable[0].tolist() == [1000 * i for i in range(200)]
    assert requested(table, "memory") == {f"n{i}": i for i in range(200)}
    assert labels(table, "name") == [str(i) for i in range(200)]
    assert table.capacity.tolist()[0] == 1000 * sum(range(200))


@pytest.mark.parametrize("from_pod", [True, False])
def test_a_new_resource_gets_a_row(from_pod: bool) -> None:
    table = table_of("n")
    assert table.capacity.tolist() == [4000, 8 << 30, 0]
    if from_pod:
        table.add_pod(0, make_pod().req({GPU: "1"}).info())
    else:
        table.upsert(make_node("n").allocatable({GPU: "1"}).obj())
    assert table.resources[GPU] == 3
    assert (requested(table, GPU)["n"], table.capacity.tolist()[3]) == ((1, 0) if from_pod else (0, 1))


def test_made_up_resources_do_not_pile_up() -> None:
    """A pod's author may name any resource, and put the pod on a node without a scheduler."""
    table = table_of(make_node("n").allocatable({GPU: "2"}))
    table.add_pod(0, make_pod().req({"example.com/taken": "1"}).info())
    for i in range(1000):
        passing = make_pod().req({f"example.com/r{i}": "1"}).info()
        table.add_pod(0, passing)
        table.add_pod(0, passing, -1)
        assert len(table.capacity) == len(table.resources) == len(table.allocatable) <= 64
    assert requested(table, "example.com/taken") == {"n": 1}
    assert table.allocatable[table.resources[GPU], 0] == 2
    assert list(table.resources.items())[:3] == [("cpu", 0), ("memory", 1), ("ephemeral-storage", 2)]


def test_resources_in_use_are_kept_however_many() -> None:
    many = {f"example.com/r{i}": str(i + 1) for i in range(300)}
    table = table_of(make_node("n").allocatable(many))
    amounts = {name: int(table.allocatable[row, 0]) for name, row in table.resources.items() if row > 2}
    assert amounts == {name: int(amount) for name, amount in many.items()}


# ---- labels


def test_a_label_is_indexed_on_first_use_and_kept_up_to_date() -> None:
    table = table_of(make_node("a").labels({"zone": "x"}), "b")
    assert labels(table, "zone") == ["x", None]
    table.upsert(make_node("b").labels({"zone": "y"}).obj())
    table.upsert(make_node("a").obj())
    table.upsert(make_node("c").labels({"zone": "x"}).obj())
    assert labels(table, "zone") == [None, "y", "x"]


def test_label_keys_that_pods_make_up_do_not_pile_up() -> None:
    table = table_of(make_node("a").labels({"zone": "x"}))
    for i in range(1000):
        assert labels(table, "zone") == ["x"]
        assert labels(table, f"made-up-{i}") == [None]
    assert len(table.labels) <= 256
    assert "zone" in table.labels, "those in use stay"


def test_label_values_that_change_all_the_time_do_not_pile_up() -> None:
    table = table_of("a", "b")
    for i in range(5000):
        column, _ = table.view().label("seen")
        table.upsert(make_node("a").labels({"seen": str(i)}).taint("seen", str(i)).obj())
    assert labels(table, "seen") == ["4999", None]
    assert max(len(column.values), len(table.taints.values)) < 2000


# ---- generations


NODE = make_node("n").labels({"zone": "a"}).taint("t")


@pytest.mark.parametrize(
    ("changed", "wake"),
    [
        (make_node("n").labels({"zone": "a"}).taint("t").allocatable(cpu="5"), Wake.NODE_ALLOCATABLE),
        (make_node("n").labels({"zone": "b"}).taint("t"), Wake.NODE_LABELS),
        (make_node("n").labels({"zone": "a"}).taint("t", "other"), Wake.NODE_TAINTS),
        (make_node("n").labels({"zone": "a"}), Wake.NODE_TAINTS),
        (make_node("n").labels({"zone": "a"}).taint("t").cordoned(), Wake.NODE_SCHEDULABLE),
        (make_node("n").cordoned(), Wake.NODE_LABELS | Wake.NODE_TAINTS | Wake.NODE_SCHEDULABLE),
        (make_node("other"), Wake.NODE_ADD),
        # What does not count:
        (make_node("n").labels({"zone": "a"}).taint("t"), Wake.NOTHING),
        (make_node("n").labels({"zone": "a"}).taint("t").annotations(beat="1"), Wake.NOTHING),
        (make_node("n").labels({"zone": "a"}).taint("t").cordoned(False), Wake.NOTHING),
    ],
)
def test_generations_follow_what_can_change_a_decision(changed: NodeBuilder, wake: Wake) -> None:
    table = table_of(NODE)
    before = table.generation
    assert table.upsert(changed.obj()) == wake
    rows = [table.row_of[changed.obj().metadata.name]] if wake else []
    assert table.changed_since(before).tolist() == table.objects_changed_since(before).tolist() == rows


def test_pods_change_a_row_but_not_its_object() -> None:
    table = table_of("a", "b")
    before = table.generation
    table.add_pod(1, make_pod().info())
    assert table.changed_since(before).tolist() == [1]
    assert table.objects_changed_since(before).tolist() == []


@pytest.mark.parametrize("placements", [1, 10, 100, 10_000])
def test_changed_rows_are_found_however_many_changes_ago(placements: int) -> None:
    table = table_of(*(f"n{i}" for i in range(300)))
    pod = make_pod().info()
    generations = [table.generation]
    for i in range(placements):
        table.add_pod(i * 7 % 300, pod)
        generations.append(table.generation)
    for past in {0, placements // 2, placements - 1, placements}:
        expected = sorted({i * 7 % 300 for i in range(past, placements)})
        assert table.changed_since(generations[past]).tolist() == expected


def test_an_unreadable_node_changes_nothing() -> None:
    table = table_of("n")
    before = table.generation
    for name in ("n", "new"):
        with pytest.raises(QuantityError, match="'lots'"):
            table.upsert(make_node(name).allocatable(memory="lots").obj())
    assert (table.names, table.generation, table.allocatable[0, 0]) == (["n"], before, 4000)


# ---- views


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([2, 0], np.intp), slice(0, 0), np.array([], np.intp)])
def test_a_view_holds_just_its_rows(rows: Rows) -> None:
    nodes = [make_node(n).labels({"name": n}).allocatable(cpu=str(i)) for i, n in enumerate("abcd")]
    table = table_of(*nodes)
    for row, name in enumerate("abcd"):
        table.add_pod(row, make_pod(name).host_port(row + 1).info())
    expected = list(range(*rows.indices(4))) if isinstance(rows, slice) else rows.tolist()
    view = table.view(rows)
    assert view.count == len(expected)
    assert view.names == ["abcd"[row] for row in expected]
    assert view.allocatable[0].tolist() == [1000 * row for row in expected]
    assert view.pod_count.tolist() == [1] * len(expected)
    column, ids = view.label("name")
    assert isinstance(column, InternedColumn)
    assert [column.values[i] for i in ids] == view.names
    assert view.named("c").tolist() == [row == 2 for row in expected]
    assert [(p, sum(ports.values())) for p, ports in view.ports()] == [(p, 1) for p in range(len(expected))]
    assert view.capacity.tolist()[0] == 6000, "of the cluster, not of the view"


def test_a_sketch_is_gone_with_its_last_user() -> None:
    table = table_of("n")
    sketch = table.sketch()
    assert sketch.cluster is table.cluster
    left = weakref.ref(sketch)
    del sketch
    gc.collect()
    assert left() is None
