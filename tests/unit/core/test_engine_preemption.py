"""Preemption, as the engine's calls show it."""

from __future__ import annotations

import random

import msgspec
import pytest

from scheduler.api import ObjectMeta
from scheduler.core.engine import Verdict
from scheduler.core.queue import Place
from tests.builders import PodBuilder, make_pod
from tests.unit.core.evicting import (
    FOUND,
    REQUIRED,
    Cluster,
    budget,
    high,
    low,
    node,
    preempting,
    uid,
    victims,
)

# ---- who has to go


def test_a_pod_of_lower_priority_has_to_go() -> None:
    cluster = Cluster()
    cluster.nodes(node())
    cluster.pods(low("a"), low("b", priority=1), high())
    decision = cluster.decide()
    assert (decision.verdict, decision.node, decision.nominated_node) == (Verdict.UNSCHEDULABLE, None, "n")
    assert victims(decision) == ["a"]
    assert decision.preemption is not None
    assert (decision.preemption.node, decision.preemption.pdb_violations) == ("n", 0)
    assert decision.message == (
        f"0/1 nodes are available: 1 Insufficient cpu. preemption: {FOUND} n, preempting 1 victims"
    )
    assert cluster.nominated_to("high") == "n"


def test_nobody_of_equal_or_higher_priority_has_to_go() -> None:
    cluster = Cluster()
    cluster.nodes(node(), node("m").cordoned())
    cluster.pods(low("a", priority=10), low("b", priority=11), high())
    decision = cluster.decide()
    assert (decision.preemption, decision.nominated_node) == (None, None)
    assert decision.message == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. "
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling."
    )
    assert cluster.place_of("high") is Place.UNSCHEDULABLE


def test_nobody_goes_in_vain() -> None:
    cluster = Cluster()
    cluster.nodes(node(), node("m"))
    cluster.pods(low("a", cpu="1"), low("b", cpu="3", priority=10), low("c", "m", cpu="1"))
    cluster.pods(high(cpu="4").host_port(80), low("d", "m", cpu="1", priority=10))
    decision = cluster.decide()
    assert decision.preemption is None
    text = "0/2 nodes are available: 2 Insufficient cpu."
    assert decision.message == f"{text} preemption: {text}"


def test_no_pod_is_evicted_for_one_that_must_not_preempt() -> None:
    cluster = Cluster()
    cluster.nodes(node())
    cluster.pods(low("a", cpu="4"), high().spec(preemptionPolicy="Never"))
    decision = cluster.decide()
    assert decision.preemption is None
    assert decision.message == (
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    )


def test_the_profile_may_do_without() -> None:
    cluster = Cluster(plugins={"postFilter": {"disabled": [{"name": "DefaultPreemption"}]}})
    cluster.nodes(node())
    cluster.pods(low("a", cpu="4"), high())
    decision = cluster.decide()
    assert (decision.preemption, decision.message) == (None, "0/1 nodes are available: 1 Insufficient cpu.")


@pytest.mark.parametrize("rules", ["amounts", "ports", "anti-affinity"])
def test_the_more_important_and_the_older_stay(rules: str) -> None:
    """In whichever way it is found out."""
    cluster = Cluster()
    cluster.nodes(node().labels({"kubernetes.io/hostname": "n"}))
    pod = high()
    if rules == "ports":
        pod.host_port(80)
    if rules == "anti-affinity":
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
        pod.spec(affinity={"podAntiAffinity": {REQUIRED: [term]}})
    cluster.pods(
        low("important", cpu="1", priority=1),
        low("new", cpu="1").status(startTime="2026-01-03T00:00:00Z"),
        low("old", cpu="1").status(startTime="2026-01-01T00:00:00Z"),
        low("not-started", cpu="1"),
        pod,
    )
    assert victims(cluster.decide()) == ["new", "not-started"]


def test_a_pod_with_a_port_or_against_the_rules_has_to_go() -> None:
    cluster = Cluster()
    cluster.nodes(node().labels({"kubernetes.io/hostname": "n"}))
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
    cluster.pods(low("port", cpu="1").host_port(80), low("rest", cpu="1"))
    cluster.pods(low("rival", cpu="1").labels(app="x"))
    pod = high(cpu="1").host_port(80).spec(affinity={"podAntiAffinity": {REQUIRED: [term]}})
    cluster.pods(pod)
    assert victims(cluster.decide()) == ["port", "rival"]


# ---- disruption budgets


def test_a_budget_spares_its_pods_if_others_will_do() -> None:
    cluster = Cluster()
    cluster.engine.upsert_object(budget(0, app="kept"))
    cluster.nodes(node())
    cluster.pods(low("a").labels(app="kept"), low("b", priority=5), high())
    decision = cluster.decide()
    assert victims(decision) == ["b"]
    assert decision.preemption is not None
    assert decision.preemption.pdb_violations == 0


