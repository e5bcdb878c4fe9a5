"""Whom gangs have evicted on small clusters, against all that could be done.

A gang that fits nowhere must be made room for if and only if it would fit with everybody of lower priority
gone. Then the plan fits beside those that stay, no victim could have stayed, and groups with disruption
mode `all` go whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from hypothesis import event, given
from hypothesis import strategies as st

from scheduler.core.engine import Engine
from scheduler.core.pod_info import PodInfo
from scheduler.core.preemption import Preemption
from tests.builders import make_engine, make_node, make_pod
from tests.unit.core.evicting import budget
from tests.unit.core.gangs.test_preempting import is_as_shown, pod_group
from tests.unit.core.gangs.words import decide_all, member

PRIORITY = 2
"""The gang's."""
GROUPS = {"whole": True, "loose": False}


@dataclass(frozen=True)
class Placed:
    node: int
    memory: int
    priority: int
    group: str
    guarded: bool


@dataclass(frozen=True)
class Scene:
    """Memory in GiB."""

    nodes: Sequence[int]
    pods: Sequence[Placed]
    members: Sequence[int]
    need: int
    one_zone: bool
    strategy: str
    group_priority: int

    def zone(self, node: int) -> int:
        return node % 2


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    nodes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    group_priority = draw(st.integers(0, 2))
    left, pods = list(nodes), []
    for _ in range(draw(st.integers(0, 9))):
        node, memory = draw(st.integers(0, len(nodes) - 1)), draw(st.integers(1, 2))
        if left[node] >= memory:
            left[node] -= memory
            group = draw(st.sampled_from(["", "", "whole", "loose"]))
            priority = group_priority if group else draw(st.integers(0, 3))
            pods.append(Placed(node, memory, priority, group, draw(st.booleans())))
    members = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    need = draw(st.integers(max(1, len(members) - 1), len(members)))
    strategy = draw(st.sampled_from(["atomic", "hoarding", "optimistic"]))
    return Scene(nodes, pods, members, need, draw(st.booleans()), strategy, group_priority)


def engine_of(scene: Scene) -> Engine:
    engine = make_engine()
    for i, memory in enumerate(scene.nodes):
        node = make_node(f"n{i}").labels({"zone": f"z{scene.zone(i)}"}).allocatable(memory=f"{memory}Gi")
        engine.upsert_node(node.obj())
    for name, whole in GROUPS.items():
        engine.upsert_object(pod_group(name, whole=whole, priority=scene.group_priority))
    engine.upsert_object(budget(1, app="guarded"))
    for i, placed in enumerate(scene.pods):
        pod = make_pod(f"p{i}").req(memory=f"{placed.memory}Gi").priority(placed.priority)
        pod = pod.on(f"n{placed.node}").scheduler("another")
        if placed.group:
            pod.spec(schedulingGroup={"podGroupName": placed.group})
        if placed.guarded:
            pod.labels(app="guarded")
        engine.upsert_pod(pod.obj())
    more = {"topology-key": "zone"} if scene.one_zone else {}
    for i, memory in enumerate(scene.members):
        options = {"min-count": str(scene.need), "strategy": scene.strategy, **more}
        engine.upsert_pod(member(f"m{i}", f"{memory}Gi", **options).priority(PRIORITY).obj())
    return engine


def could_fit(scene: Scene, stay: Sequence[Placed]) -> bool:
    """Whether any `need` of the members fit beside these."""
    free = [memory - sum(p.memory for p in stay if p.node == i) for i, memory in enumerate(scene.nodes)]
    for chosen in combinations(scene.members, scene.need):
        for where in product(range(len(free)), repeat=len(chosen)):
            if scene.one_zone and len({scene.zone(node) for node in where}) > 1:
                continue
            taken = [
                sum(m for m, w in zip(chosen, where, strict=True) if w == node) for node in range(len(free))
            ]
            if all(t <= f for t, f in zip(taken, free, strict=True)):
                return True
    return False


def free_beside(engine: Engine, nodes: Mapping[str, str], victims: Sequence[PodInfo]) -> dict[str, int]:
    """GiB left on each node with the gang in its places, and the victims gone."""
    going = {victim.uid for victim in victims}
    sizes = {queued.info.uid: queued.info.requests["memory"] for queued in engine.queue}
    free = {}
    for name, row in engine.state.nodes.row_of.items():
        stay = [p.info.requests["memory"] for p in engine.state.pods_on(name) if p.info.uid not in going]
        come = [sizes[uid] for uid, node in nodes.items() if node == name]
        free[name] = (int(engine.state.nodes.allocatable[1, row]) - sum(stay) - sum(come)) >> 30
    return free


def units(engine: Engine, victims: Sequence[PodInfo]) -> list[list[tuple[str, int]]]:
    """(node, GiB) of the pods of each victim."""
    whole = {placed.info.uid for placed in engine.state.pods_in_group("default", "whole")}
    together = [v for v in victims if v.uid in whole]
    assert {v.uid for v in together} in (set(), whole)
    single = [[v] for v in victims if v.uid not in whole]
    pods = engine.state.pods
    return [
        [(pods[v.uid].node, v.requests["memory"] >> 30) for v in unit] for unit in (*single, together) if unit
    ]


def check(scene: Scene, engine: Engine, preemption: Preemption) -> None:
    assert preemption.gang is not None
    nodes, victims = preemption.gang.nodes, preemption.victims
    assert len(nodes) >= scene.need
    assert victims
    assert all(victim.priority < PRIORITY for victim in victims)
    if scene.one_zone:
        assert len({int(node[1:]) % 2 for node in nodes.values()}) == 1
    free = free_beside(engine, nodes, victims)
    assert min(free.values()) >= 0
    for unit in units(engine, victims):
        assert any(
            sum(memory for where, memory in unit if where == node) > free[node]
            for node in set(nodes.values())
        )


@given(scenes())
def test_room_is_made_if_and_only_if_there_can_be_some(scene: Scene) -> None:
    engine = engine_of(scene)
    decisions = decide_all(engine)
    is_as_shown(engine)
    preemptions = {id(d.preemption): d.preemption for d in decisions if d.preemption is not None}
    placed = [d for d in decisions if d.node is not None]
    if could_fit(scene, scene.pods):
        assert len(placed) >= scene.need
        return
    assert not placed
    stay = [pod for pod in scene.pods if pod.priority >= PRIORITY]
    assert len(preemptions) == could_fit(scene, stay)
    for preemption in preemptions.values():
        event("room is made")
        check(scene, engine, preemption)
