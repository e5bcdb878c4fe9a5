"""The gang planner against brute force: a plan is found if, and only if, there is one.

Clusters are so small that all assignments of members to nodes can be tried. One counts as a plan if at
least `need` members are placed and, in some order, each of them passes all its filters, or does so at the
end beside all the others. Up to four members the scheduler's own filters say who passes, and a naive model
of the rules has to agree; with more of them, where asking filters takes too long, the model decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.engine import Engine
from scheduler.core.gangs.planner import Planner
from scheduler.core.gangs.rooms import Member, Rooms
from tests.builders import make_engine, make_node, make_pod
from tests.property.exactness import Compared
from tests.property.long_runs import HandOver
from tests.property.naive_gangs import NaiveNode, NaivePod, has_plan

APPS = ("a", "b")
ZONES = ("x", "y")
KEYS = ("kubernetes.io/hostname", "zone")


@st.composite
def clusters(draw: st.DrawFn, nodes: tuple[int, int] = (1, 4), memory: tuple[int, int] = (1, 4)) -> Engine:
    engine = make_engine()
    for i in range(draw(st.integers(*nodes))):
        zone = draw(st.sampled_from(ZONES))
        labels = {"kubernetes.io/hostname": f"n{i}", "zone": zone}
        gib = draw(st.integers(*memory))
        engine.upsert_node(make_node(f"n{i}").labels(labels).allocatable(memory=f"{gib}Gi").obj())
    for i in range(draw(st.integers(0, 2))):
        node = draw(st.sampled_from(engine.state.nodes.names))
        app = draw(st.sampled_from(APPS))
        engine.upsert_pod(make_pod().named(f"e{i}").labels(app=app).on(node).obj())
    return engine


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests, labels and rules of a member."""
    rules: dict[str, Any] = {}
    for kind in ("podAffinity", "podAntiAffinity"):
        if draw(st.integers(0, 2)) == 0:
            selector = {"matchLabels": {"app": draw(st.sampled_from(APPS))}}
            term = {"topologyKey": draw(st.sampled_from(KEYS)), "labelSelector": selector}
            rules[kind] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    spec: dict[str, Any] = {"affinity": rules} if rules else {}
    if draw(st.integers(0, 3)) == 0:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": draw(st.sampled_from(KEYS)),
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": draw(st.sampled_from(APPS))}},
            }
        ]
    return {"memory": draw(st.integers(1, 3)), "app": draw(st.sampled_from(APPS)), "spec": spec}


def members_of(engine: Engine, wanted: Sequence[dict[str, Any]]) -> list[Member]:
    [cycle] = engine.cycles.values()
    infos = [
        make_pod().named(f"m{i}").labels(app=w["app"]).req(memory=f"{w['memory']}Gi").spec(**w["spec"]).info()
        for i, w in enumerate(wanted)
    ]
    return [Member(info, cycle.read_key(info), cycle) for info in infos]


def passes(engine: Engine, member: Member, node: str) -> bool:
    row = engine.state.nodes.row_of[node]
    return member.cycle.rejected_by(member.info, np.array([row], np.intp)) is None


def can_be_placed(engine: Engine, left: dict[Member, str], placed: dict[Member, str]) -> bool:
    """Whether those left can follow those placed, which are assumed, each passing in turn or at the end."""
    for member, node in left.items():
        engine.state.assume(member.info, node)
    at_the_end = True
    for member, node in left.items():
        engine.state.forget(member.info.uid)
        at_the_end = at_the_end and passes(engine, member, node)
        engine.state.assume(member.info, node)
    for member in left:
        engine.state.forget(member.info.uid)
    if at_the_end:
        return True
    for member, node in left.items():
        if passes(engine, member, node):
            engine.state.assume(member.info, node)
            rest = {m: n for m, n in left.items() if m is not member}
            possible = can_be_placed(engine, rest, placed)
            engine.state.forget(member.info.uid)
            if possible:
                return True
    return False


def plan_exists(engine: Engine, members: Sequence[Member], need: int) -> bool:
    nodes = engine.state.nodes.names
    return any(
        can_be_placed(engine, dict(zip(chosen, where, strict=True)), {})
        for size in range(need, len(members) + 1)
        for chosen in combinations(members, size)
        for where in product(nodes, repeat=size)
    )


def naively(engine: Engine, wanted: Sequence[dict[str, Any]], need: int) -> bool:
    """The same by the model."""
    nodes = {}
    for name, row in engine.state.nodes.row_of.items():
        labels = engine.state.nodes.objects[row].metadata.labels or {}
        nodes[name] = NaiveNode(labels, int(engine.state.nodes.allocatable[1, row]) >> 30)
    present = [
        (NaivePod(0, placed.info.labels["app"]), nodes[placed.node]) for placed in engine.state.pods.values()
    ]
    return has_plan(list(nodes.values()), present, [naive(w) for w in wanted], need)


