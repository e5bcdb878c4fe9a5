"""When a gang that was short of room is tried again, whatever its backoff."""

from __future__ import annotations

import pytest

from scheduler.core.engine import Engine
from scheduler.core.gangs.shortage import LOOK_EVERY_S
from tests.builders import Clock, make_node, make_pod
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

ZONES = {"topology-key": "zone"}


def blocked(clock: Clock, **options: str) -> Engine:
    """A full cluster of two nodes in two zones, and a gang that has been tried so often that it backs off for
    long."""
    engine = cluster(clock=clock)
    for node, zone in (("n0", "x"), ("n1", "y")):
        engine.upsert_node(make_node(node).labels({"zone": zone}).allocatable(memory="2Gi", cpu="9").obj())
        for i in range(2):
            engine.upsert_pod(make_pod(f"{node}-{i}").req(memory="1Gi").on(node).obj())
    for name in ("a", "b"):
        engine.upsert_pod(member(name, **options).obj())
    for _ in range(6):
        decide_all(engine)
        clock.advance(20.0)
        engine.upsert_node(make_node("other").allocatable(memory="1Mi").obj())
        engine.remove_node("other")
        for queued in list(engine.queue):
            engine.queue.wake([queued], "Test")
    decide_all(engine)
    return engine


def end(engine: Engine, *pods: str) -> None:
    for pod in pods:
        engine.remove_pod(f"uid-of-default/{pod}")


def test_a_gang_is_tried_when_all_the_room_is_there() -> None:
    engine = blocked(clock := Clock())
    clock.advance(LOOK_EVERY_S)
    end(engine, "n0-0")
    assert placed(decide_all(engine)) == {}
    end(engine, "n1-1")
    clock.advance(LOOK_EVERY_S)
    due = engine.next_due()
    assert due is not None
    assert due <= clock.now
    assert sorted(map(str, placed(decide_all(engine)).values())) == ["n0", "n1"]


def test_room_counts_by_domain() -> None:
    engine = blocked(clock := Clock(), **ZONES)
    end(engine, "n0-0", "n1-1")
    clock.advance(LOOK_EVERY_S)
    tried = engine.queue.get("uid-of-default/a")
    assert tried is not None
    attempts = tried.attempts
    assert decide_all(engine) == []
    assert tried.attempts == attempts
    end(engine, "n1-0")
    clock.advance(LOOK_EVERY_S)
    assert placed(decide_all(engine)) == {"a": "n1", "b": "n1"}


def test_who_is_kept_out_by_more_than_room_is_not_tried_all_the_time() -> None:
    engine = blocked(clock := Clock())
    for node in ("n0", "n1"):
        labelled = make_node(node).allocatable(memory="2Gi", cpu="9").taint("k", "v", "NoSchedule")
        engine.upsert_node(labelled.obj())
    end(engine, "n0-0", "n1-1")
    clock.advance(LOOK_EVERY_S)
    assert len(decide_all(engine)) == 2
    for _ in range(5):
        clock.advance(LOOK_EVERY_S)
        assert decide_all(engine) == []


@pytest.mark.parametrize("resource", ["cpu", "example.com/gpu"])
def test_other_resources_count_too(resource: str) -> None:
    engine = cluster("8Gi", clock=(clock := Clock()))
    for name in ("a", "b"):
        engine.upsert_pod(member(name).req({resource: "6"}).obj())
    decide_all(engine)
    room = {"memory": "8Gi", "cpu": "8", resource: "11"}
    engine.upsert_node(make_node("n0").allocatable(room).obj())
    clock.advance(LOOK_EVERY_S)
    assert placed(decide_all(engine)) == {}
    engine.upsert_node(make_node("n0").allocatable(room | {resource: "12"}).obj())
    clock.advance(LOOK_EVERY_S)
    assert placed(decide_all(engine)) == {"a": "n0", "b": "n0"}