def test_a_budget_does_not_keep_pods_from_going_at_all_costs() -> None:
    cluster = Cluster()
    cluster.nodes(node(), node("m"))
    cluster.engine.upsert_object(budget(1, app="kept"))
    cluster.pods(*(low(f"a{i}").labels(app="kept") for i in range(2)), high(cpu="4"))
    cluster.pods(low("b", "m", cpu="4", priority=10))
    decision = cluster.decide()
    assert victims(decision) == ["a0", "a1"]
    assert decision.preemption is not None
    assert decision.preemption.pdb_violations == 1


def test_a_node_without_violations_is_preferred() -> None:
    cluster = Cluster()
    cluster.nodes(node(), node("m"))
    cluster.engine.upsert_object(budget(0, app="kept"))
    cluster.pods(low("a", cpu="4").labels(app="kept"), low("b", "m", cpu="4", priority=5), high())
    assert victims(cluster.decide()) == ["b"]


def test_a_changed_budget_is_seen_at_once() -> None:
    cluster = Cluster()
    cluster.nodes(node())
    cluster.engine.upsert_object(budget(1, app="kept"))
    cluster.pods(low("a").labels(app="kept"), low("b", priority=5), high(), high("next", cpu="4"))
    assert victims(cluster.decide()) == ["a"]
    cluster.engine.upsert_object(budget(0, disrupted=["b"], app="kept"))
    decision = cluster.decide()
    assert decision.preemption is None  # the first one's promise stands against its equal
    cluster.gone("high")
    again = cluster.decide_later()
    assert again is not None
    assert again.preemption is not None
    assert again.preemption.pdb_violations == 1


# ---- which node


@pytest.mark.parametrize(
    ("on_n", "on_m"),
    [
        ([low("a", priority=1, cpu="4")], [low("b", "m", cpu="4", priority=2)]),
        ([low("a", cpu="4", priority=-5)], [low("b", "m", cpu="2", priority=-5), low("c", "m", priority=-5)]),
        ([low("a", cpu="4")], [low("b", "m"), low("c", "m")]),
        (
            [low("a", cpu="4").status(startTime="2026-01-02T00:00:00Z")],
            [low("b", "m", cpu="4").status(startTime="2026-01-01T00:00:00Z")],
        ),
        ([low("a", cpu="4")], [low("b", "m", cpu="4").status(startTime="2026-01-01T00:00:00Z")]),
    ],
)
def test_where_it_hurts_least(on_n: list[PodBuilder], on_m: list[PodBuilder]) -> None:
    for order in (1, -1):
        cluster = Cluster()
        cluster.nodes(*[node(), node("m")][::order])
        cluster.pods(*on_n, *on_m, high(cpu="4"))
        assert victims(cluster.decide()) == ["a"]


def test_a_start_that_becomes_known_counts() -> None:
    cluster = Cluster()
    cluster.nodes(node(), node("m"))
    cluster.pods(low("a", cpu="4"), low("b", "m", cpu="4"), high(cpu="4").uid("u1"))
    first = victims(cluster.decide())
    cluster.engine.remove_pod("u1")
    started = {"a": low("a", cpu="4"), "b": low("b", "m", cpu="4")}[first[0]]
    cluster.pods(started.status(startTime="2026-01-01T00:00:00Z"), high(cpu="4").uid("u1"))
    assert victims(cluster.decide()) != first


# ---- while it is carried out


def test_the_pod_is_not_tried_before_the_end_is_reported() -> None:
    cluster = preempting()
    cluster.gone("a")
    assert cluster.decide_later() is None
    assert cluster.place_of("high") is Place.IN_FLIGHT
    cluster.engine.preemption_done(uid("high"))
    decision = cluster.decide_later()
    assert decision is not None
    assert (decision.node, cluster.nominated_to("high")) == ("n", None)


def test_the_pod_waits_for_the_room() -> None:
    cluster = preempting()
    cluster.engine.preemption_done(uid("high"))
    assert cluster.decide_later() is None
    assert cluster.place_of("high") is Place.UNSCHEDULABLE
    cluster.gone("a")
    decision = cluster.decide()
    assert decision.node == "n"


def test_what_happens_elsewhere_meanwhile_is_not_missed() -> None:
    cluster = preempting()
    cluster.nodes(node("new"))
    cluster.engine.preemption_done(uid("high"))
    decision = cluster.decide_later()
    assert decision is not None
    assert decision.node == "new"
    assert cluster.nominated_to("high") is None


