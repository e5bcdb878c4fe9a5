"""What there is to tell about gangs beside the decisions for their members."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from scheduler.api_objects import PodGroup
from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.incomplete import TELL_AFTER_S
from scheduler.core.gangs.news import Differs, NotPlaced
from scheduler.core.gangs.ref import GangRef, Source
from tests.builders import Clock, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

REF = GangRef(Source.NATIVE, "default", "g")


def group(min_count: int, strategy: str = "atomic") -> PodGroup:
    metadata = {
        "name": "g",
        "namespace": "default",
        "resourceVersion": str(min_count),
        "annotations": {"wholepod.io/strategy": strategy},
    }
    spec = {"schedulingPolicy": {"gang": {"minCount": min_count}}}
    return msgspec.convert({"metadata": metadata, "spec": spec}, PodGroup)


def native(engine: Engine, *names: str) -> None:
    for name in names:
        engine.upsert_pod(make_pod().named(name).of_group("g").req(memory="1Gi").obj())


# ---- gangs that were not placed


@pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
def test_a_gang_that_lacks_nothing_but_room_is_told(strategy: str) -> None:
    engine = cluster("2Gi")
    engine.upsert_object(group(3, strategy))
    native(engine, "a", "b")
    decide_all(engine)
    assert list(engine.gangs.news) == []  # others are missing: that is not for lack of room
    native(engine, "c")
    decide_all(engine)
    assert list(engine.gangs.news) == [
        NotPlaced(
            REF,
            "Unschedulable",
            "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, 0/1 nodes are available: "
            "1 Insufficient memory.",
        )
    ]
    assert list(engine.gangs.news) == []


def test_a_gang_that_was_placed_is_not_told_of_members_beyond_those_it_needs() -> None:
    engine = cluster("2Gi")
    engine.upsert_object(group(2))
    native(engine, "a", "b", "c")
    assert len(placed(decide_all(engine))) == 2
    assert list(engine.gangs.news) == []


def test_an_error_is_told_as_such() -> None:
    engine = cluster("4Gi", clock=count().__next__)
    engine.upsert_object(group(2))
    native(engine, "a", "b")
    engine.decide()
    engine.gangs.fail("planning the gang failed with ValueError: oh")
    assert list(engine.gangs.news) == [
        NotPlaced(REF, "SchedulerError", "planning the gang failed with ValueError: oh")
    ]


# ---- members that differ


def test_a_member_that_differs_from_the_oldest_is_told_once() -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("a", **{"min-count": "3"}).created("2026-01-01T00:00:00Z").obj())
    other = member("b", **{"min-count": "2"}).created("2026-01-01T00:00:01Z")
    engine.upsert_pod(other.obj())
    engine.upsert_pod(other.labels(changed="yes").obj())
    third = member("c", **{"min-count": "4"}).created("2026-01-01T00:00:02Z").gated()
    engine.upsert_pod(third.obj())
    engine.remove_pod("uid-of-default/c")
    [news] = engine.gangs.news
    assert isinstance(news, Differs)
    assert news.pod.name == "default/b"
    assert news.message == (
        "annotation wholepod.io/min-count is '2', but '3' of default/a counts, the oldest member of gang "
        "default/g: give all members the same"
    )
    assert decide_all(engine) == []


def test_what_a_member_does_not_say_differs_too() -> None:
    engine = cluster("4Gi")
    engine.upsert_pod(member("b", strategy="hoarding").created("2026-01-01T00:00:01Z").obj())
    engine.upsert_pod(member("a").created("2026-01-01T00:00:00Z").obj())  # the oldest may be seen last
    [news] = engine.gangs.news
    assert isinstance(news, Differs)
    assert news.pod.name == "default/b"
    assert news.message.startswith("annotation wholepod.io/strategy is 'hoarding', but not set of default/a")


def test_members_of_groups_go_by_their_group() -> None:
    engine = cluster("4Gi")
    engine.upsert_object(group(2))
    for name, annotation in (("a", "3"), ("b", "4")):
        pod = make_pod().named(name).of_group("g").annotations({"wholepod.io/min-count": annotation})
        engine.upsert_pod(pod.req(memory="1Gi").obj())
    assert list(engine.gangs.news) == []


# ---- annotations that can't be read


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("strategy", "hope", "must be one of atomic, hoarding, optimistic, got 'hope'"),
        ("conflict-mode", "both", "must be one of fit, sequence, got 'both'"),
        ("hold-timeout", "soon", "must be a duration such as 90s, 5m or 1h, got 'soon'"),
        ("on-member-loss", "cry", "must be one of replace, restart, keep, got 'cry'"),
        ("delete-uncontrolled", "maybe", "got 'maybe'"),
        ("min-count", "0", "must be a whole number of at least 1, got '0'"),
    ],
)
def test_what_can_not_be_read_is_told_to_the_members(key: str, value: str, text: str) -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    engine.upsert_pod(member("a", **{key: value}).obj())
    clock.advance(TELL_AFTER_S)
    [decision] = decide_all(engine)
    assert decision.verdict is Verdict.WAITING
    assert f"annotation wholepod.io/{key}" in decision.message
    assert text in decision.message
    engine.upsert_node(make_node("more").obj())
    assert decide_all(engine) == []
