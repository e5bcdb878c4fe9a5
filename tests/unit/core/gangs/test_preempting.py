"""Gangs that have others evicted, and gangs that are evicted."""

from __future__ import annotations

import pytest

from scheduler.api import ObjectMeta
from scheduler.api_objects import (
    AllDisruptionMode,
    DisruptionMode,
    GangPolicy,
    PodGroup,
    PodGroupSpec,
    SchedulingPolicy,
)
from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.queue import Place
from tests.builders import Clock, PodBuilder, make_node, make_pod
from tests.unit.core.evicting import budget
from tests.unit.core.gangs.words import cluster, decide_all, member, placed


def low(name: str, node: str, memory: str = "1Gi", priority: int = 0) -> PodBuilder:
    return make_pod(name).req(memory=memory).priority(priority).on(node)


def urgent(name: str, memory: str = "1Gi", /, **more: str) -> PodBuilder:
    return member(name, memory, **more).priority(10)


def native(name: str, group: str, memory: str = "1Gi", priority: int = 0) -> PodBuilder:
    pod = make_pod(name).req(memory=memory).priority(priority)
    return pod.spec(schedulingGroup={"podGroupName": group})


def pod_group(name: str, *, min_count: int = 2, whole: bool = False, priority: int | None = None) -> PodGroup:
    return PodGroup(
        metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-of-{name}"),
        spec=PodGroupSpec(
            scheduling_policy=SchedulingPolicy(gang=GangPolicy(min_count=min_count)),
            disruption_mode=DisruptionMode(all=AllDisruptionMode() if whole else None),
            priority=priority,
        ),
    )


def show(engine: Engine, *pods: PodBuilder) -> None:
    for pod in pods:
        engine.upsert_pod(pod.obj())


def uid(name: str) -> str:
    return f"uid-of-default/{name}"


def names(decision: Decision) -> set[str]:
    assert decision.preemption is not None, decision.message
    return {victim.pod.metadata.name for victim in decision.preemption.victims}


def preempting(decisions: list[Decision]) -> dict[str, str | None]:
    """Members that wait for room → where."""
    return {d.pod.pod.metadata.name: d.nominated_node for d in decisions if d.preemption is not None}


def is_as_shown(engine: Engine) -> None:
    """Nobody is lifted, and the table counts everybody once."""
    assert not any(p.lifted for p in engine.state.pods.values())
    nodes = engine.state.nodes
    for name, row in nodes.row_of.items():
        pods = engine.state.pods_on(name)
        assert nodes.pod_count[row] == len(pods)
        assert nodes.requested[1, row] == sum(p.info.usage.get("memory", 0) for p in pods)


@pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
def test_a_gang_takes_the_place_of_single_pods(strategy: str) -> None:
    engine = cluster("1Gi", "1Gi")
    show(engine, low("a", "n0"), low("b", "n1"))
    show(engine, urgent("x", strategy=strategy), urgent("y", strategy=strategy))
    decisions = decide_all(engine)
    waits = preempting(decisions)
    assert sorted(waits) == ["x", "y"]
    assert sorted(str(node) for node in waits.values()) == ["n0", "n1"]
    first, second = (d for d in decisions if d.preemption is not None)
    assert first.preemption is second.preemption
    assert names(first) == {"a", "b"}
    assert first.verdict is Verdict.UNSCHEDULABLE
    assert "pod group preemption: found a placement for podgroup, preempting 2 victims" in first.message
    is_as_shown(engine)
    assert list(engine.gangs.hoarding.holdings) == []

    engine.preemption_done(uid("x"))
    assert decide_all(engine) == []  # it waits
    engine.remove_pod(uid("a"))
    assert placed(decide_all(engine)) == {}
    engine.remove_pod(uid("b"))
    assert sorted(placed(decide_all(engine))) == ["x", "y"]