def test_room_that_somebody_took_before_the_end_is_reported_is_made_again() -> None:
    cluster = preempting()
    cluster.pods(low("b", cpu="4"))
    cluster.gone("a")
    cluster.engine.preemption_done(uid("high"))
    decision = cluster.decide_later()
    assert decision is not None
    assert victims(decision) == ["b"]


def test_a_failed_preemption_is_tried_again() -> None:
    cluster = preempting()
    cluster.engine.preemption_failed(uid("high"))
    assert cluster.nominated_to("high") is None
    assert cluster.place_of("high") is Place.BACKOFF
    decision = cluster.decide_later()
    assert decision is not None
    assert victims(decision) == ["a"]


def test_a_report_about_a_pod_that_is_gone_is_no_news() -> None:
    cluster = preempting()
    cluster.gone("high")
    assert cluster.nominated_to("high") is None
    cluster.engine.preemption_done(uid("high"))
    cluster.engine.preemption_failed(uid("high"))
    assert cluster.place_of("high") is None


def test_no_more_evictions_while_victims_end() -> None:
    cluster = preempting()
    cluster.engine.preemption_done(uid("high"))
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    cluster.pods(low("a", cpu="4").terminating().status(conditions=[condition]))
    cluster.clock.advance(301)  # the flush
    decision = cluster.decide()
    assert decision.preemption is None
    assert decision.nominated_node is None
    assert decision.message.endswith(
        " preemption: not eligible due to a terminating pod on the nominated node."
    )
    assert cluster.nominated_to("high") == "n"


def test_evictions_elsewhere_if_its_node_cannot_be_its_own_any_more() -> None:
    cluster = preempting()
    cluster.engine.preemption_done(uid("high"))
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    cluster.pods(low("a", cpu="4").terminating().status(conditions=[condition]))
    cluster.nodes(node().cordoned(), node("m"))
    cluster.pods(low("b", "m", cpu="4"))
    cluster.clock.advance(301)
    decision = cluster.decide()
    assert victims(decision) == ["b"]
    assert (decision.nominated_node, cluster.nominated_to("high")) == ("m", "m")


def test_only_pods_of_lower_priority_have_to_go_however_long_it_goes_on() -> None:
    """What was noted of pods that are long gone must not be taken for that of others."""
    cluster = Cluster()
    cluster.nodes(node())
    rng = random.Random(1)
    for i in range(500):
        # Numbers of pods vary, so that what was a victim's place becomes that of one who stays.
        stay = [f"stays-{i}-{k}" for k in range(rng.randint(1, 2))]
        go = [f"goes-{i}-{k}" for k in range(rng.randint(1, 3))]
        cluster.pods(*(low(name, cpu="1", priority=10) for name in stay))
        cluster.pods(*(low(name, cpu=f"{1000 * (4 - len(stay)) // len(go)}m") for name in go))
        cluster.pods(high(f"high-{i}", cpu="100m"))
        assert set(victims(cluster.decide())) <= set(go)
        cluster.gone(*stay, *go, f"high-{i}")


def test_made_up_resources_that_are_forgotten_again() -> None:
    """By the table, which has a limit to how many it keeps that nobody takes."""
    cluster = Cluster()
    cluster.nodes(node())

    def come(count: int, prefix: str) -> list[str]:
        names = [f"{prefix}{k}" for k in range(count)]
        cluster.pods(*(make_pod(n).req({f"example.com/{n}": "1"}, cpu="10m").on("n") for n in names))
        return names

    made_up = come(100, "r")
    cluster.pods(high("first", cpu="4"))
    assert len(victims(cluster.decide())) == 100
    cluster.gone("first", *made_up)
    cluster.gone(*come(200, "s"))
    cluster.gone(*come(60, "t"))
    assert len(cluster.engine.state.nodes.resources) < 100
    cluster.pods(low("a", cpu="4"), high("second", cpu="4"))
    assert victims(cluster.decide()) == ["a"]


def test_a_victim_is_charged_to_several_budgets_once() -> None:
    cluster = Cluster()
    cluster.nodes(node())
    for name in ("one", "other"):
        metadata = ObjectMeta(name=name, namespace="default", resource_version="1")
        cluster.engine.upsert_object(msgspec.structs.replace(budget(2, app="a"), metadata=metadata))
    cluster.pods(low("a", cpu="4", priority=1).labels(app="a"), high())
    assert victims(cluster.decide()) == ["a"]
    cluster.pods(low("b", cpu="1").labels(app="a"), high("higher", cpu="4", priority=20))
    decision = cluster.decide()
    assert victims(decision) == ["a", "b"]
    assert decision.preemption is not None
    assert decision.preemption.pdb_violations == 0