def naive(wanted: dict[str, Any]) -> NaivePod:
    spec = wanted["spec"]

    def terms(kind: str) -> tuple[tuple[str, str], ...]:
        rules = spec.get("affinity", {}).get(kind, {})
        return tuple(map(rule, rules.get("requiredDuringSchedulingIgnoredDuringExecution", ())))

    def rule(term: dict[str, Any]) -> tuple[str, str]:
        return term["topologyKey"], term["labelSelector"]["matchLabels"]["app"]

    spread = tuple(map(rule, spec.get("topologySpreadConstraints", ())))
    return NaivePod(wanted["memory"], wanted["app"], terms("podAffinity"), terms("podAntiAffinity"), spread)


def test_a_plan_is_found_if_there_is_one(hand_over: HandOver) -> None:
    compared = Compared()

    @settings(max_examples=max(120, settings().max_examples // 4))
    @given(clusters(), st.lists(manifests(), min_size=1, max_size=4), st.data())
    def one_case(engine: Engine, wanted: list[dict[str, Any]], data: st.DataObject) -> None:
        need = data.draw(st.integers(max(1, len(wanted) - 1), len(wanted)))
        members = members_of(engine, wanted)
        exists = plan_exists(engine, members, need)
        assert naively(engine, wanted, need) == exists
        check(engine, members, need, exists=exists)
        compared.cases[len(members), exists] += 1

    one_case()
    hand_over("planning-model", compared.plain())


def test_a_plan_for_more_members_is_found_if_there_is_one(hand_over: HandOver) -> None:
    compared = Compared()

    @settings(max_examples=max(200, settings().max_examples // 4))
    @given(clusters(nodes=(3, 4), memory=(2, 6)), st.lists(manifests(), min_size=5, max_size=6), st.data())
    def one_case(engine: Engine, wanted: list[dict[str, Any]], data: st.DataObject) -> None:
        need = data.draw(st.integers(len(wanted) - 1, len(wanted)))
        members = members_of(engine, wanted)
        exists = naively(engine, wanted, need)
        check(engine, members, need, exists=exists)
        compared.cases[len(members), exists] += 1

    one_case()
    hand_over("planning-model", compared.plain())


def test_what_passed_beside_a_member_that_had_yet_to_pass_is_looked_at_again() -> None:
    """m1 passes beside m0, which needs m1 itself, and does not pass at the end, as `a` is uneven by then."""
    engine, host = make_engine(), "kubernetes.io/hostname"
    for i, gib in enumerate((2, 2, 3)):
        node = make_node(f"n{i}").labels({host: f"n{i}", "zone": "x"}).allocatable(memory=f"{gib}Gi")
        engine.upsert_node(node.obj())

    def term(app: str) -> dict[str, Any]:
        selector = {"topologyKey": host, "labelSelector": {"matchLabels": {"app": app}}}
        return {"requiredDuringSchedulingIgnoredDuringExecution": [selector]}

    even = {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    even |= {"topologyKey": host, "labelSelector": {"matchLabels": {"app": "a"}}}
    near_b, near_a, not_near_a = (
        {"podAffinity": term("b")},
        {"podAffinity": term("a")},
        {"podAntiAffinity": term("a")},
    )
    wanted = [
        {"memory": 1, "app": "a", "spec": {"affinity": near_b}},
        {"memory": 1, "app": "b", "spec": {"affinity": near_a, "topologySpreadConstraints": [even]}},
        {"memory": 1, "app": "a", "spec": {"affinity": near_b}},
        {"memory": 1, "app": "a", "spec": {"affinity": not_near_a}},
        {"memory": 1, "app": "b", "spec": {"affinity": near_a | not_near_a}},
    ]
    assert not naively(engine, wanted, 4)
    check(engine, members_of(engine, wanted), 4, exists=False)


def check(engine: Engine, members: Sequence[Member], need: int, *, exists: bool) -> None:
    """Plans, and compares."""
    planner = Planner(members, engine.state, Rooms(engine.state), need=need, budget=None)
    before = engine.state.nodes.pod_count.copy()
    for _ in planner.steps():
        pass
    plan = planner.plan
    placed = {uid: p.node for uid, p in engine.state.pods.items() if p.assumed}
    assert placed == plan.nodes
    for member in members:
        engine.state.forget(member.info.uid)
    assert (engine.state.nodes.pod_count == before).all()
    assert plan.found == exists
    if plan.found:
        assert len(plan.nodes) >= need
        chosen = {m: plan.nodes[m.info.uid] for m in members if m.info.uid in plan.nodes}
        assert can_be_placed(engine, chosen, {})
