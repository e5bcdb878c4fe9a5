"""Which images lie on which rows, through additions, changes and removals."""

from __future__ import annotations

from random import Random

from scheduler.core.images import ImageTable
from scheduler.core.mix import ShapeMix
from scheduler.core.plugin import Wake
from scheduler.core.state import ClusterState
from tests.builders import make_node

NAMES = ("a:1", "b:1", "c:1")


def test_a_table_follows_any_history() -> None:
    """Against a list of what is on each row."""
    rng, table = Random(7), ImageTable()
    rows: list[dict[str, int]] = []
    for _ in range(500):
        before = table.generation
        if not rows or rng.random() < 0.3:
            table.append()
            rows.append({})
        elif rng.random() < 0.2:
            row = rng.randrange(len(rows))
            table.remove(row)
            rows[row] = rows[-1]
            rows.pop()
        else:
            row = rng.randrange(len(rows))
            sizes = {name: rng.randrange(3) for name in rng.sample(NAMES, rng.randint(0, 3))}
            node = make_node().images(sizes).obj()
            assert table.shows(row, node) is (sizes == rows[row])
            table.set(row, node)
            if sizes == rows[row]:
                before -= 1  # nothing has changed
            rows[row] = sizes
        assert table.generation == before + 1
        for name in NAMES:
            assert table.holders(name) == {row: on[name] for row, on in enumerate(rows) if name in on}


def test_other_names_of_an_image_count_as_well() -> None:
    table, node = ImageTable(), make_node().obj()
    node.status.images = make_node().images({"a:1": 5}).obj().status.images
    assert node.status.images is not None
    node.status.images[0].names = ["a:1", "a@sha256:1"]
    table.append()
    table.set(0, node)
    assert table.holders("a@sha256:1") == {0: 5}


def test_new_images_wake_nobody_and_are_seen() -> None:
    state = ClusterState(ShapeMix().frozen)
    state.upsert_node(make_node("a").obj())
    state.upsert_node(make_node("b").images({"x:1": 8}).obj())
    generation = state.nodes.generation
    assert state.upsert_node(make_node("a").images({"x:1": 3, "y:1": 4}).obj()) == Wake.NOTHING
    assert state.nodes.objects_changed_since(generation).tolist() == [0]
    sizes, share = state.nodes.view().image("x:1")
    assert (sizes.tolist(), share) == ([3, 8], 1.0)
    sizes, share = state.nodes.view(slice(1, 2)).image("y:1")
    assert (sizes.tolist(), share) == ([0], 0.5)
    assert all(node.status.images is None for node in state.nodes.objects), "kept twice"


def test_a_heartbeat_changes_nothing() -> None:
    state, node = ClusterState(ShapeMix().frozen), make_node().images({"x:1": 3})
    state.upsert_node(node.obj())
    generation = state.nodes.generation
    assert state.upsert_node(node.annotations(beat="2").obj()) == Wake.NOTHING
    assert state.nodes.generation == generation


def test_declared_features_are_an_event() -> None:
    state = ClusterState(ShapeMix().frozen)
    state.upsert_node(make_node().obj())
    assert state.upsert_node(make_node().features("A").obj()) == Wake.NODE_FEATURES
    assert state.upsert_node(make_node().features("A").obj()) == Wake.NOTHING
