"""A pod for which only some nodes are in question, and all that it could choose from."""

from __future__ import annotations

import numpy as np
import pytest

from scheduler.core.cycle import Cycle
from scheduler.core.engine import Engine
from scheduler.core.placement import Within
from tests.builders import PodBuilder, make_engine, make_node, make_pod

NODES = {"a": "8Gi", "b": "4Gi", "c": "2Gi"}


def cluster() -> tuple[Engine, Cycle]:
    engine = make_engine()
    for name, memory in NODES.items():
        engine.upsert_node(
            make_node(name).labels({"kubernetes.io/hostname": name}).allocatable(memory=memory).obj()
        )
    return engine, next(iter(engine.cycles.values()))


def within(engine: Engine, *names: str) -> Within:
    mask = np.array([name in names for name in engine.state.nodes.names], np.bool_)
    return Within(mask, "node(s) are elsewhere")


def choices(engine: Engine, cycle: Cycle, pod: PodBuilder, *names: str) -> list[str]:
    info = pod.info()
    found = cycle.choices(info, cycle.read_key(info), within(engine, *names) if names else None)
    return [engine.state.nodes.names[row] for row in found.best_first.tolist()]


def test_only_nodes_in_question_are_chosen() -> None:
    engine, cycle = cluster()
    pod = make_pod().req(memory="1Gi").info()
    for name in NODES:
        assert cycle.place(pod, within=within(engine, name)).node == name


def test_a_pod_for_one_node_that_is_not_in_question_fits_nowhere() -> None:
    engine, cycle = cluster()
    pod = make_pod().req(memory="1Gi").pinned_to("a").info()
    assert cycle.place(pod, within=within(engine, "b", "c")).node is None


def test_nodes_that_are_not_in_question_are_told_as_that() -> None:
    engine, cycle = cluster()
    placement = cycle.place(make_pod().req(memory="3Gi").info(), within=within(engine, "c"))
    assert placement.message == "0/3 nodes are available: 1 Insufficient memory, 2 node(s) are elsewhere."
    # Once they are in question, whoever might reject the pod there matters: any of them may wake it.
    assert placement.rejected_by == {plugin.name for plugin in cycle.profile.filters}


def test_a_limit_leaves_nothing_behind_in_what_is_kept() -> None:
    engine, cycle = cluster()
    pod = make_pod().req(memory="9Gi").info()
    cycle.place(pod, within=within(engine, "c"))
    assert cycle.place(pod).message == "0/3 nodes are available: 3 Insufficient memory."
    cycle.place(pod, within=within(engine, "c"))
    assert cycle.place(pod).message == "0/3 nodes are available: 3 Insufficient memory."


@pytest.mark.parametrize("memory", ["1Gi", "3Gi", "5Gi", "9Gi"])
def test_the_first_choice_is_what_would_be_placed(memory: str) -> None:
    engine, cycle = cluster()
    left = list(NODES)
    pod = make_pod().req(memory=memory)
    found = choices(engine, cycle, pod)
    for name in found:
        assert cycle.place(pod.info(), within=within(engine, *left)).node == name
        left.remove(name)
    assert cycle.place(pod.info(), within=within(engine, *left)).node is None


def test_room_that_is_promised_to_others_is_no_choice() -> None:
    engine, cycle = cluster()
    nominated = make_pod().named("first").req(memory="4Gi").priority(5).status(nominatedNodeName="b")
    engine.upsert_pod(nominated.obj())
    small = make_pod().named("second").req(memory="3Gi")
    assert choices(engine, cycle, small) == ["a"]
    assert choices(engine, cycle, small.priority(6)) in (["a", "b"], ["b", "a"])


def test_a_pods_own_nomination_comes_first_if_it_is_in_question() -> None:
    engine, cycle = cluster()
    pod = make_pod().named("first").req(memory="1Gi").status(nominatedNodeName="b")
    engine.upsert_pod(pod.obj())
    assert choices(engine, cycle, pod)[0] == "b"
    assert choices(engine, cycle, pod, "a", "c") in (["a", "c"], ["c", "a"])
    assert cycle.place(pod.info(), within=within(engine, "c")).node == "c"
    assert cycle.place(pod.req(memory="3Gi").info(), within=within(engine, "c")).node is None


def test_nodes_where_a_pod_is_missing_are_curable() -> None:
    engine, cycle = cluster()
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    pod = make_pod().req(memory="3Gi").spec(affinity=affinity).info()
    found = cycle.choices(pod, cycle.read_key(pod))
    names = engine.state.nodes.names
    assert [names[row] for row in found.curable.tolist()] == ["a", "b"]  # c is too small, whoever comes
    assert not len(found.best_first)
