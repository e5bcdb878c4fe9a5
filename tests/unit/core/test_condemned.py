"""Victims that are chosen, while the cluster does not show it yet."""

from __future__ import annotations

import msgspec

from scheduler.api_objects import PodDisruptionBudget
from scheduler.core.condemned import UNCOUNTED_AT_MOST_S
from tests.builders import make_pod
from tests.unit.core.evicting import Cluster, budget, high, low, node, uid, victims


def burst() -> Cluster:
    """Pods on n and m; `urgent` has `least` evicted from n."""
    cluster = Cluster()
    cluster.nodes(node(), node("m"))
    cluster.pods(low("least"), low("more", priority=1))
    cluster.pods(low("m1", "m", priority=2), low("m2", "m", priority=3))
    cluster.pods(high("urgent"))
    assert victims(cluster.decide()) == ["least"]
    return cluster


def test_who_is_leaving_is_not_put_back_in_anothers_stead() -> None:
    cluster = burst()
    cluster.pods(high("next"))
    decision = cluster.decide()
    assert victims(decision) == ["more", "least"]
    assert decision.preemption is not None
    assert decision.preemption.node == "n"


def test_who_is_leaving_costs_nothing() -> None:
    cluster = Cluster()
    cluster.nodes(node().labels({"on": "n"}), node("m"))
    cluster.pods(low("dear", cpu="4", priority=5), low("a", "m"), low("b", "m"))
    cluster.pods(high("first", cpu="1", priority=20).selector({"on": "n"}))
    assert victims(cluster.decide()) == ["dear"]
    cluster.pods(high("second"))
    # On m somebody of less priority would have to go, on n nobody else.
    assert victims(cluster.decide()) == ["dear"]


def test_a_victim_that_stays_counts_again() -> None:
    cluster = burst()
    cluster.engine.preemption_failed(uid("urgent"))
    cluster.gone("urgent")
    cluster.pods(high("next"))
    assert victims(cluster.decide()) == ["least"]
    assert uid("least") in cluster.engine.state.condemned


def test_so_it_does_when_the_preemptor_goes() -> None:
    cluster = burst()
    cluster.gone("urgent")
    assert uid("least") not in cluster.engine.state.condemned
    cluster.pods(low("least").terminating(), high("next"))
    cluster.decide()
    cluster.gone("next")
    assert uid("least") in cluster.engine.state.condemned  # this one leaves whoever wanted it


def budgeted() -> Cluster:
    """Two nodes, two pods of an app that may lose one of them; one is chosen."""
    cluster = Cluster()
    cluster.nodes(node(), node("m"), node("free"))
    cluster.engine.upsert_object(versioned(1, "1"))
    for name, on in (("a", "n"), ("b", "m")):
        cluster.pods(low(name, on, cpu="4").labels(app="kept"))
    cluster.pods(low("free", "free", cpu="4", priority=5), high(cpu="4"))
    assert victims(cluster.decide()) in (["a"], ["b"])
    return cluster


def versioned(allowed: int, version: str) -> PodDisruptionBudget:
    item = budget(allowed, app="kept")
    return msgspec.structs.replace(
        item, metadata=msgspec.structs.replace(item.metadata, resource_version=version)
    )


def next_victims(cluster: Cluster, name: str) -> list[str]:
    cluster.pods(high(name, cpu="4"))
    decision = cluster.decide()
    cluster.engine.remove_pod(uid(name))
    return victims(decision)


def chosen(cluster: Cluster) -> str:
    [victim] = [name for name in ("a", "b") if uid(name) in cluster.engine.state.condemned]
    return victim


def test_a_budget_is_spent_before_its_status_says_so() -> None:
    assert next_victims(budgeted(), "next") == ["free"]


def test_what_the_status_says_is_not_spent_twice() -> None:
    cluster = budgeted()
    victim = chosen(cluster)
    cluster.pods(low(victim, "n" if victim == "a" else "m", cpu="4").labels(app="kept").terminating())
    assert next_victims(cluster, "early") == ["free"]
    # The other one may go as well, says the controller that knows of the first.
    cluster.engine.upsert_object(versioned(1, "2"))
    assert next_victims(cluster, "late") == ["b" if victim == "a" else "a"]


def test_a_status_that_never_changes_is_believed_in_the_end() -> None:
    cluster = budgeted()
    cluster.gone(chosen(cluster))
    assert next_victims(cluster, "early") == ["free"]
    cluster.clock.advance(UNCOUNTED_AT_MOST_S)
    assert next_victims(cluster, "late") != ["free"]


def test_nothing_is_kept_of_pods_that_are_gone() -> None:
    cluster = budgeted()
    condemned = cluster.engine.state.condemned
    cluster.gone(chosen(cluster))
    cluster.gone("a", "b", "free", "high")
    cluster.clock.advance(60)
    cluster.pods(make_pod("big").req(cpu="99"))
    cluster.decide()
    assert (condemned._leaving, condemned._charges) == (set(), {})
