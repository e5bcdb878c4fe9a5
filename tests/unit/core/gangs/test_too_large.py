"""Gangs that the room there is rules out are not searched for."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from scheduler.core.engine import Engine
from scheduler.core.gangs.planner import Planner
from scheduler.core.gangs.rooms import Member, Rooms
from scheduler.core.gangs.too_large import is_too_large
from tests.builders import SCHEDULER_NAME, make_engine, make_node, make_pod


def members_of(engine: Engine, sizes: list[tuple[int, int]]) -> list[Member]:
    cycle = engine.cycles[SCHEDULER_NAME]
    infos = [
        make_pod().named(f"m{i}").req(cpu=f"{cpu}", memory=f"{memory}Gi").info()
        for i, (cpu, memory) in enumerate(sizes)
    ]
    return [Member(info, cycle.read_key(info), cycle) for info in infos]


def fits(rooms: list[list[int]], sizes: list[tuple[int, int]], need: int) -> bool:
    """By brute force; a node is CPUs, GiB and pods, and no node means that the member is left out."""
    for choice in product(range(-1, len(rooms)), repeat=len(sizes)):
        left = [list(room) for room in rooms]
        for node, (cpu, memory) in zip(choice, sizes, strict=True):
            if node >= 0:
                left[node] = [left[node][0] - cpu, left[node][1] - memory, left[node][2] - 1]
        placed = sum(node >= 0 for node in choice)
        if placed >= need and all(amount >= 0 for room in left for amount in room):
            return True
    return False


def test_no_gang_that_fits_is_too_large() -> None:
    rng = random.Random(1)
    answers = []
    for _ in range(400):
        rooms = [[rng.randint(0, 4), rng.randint(0, 4), rng.randint(1, 3)] for _ in range(rng.randint(1, 3))]
        sizes = [(rng.randint(0, 3), rng.randint(0, 3)) for _ in range(rng.randint(1, 4))]
        need = rng.randint(1, len(sizes))
        engine = make_engine()
        for i, (cpu, memory, pods) in enumerate(rooms):
            node = make_node(f"n{i}").allocatable(cpu=str(cpu), memory=f"{memory}Gi", pods=str(pods))
            engine.upsert_node(node.obj())
        too_large = is_too_large(members_of(engine, sizes), need, engine.state.nodes, None)
        answers.append((too_large, fits(rooms, sizes, need)))
    assert (True, True) not in answers
    assert answers.count((True, False)) > 2 * answers.count((False, False))


@pytest.mark.parametrize(("free_cpu", "searched"), [(1, False), (3, True)])
def test_a_search_is_made_only_if_there_may_be_room(free_cpu: int, searched: bool) -> None:
    engine = make_engine()
    for i in range(4):
        engine.upsert_node(make_node(f"n{i}").allocatable(cpu=f"{free_cpu}", memory="8Gi").obj())
    members = members_of(engine, [(2, 1)] * 4 + [(1, 1)] * 5)
    planner = Planner(members, engine.state, Rooms(engine.state), need=9)
    steps = sum(1 for _ in planner.steps())
    assert not planner.plan.found
    assert (steps > len(members)) == searched


def test_only_nodes_in_question_count() -> None:
    engine = make_engine()
    for i in range(2):
        engine.upsert_node(make_node(f"n{i}").allocatable(cpu="1", memory="8Gi").obj())
    members = members_of(engine, [(1, 1), (1, 2)])
    assert not is_too_large(members, 2, engine.state.nodes, None)
    assert is_too_large(members, 2, engine.state.nodes, np.array([True, False]))
