"""What a gang asks for may change: while it waits, while it holds, while it is bound, and after that."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest

from scheduler.api_objects import PodGroup
from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.ref import GangRef, Source
from scheduler.core.queue import Place
from tests.builders import Clock, PodBuilder, make_engine, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

REF = GangRef(Source.NATIVE, "default", "g")
HOARDING = {"wholepod.io/strategy": "hoarding"}


def group(min_count: int, annotations: dict[str, str] | None = None) -> PodGroup:
    """Each time another version of it."""
    metadata = {
        "name": "g",
        "namespace": "default",
        "uid": "g",
        "resourceVersion": str(next(_versions)),
        "annotations": annotations or {},
    }
    spec = {"schedulingPolicy": {"gang": {"minCount": min_count}}}
    return msgspec.convert({"metadata": metadata, "spec": spec}, PodGroup)


_versions = count(1)


def native(name: str, memory: str = "1Gi") -> PodBuilder:
    return make_pod().named(name).of_group("g").req(memory=memory)


def bound(engine: Engine, *names: str) -> None:
    """The watch shows them on the nodes where they were put."""
    for name in names:
        uid = f"uid-of-default/{name}"
        engine.bind_confirmed(uid)
        engine.upsert_pod(native(name).on(engine.state.pods[uid].node).obj())


@pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
def test_a_lower_min_count_lets_a_waiting_gang_go(strategy: str) -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    annotations = {"wholepod.io/strategy": strategy}
    engine.upsert_object(group(3, annotations))
    for name in ("a", "b"):
        engine.upsert_pod(native(name).obj())
    assert placed(decide_all(engine)) == {}
    engine.upsert_object(group(2, annotations))
    clock.advance(20.0)
    decisions = decide_all(engine)
    assert sorted(placed(decisions)) == ["a", "b"]
    assert {d.commit.min_count for d in decisions if d.commit is not None} == {2}


def test_a_lower_min_count_helps_a_gang_that_did_not_fit() -> None:
    engine = cluster("2Gi", clock=(clock := Clock()))
    engine.upsert_object(group(3))
    for name in ("a", "b", "c"):
        engine.upsert_pod(native(name).obj())
    assert {d.verdict for d in decide_all(engine)} == {Verdict.UNSCHEDULABLE}
    engine.upsert_object(group(2))
    clock.advance(20.0)
    assert len(placed(decide_all(engine))) == 2


def test_a_higher_min_count_makes_a_waiting_gang_incomplete() -> None:
    engine = cluster("1Gi")
    engine.upsert_object(group(2))
    for name in ("a", "b"):
        engine.upsert_pod(native(name).obj())
    decide_all(engine)
    assert engine.queue.depths()[Place.UNSCHEDULABLE] == 2
    engine.upsert_object(group(3))
    assert engine.queue.depths()[Place.INCOMPLETE] == 2


def test_after_its_commit_a_higher_min_count_is_for_those_that_come() -> None:
    engine = cluster("4Gi")
    engine.upsert_object(group(1))
    engine.upsert_pod(native("a").obj())
    decide_all(engine)
    bound(engine, "a")
    engine.gangs.commit_ended(REF)
    engine.upsert_object(group(3))
    engine.upsert_pod(native("b").obj())
    assert placed(decide_all(engine)) == {}
    engine.upsert_pod(native("c").obj())
    decisions = decide_all(engine)
    assert sorted(placed(decisions)) == ["b", "c"]
    assert {(d.commit.min_count, d.commit.placed_before) for d in decisions if d.commit} == {(3, 1)}


def test_while_a_commit_is_under_way_nothing_changes() -> None:
    """Min count, strategy and domain are those of the plan, for members that join, too."""
    engine = make_engine(clock := Clock())
    for name, zone in (("n0", "east"), ("n1", "west"), ("n2", "east")):
        engine.upsert_node(make_node(name).labels({"zone": zone}).allocatable(memory="1Gi").obj())
    engine.upsert_object(group(2, {"wholepod.io/topology-key": "zone"}))
    for name in ("a", "b"):
        engine.upsert_pod(native(name).obj())
    assert set(placed(decide_all(engine)).values()) == {"n0", "n2"}
    engine.upsert_object(group(3, HOARDING))
    gang = engine.gangs.book.named(REF)
    assert gang is not None
    options = engine.gangs.book.options(gang)
    assert (options.min_count, options.strategy.value, options.topology_key) == (2, "atomic", "zone")
    engine.bind_failed("uid-of-default/b")
    engine.upsert_pod(make_pod().named("other").req(memory="1Gi").on("n2").obj())
    clock.advance(20.0)
    decisions = decide_all(engine)
    assert [d.verdict for d in decisions] == [Verdict.UNSCHEDULABLE]  # n1 is in another zone
    engine.gangs.commit_ended(REF)
    options = engine.gangs.book.options(gang)
    assert (options.min_count, options.strategy.value, options.topology_key) == (3, "hoarding", "")
    clock.advance(20.0)
    assert [d.verdict for d in decide_all(engine)] == [Verdict.TENTATIVE]


def test_what_is_written_while_a_plan_is_made_counts_after_it() -> None:
    engine = cluster("4Gi", clock=count().__next__)  # a second passes whenever anybody looks
    engine.upsert_object(group(2))
    for name in ("a", "b"):
        engine.upsert_pod(native(name).obj())
    assert engine.decide() is None
    assert engine.gangs.planning
    engine.upsert_object(group(3))
    decisions = decide_all(engine)
    assert {d.commit.min_count for d in decisions if d.commit is not None} == {2}
    assert sorted(placed(decisions)) == ["a", "b"]


@pytest.mark.parametrize(("strategy", "what"), [("hoarding", "what it held"), ("optimistic", "its claims")])
def test_what_was_kept_for_other_terms_is_given_up(strategy: str, what: str) -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    engine.upsert_object(group(3, {"wholepod.io/strategy": strategy}))
    for name in ("a", "b"):
        engine.upsert_pod(native(name).obj())
    assert {d.verdict for d in decide_all(engine)} == {Verdict.TENTATIVE}
    engine.upsert_object(group(3, {"wholepod.io/strategy": "atomic"}))
    assert engine.state.pods == {}
    assert engine.gangs.cost.rollbacks == {strategy: 1}
    assert engine.queue.depths()[Place.INCOMPLETE] == 2
    assert {d.message for d in decide_all(engine)} == {
        f"gang default/g gave up {what}: what it asks for has changed"
    }
    engine.upsert_pod(native("c").obj())
    clock.advance(20.0)
    decisions = decide_all(engine)
    assert sorted(placed(decisions)) == ["a", "b", "c"]
    assert {d.commit.placed_before for d in decisions if d.commit is not None} == {0}


@pytest.mark.parametrize("strategy", ["hoarding", "optimistic"])
def test_a_group_that_goes_takes_what_was_kept_with_it(strategy: str) -> None:
    engine = cluster("4Gi")
    document = group(2, {"wholepod.io/strategy": strategy})
    engine.upsert_object(document)
    engine.upsert_pod(native("a").obj())
    decide_all(engine)
    engine.remove_object(document)
    assert engine.state.pods == {}
    assert engine.queue.depths()[Place.INCOMPLETE] == 1


def test_status_changes_of_the_group_change_nothing() -> None:
    engine = cluster("4Gi")
    engine.upsert_object(group(2, HOARDING))
    engine.upsert_pod(native("a").obj())
    decide_all(engine)
    engine.upsert_object(group(2, HOARDING))
    assert len(list(engine.gangs.hoarding.holdings)) == 1


def test_when_the_oldest_member_goes_what_the_next_one_says_counts() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    options: dict[str, Any] = {"strategy": "hoarding", "min-count": "3"}
    engine.upsert_pod(member("a", **options).created("2026-01-01T00:00:00Z").obj())
    for name in ("b", "c"):
        later = member(name, **{**options, "min-count": "2"}).created("2026-01-01T00:00:01Z")
        engine.upsert_pod(later.obj())
    engine.remove_pod("uid-of-default/a")
    clock.advance(20.0)
    assert sorted(placed(decide_all(engine))) == ["b", "c"]
