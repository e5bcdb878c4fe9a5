"""One look-up for a row whose amounts were seen before, and nothing more than that."""

import numpy as np

from scheduler.core.cycle import Cycle
from scheduler.core.mix import ShapeMix
from scheduler.core.row_memo import RowAnswer, RowMemo
from scheduler.core.state import ClusterState
from tests.builders import make_node, make_pod, make_profile


def make_state(*nodes: str) -> ClusterState:
    state = ClusterState(ShapeMix().frozen)
    for name in nodes:
        state.upsert_node(make_node(name).obj())
    return state


ANSWER = RowAnswer(np.int8(127), np.uint64(0), np.bool_(False), np.zeros(1, np.int64), 7)


def test_equal_rows_share_an_answer_and_others_do_not() -> None:
    state, memo = make_state("a", "b"), RowMemo()
    key, known = memo.get(state.nodes, 0)
    assert known is None
    memo.put(key, ANSWER)
    assert memo.get(state.nodes, 1)[1] is ANSWER
    state.assume(make_pod("p").req(cpu="1").info(), "b")
    assert memo.get(state.nodes, 1)[1] is None


def test_a_new_layout_of_resources_forgets_all() -> None:
    state, memo = make_state("a"), RowMemo()
    memo.put(memo.get(state.nodes, 0)[0], ANSWER)
    state.nodes.resources = dict(state.nodes.resources)
    assert memo.get(state.nodes, 0)[1] is None


def test_a_remembered_row_still_counts_as_its_own_node() -> None:
    """The memo knows amounts only: a cordoned node must not become feasible by a look-up."""
    state = make_state("a", "b")
    cycle = Cycle(make_profile("default-scheduler"), state.nodes)
    pod = make_pod("p").req(cpu="100m").info()
    assert cycle.place(pod).node is not None
    state.assume(make_pod("x").req(cpu="100m").info(), "a")
    cycle.place(pod)  # remembers a node with x
    state.upsert_node(make_node("b").cordoned().obj())
    cycle.place(pod)
    state.assume(make_pod("y").req(cpu="100m").info(), "b")
    assert cycle.place(pod).node == "a"
