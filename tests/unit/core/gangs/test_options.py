"""What PodGroups and annotations ask for beside a number of members, and in which order these are planned."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scheduler.api_objects import CoschedulingPodGroup, PodGroup
from scheduler.core.engine import Engine, Verdict
from scheduler.core.gangs.incomplete import TELL_AFTER_S
from tests.builders import Clock, PodBuilder, make_engine, make_node, make_pod, make_profile
from tests.unit.core.gangs.words import cluster, decide_all, member, placed

# ---- scheduling.x-k8s.io


def coscheduled(name: str, memory: str = "1Gi") -> PodBuilder:
    return make_pod().named(name).labels(**{"scheduling.x-k8s.io/pod-group": "g"}).req(memory=memory)


def group(annotations: dict[str, str] | None = None, **spec: Any) -> CoschedulingPodGroup:
    metadata = {"name": "g", "namespace": "default", "annotations": annotations or {}}
    return msgspec.convert({"metadata": metadata, "spec": {"minMember": 2, **spec}}, CoschedulingPodGroup)


def test_a_gang_is_not_tried_before_the_cluster_has_its_min_resources() -> None:
    engine = cluster("2Gi", "2Gi", clock=(clock := Clock()))
    engine.upsert_object(group(minResources={"memory": "5Gi", "nvidia.com/gpu": 2}))
    for name in ("a", "b"):
        engine.upsert_pod(coscheduled(name).obj())
    decisions = decide_all(engine)
    assert [d.verdict for d in decisions] == [Verdict.UNSCHEDULABLE] * 2
    assert decisions[0].message == (
        "gang default/g is not tried before the cluster has room for what minResources and minMember of its "
        "PodGroup ask for: 5120Mi memory (4096Mi to be had), 2 nvidia.com/gpu (0 to be had)"
    )
    assert engine.gangs.cost.infeasible == {}
    engine.upsert_node(make_node("late").allocatable({"nvidia.com/gpu": "2"}, memory="1Gi").obj())
    clock.advance(20.0)
    assert sorted(placed(decide_all(engine))) == ["a", "b"]


def test_min_resources_count_the_gangs_own_room_and_that_of_pods_it_may_evict() -> None:
    engine = cluster("3584Mi", clock=(clock := Clock()))
    engine.upsert_object(group(minResources={"memory": "3Gi"}))
    engine.upsert_pod(make_pod().named("other").req(memory="1Gi").obj())
    decide_all(engine)
    for name in ("a", "b"):
        engine.upsert_pod(coscheduled(name).obj())
    assert {d.verdict for d in decide_all(engine)} == {Verdict.UNSCHEDULABLE}
    engine.remove_pod("uid-of-default/a")
    engine.remove_pod("uid-of-default/b")
    for name in ("c", "d"):
        engine.upsert_pod(coscheduled(name).priority(1).obj())
    assert sorted(placed(decide_all(engine))) == ["c", "d"]
    clock.advance(20.0)
    engine.upsert_pod(coscheduled("e", "512Mi").priority(1).obj())
    assert placed(decide_all(engine)) == {"e": "n0"}  # with all that it needs a gang is complete


@pytest.mark.parametrize(
    ("resources", "text"), [({"pods": 1}, ""), ({"nvidia.com/gpu": 1}, "1 nvidia.com/gpu")]
)
def test_min_resources_of_any_kind(resources: dict[str, Any], text: str) -> None:
    engine = cluster("4Gi")
    engine.upsert_object(group(minResources=resources))
    for name in ("a", "b"):
        engine.upsert_pod(coscheduled(name).obj())
    decisions = decide_all(engine)
    assert len(placed(decisions)) == (0 if text else 2)
    assert text in decisions[0].message


def test_min_resources_that_can_not_be_read_keep_the_gang_waiting() -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    engine.upsert_object(group(minResources={"memory": "a lot"}))
    engine.upsert_pod(coscheduled("a").obj())
    clock.advance(TELL_AFTER_S)
    [decision] = decide_all(engine)
    assert decision.verdict is Verdict.WAITING
    assert decision.message == (
        "minResources of the PodGroup default/g (podgroups.scheduling.x-k8s.io): memory: 'a lot' is not a "
        "Kubernetes quantity (examples: 500m, 2, 1.5Gi)"
    )


@pytest.mark.parametrize(
    ("spec", "annotations", "seconds"),
    [
        ({}, {}, 60.0),
        ({"scheduleTimeoutSeconds": 90}, {}, 90.0),
        ({"scheduleTimeoutSeconds": 90}, {"wholepod.io/hold-timeout": "30s"}, 30.0),
        ({"scheduleTimeoutSeconds": 1_000_000}, {}, 3600.0),
        ({"scheduleTimeoutSeconds": -1}, {}, 0.0),
    ],
)
def test_schedule_timeout_seconds_is_the_hold_timeout(
    spec: dict[str, Any], annotations: dict[str, str], seconds: float
) -> None:
    engine = cluster("4Gi", clock=(clock := Clock()))
    engine.upsert_object(group({"wholepod.io/strategy": "hoarding", **annotations}, **spec))
    engine.upsert_pod(coscheduled("a").obj())
    engine.decide()
    assert engine.gangs.hoarding.next_due() == clock.now + seconds


# ---- order and search


def native_pair(preset: str) -> Engine:
    """A small member came before a large one; what is decided first takes the only node for both."""
    engine = make_engine(None, make_profile(preset=preset))
    engine.upsert_node(make_node("n0").allocatable(memory="2Gi").obj())
    document = {
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {"schedulingPolicy": {"gang": {"minCount": 1}}},
    }
    engine.upsert_object(msgspec.convert(document, PodGroup))
    for name, memory in (("small", "1Gi"), ("large", "2Gi")):
        engine.upsert_pod(make_pod().named(name).req(memory=memory).of_group("g").obj())
    return engine


@pytest.mark.parametrize(("preset", "first"), [("kube", "small"), ("memory-fit", "large")])
def test_native_groups_keep_kube_schedulers_order_where_the_preset_is_its_own(
    preset: str, first: str
) -> None:
    assert placed(decide_all(native_pair(preset))) == {first: "n0"}


def test_other_gangs_are_planned_largest_first_in_every_preset() -> None:
    engine = make_engine(None, make_profile(preset="kube"))
    engine.upsert_node(make_node("n0").allocatable(memory="2Gi").obj())
    for name, memory in (("small", "1Gi"), ("large", "2Gi")):
        engine.upsert_pod(member(name, memory, **{"min-count": "1"}).obj())
    assert placed(decide_all(engine)) == {"large": "n0"}


def test_a_search_that_was_given_up_says_so_and_is_counted() -> None:
    engine = cluster(*["1000Mi"] * 5)
    # One of the large and two of the small ones fill a node; in total they are a little more than there is.
    sizes = (401, 403, 405, 407, 409, 293, 294, 295, 296, 297, 298, 299, 300, 301, 307)
    assert sum(sizes) > 5000
    for i, size in enumerate(sizes):
        engine.upsert_pod(member(f"m{i}", f"{size}Mi", **{"min-count": str(len(sizes))}).obj())
    decisions = decide_all(engine)
    assert not placed(decisions)
    assert {" (the search for a plan was given up): " in d.message for d in decisions} == {True}
    assert engine.gangs.cost.searches_given_up == {"atomic": 1}
    assert engine.gangs.cost.infeasible == {"atomic": 1}


def test_a_plan_that_can_not_be_is_no_search_given_up() -> None:
    engine = cluster("1Gi")
    for name in ("a", "b"):
        engine.upsert_pod(member(name).obj())
    assert "given up" not in decide_all(engine)[0].message
    assert engine.gangs.cost.searches_given_up.total() == 0