def test_nobody_leaves_for_a_gang_that_would_not_fit() -> None:
    engine = cluster("1Gi", "1Gi")
    show(engine, low("a", "n0"), low("b", "n1", priority=20))
    show(engine, urgent("x"), urgent("y"))
    decisions = decide_all(engine)
    assert preempting(decisions) == {}
    assert decisions[0].message == (
        "gang default/g: 0 of at least 2 waiting members fit: 0/2 nodes are available: 2 Insufficient memory."
        " pod group preemption: 0/2 nodes are available: 2 Insufficient memory."
        " preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    )
    is_as_shown(engine)


def test_only_as_many_leave_as_must_and_the_least_important() -> None:
    engine = cluster("4Gi")
    show(engine, *(low(f"v{i}", "n0", priority=i) for i in range(4)))
    show(engine, urgent("x"), urgent("y"))
    [first, second] = decide_all(engine)
    assert names(first) == {"v0", "v1"}
    assert preempting([first, second]) == {"x": "n0", "y": "n0"}


def test_who_violates_no_budget_leaves_first() -> None:
    engine = cluster("2Gi", "2Gi")
    engine.upsert_object(budget(0, app="kept"))
    for node in ("n0", "n1"):
        show(engine, low(f"kept-{node}", node).labels(app="kept"), low(f"other-{node}", node, priority=5))
    show(engine, urgent("x"), urgent("y"))
    first, _ = decide_all(engine)
    assert names(first) == {"other-n0", "other-n1"}
    assert first.preemption is not None
    assert first.preemption.pdb_violations == 0


def test_a_budget_is_overdrawn_if_nothing_else_helps() -> None:
    engine = cluster("2Gi")
    engine.upsert_object(budget(1, app="kept"))
    show(engine, *(low(f"kept-{i}", "n0").labels(app="kept") for i in range(2)))
    show(engine, urgent("x"), urgent("y"))
    first, _ = decide_all(engine)
    assert first.preemption is not None
    assert first.preemption.pdb_violations == 1


def test_a_gang_with_policy_never_preempts_nobody() -> None:
    engine = cluster("2Gi")
    show(engine, low("a", "n0", "2Gi"), urgent("x"), urgent("y").spec(preemptionPolicy="Never"))
    decisions = decide_all(engine)
    assert preempting(decisions) == {}
    assert "pod group preemption: not eligible due to preemptionPolicy=Never." in decisions[0].message


def test_a_gang_that_is_short_of_members_preempts_nobody() -> None:
    for strategy in ("atomic", "hoarding", "optimistic"):
        engine = cluster("1Gi")
        show(engine, low("a", "n0"), urgent("x", strategy=strategy))
        assert preempting(decide_all(engine)) == {}


@pytest.mark.parametrize("single", [True, False])
def test_a_group_with_disruption_mode_all_goes_whole(single: bool) -> None:
    engine = cluster("1Gi", "1Gi", "1Gi")
    engine.upsert_object(pod_group("victims", whole=True))
    show(engine, *(native(f"v{i}", "victims").on(f"n{i}") for i in range(3)))
    if single:
        show(engine, make_pod("x").req(memory="1Gi").priority(10))
    else:
        show(engine, urgent("x"), urgent("y"))
    decision = decide_all(engine)[0]
    assert names(decision) == {"v0", "v1", "v2"}


def test_members_of_a_group_with_disruption_mode_single_go_one_by_one() -> None:
    engine = cluster("1Gi", "1Gi", "1Gi")
    engine.upsert_object(pod_group("victims"))
    show(engine, *(native(f"v{i}", "victims").on(f"n{i}") for i in range(3)))
    show(engine, urgent("x"), urgent("y"))
    assert len(names(decide_all(engine)[0])) == 2


def test_a_group_is_more_important_than_single_pods() -> None:
    engine = cluster("3Gi")
    engine.upsert_object(pod_group("victims"))
    show(engine, native("v", "victims").on("n0"), low("a", "n0"), low("b", "n0"))
    show(engine, urgent("x"), urgent("y"))
    assert names(decide_all(engine)[0]) == {"a", "b"}


def test_a_groups_own_priority_protects_its_pods() -> None:
    engine = cluster("2Gi")
    engine.upsert_object(pod_group("victims", priority=10))
    show(engine, native("v", "victims", "2Gi").on("n0"))
    show(engine, urgent("x"), urgent("y"))
    assert preempting(decide_all(engine)) == {}


def test_members_that_require_each_other_are_made_room_for_together() -> None:
    together = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "g"}},
    }
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [together]}}
    engine = cluster("2Gi", "2Gi")
    show(engine, low("a", "n0", "1Gi"), low("b", "n1", "1Gi"), low("c", "n1", "1Gi", priority=20))
    show(engine, *(urgent(name).labels(app="g").spec(affinity=affinity) for name in ("x", "y")))
    decisions = decide_all(engine)
    assert preempting(decisions) == {"x": "n0", "y": "n0"}
    assert names(decisions[0]) == {"a"}


def test_a_gang_of_one_node_makes_room_on_one_node() -> None:
    engine = cluster("2Gi", "2Gi")
    show(engine, low("a", "n0", "1Gi"), low("b", "n1", "1Gi"))
    on_one = {"topology-key": "kubernetes.io/hostname"}
    show(engine, urgent("x", **on_one), urgent("y", **on_one))
    decisions = decide_all(engine)
    assert len(set(preempting(decisions).values())) == 1
    assert len(names(decisions[0])) == 1


def test_a_gang_breaks_the_holds_of_one_of_lower_priority() -> None:
    engine = cluster("1Gi", "1Gi")
    hoard = {"gang": "h", "min-count": "3", "strategy": "hoarding"}
    show(engine, member("a", **hoard), member("b", **hoard))
    decide_all(engine)
    show(engine, urgent("x"), urgent("y"))
    first, _ = decide_all(engine)
    assert names(first) == {"a", "b"}
    assert engine.gangs.give_up(uid("a"), "a pod of higher priority needs its place")
    engine.preemption_done(uid("x"))
    assert sorted(placed(decide_all(engine))) == ["x", "y"]


def test_the_room_is_kept_while_victims_leave() -> None:
    engine = cluster("2Gi")
    show(engine, low("a", "n0", "1Gi"), low("b", "n0", "1Gi"), urgent("x"), urgent("y"))
    decide_all(engine)
    engine.preemption_done(uid("x"))
    engine.remove_pod(uid("a"))
    show(engine, make_pod("thief").req(memory="1Gi").priority(10))
    assert placed(decide_all(engine)) == {}
    engine.remove_pod(uid("b"))
    assert sorted(placed(decide_all(engine))) == ["x", "y"]


def test_nobody_leaves_when_a_member_is_gone_before() -> None:
    engine = cluster("2Gi")
    show(engine, low("a", "n0", "2Gi"), urgent("x"), urgent("y"))
    assert sorted(preempting(decide_all(engine))) == ["x", "y"]
    engine.remove_pod(uid("x"))
    assert uid("a") not in engine.state.condemned
    assert engine.state.nominations.node_of(uid("y")) is None
    assert engine.queue.get(uid("y")).place is Place.INCOMPLETE  # type: ignore[union-attr]


def test_a_member_gone_between_the_decisions_ends_it() -> None:
    engine = cluster("2Gi")
    show(engine, low("a", "n0", "2Gi"), urgent("x"), urgent("y"))
    first = engine.decide()
    assert first is not None
    assert first.preemption is not None
    engine.remove_pod(first.pod.uid)
    assert preempting(decide_all(engine)) == {}
    assert uid("a") not in engine.state.condemned


def test_a_failed_preemption_is_tried_again() -> None:
    clock = Clock()
    engine = cluster("2Gi", clock=clock)
    show(engine, low("a", "n0", "2Gi"), urgent("x"), urgent("y"))
    decide_all(engine)
    engine.preemption_failed(uid("y"))
    assert len(engine.state.nominations) == 0
    clock.advance(60)
    assert sorted(preempting(decide_all(engine))) == ["x", "y"]


def test_a_former_leaders_victims_are_waited_for_and_the_rest_is_chosen_anew() -> None:
    """It died when it had deleted one of two."""
    engine = cluster("1Gi", "1Gi")
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    leaving = low("a", "n0").terminating().status(conditions=[condition])
    show(engine, leaving, low("b", "n1"))
    show(engine, *(urgent(p).status(nominatedNodeName=n) for p, n in (("x", "n0"), ("y", "n1"))))
    decisions = decide_all(engine)
    assert preempting(decisions) == {}
    assert "pod group preemption: ongoing preemption on nominated nodes" in decisions[0].message
    assert [d.nominated_node for d in decisions] == [None, None]  # it stays as it is
    assert engine.state.nominations.node_of(uid("x")) == "n0"
    engine.remove_pod(uid("a"))
    decisions = decide_all(engine)
    assert names(decisions[0]) == {"b"}
    assert sorted(preempting(decisions)) == ["x", "y"]


def test_what_the_watch_says_meanwhile_is_not_lost() -> None:
    """Victims go, change and come while they are lifted."""
    clock = Clock()
    engine = cluster("2Gi", "2Gi", clock=clock)
    show(engine, *(low(f"v{i}", f"n{i % 2}") for i in range(4)))
    show(engine, *(urgent(name, **{"min-count": "4"}) for name in "wxyz"))
    first = engine.queue.pop()
    assert first is not None
    assert engine.gangs.begin(first)
    run = engine.gangs._runs.current
    assert run is not None
    while not any(p.lifted for p in engine.state.pods.values()):
        next(run.attempt)
    lifted = next(p for p in engine.state.pods.values() if p.lifted)
    engine.remove_pod(lifted.info.uid)
    other = next(p for p in engine.state.pods.values() if not p.assumed)
    engine.upsert_pod(low(other.info.pod.metadata.name, other.node, "512Mi").obj())
    engine.remove_node("n1")
    engine.upsert_node(make_node("n1").allocatable(memory="2Gi").obj())
    decide_all(engine)
    is_as_shown(engine)
