"""The engine with pods whose volumes are bound as they are placed."""

from __future__ import annotations

from typing import Any

from scheduler.api_objects import ClusterObject, PersistentVolume
from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.volumes.plan import SELECTED_NODE
from scheduler.plugins.volume_binding import REASON_UNBOUND, REASONS
from tests.builders import Clock, PodBuilder, make_engine, make_pod
from tests.unit.plugins.storing import zoned
from tests.unit.storage import (
    claim,
    claim_ref,
    csi,
    csi_driver,
    csi_node,
    storage_class,
    storage_pool,
    volume,
    with_claims,
)


def engine_with(*items: ClusterObject, clock: Clock | None = None, **zones: str) -> Engine:
    """Nodes a and b in zones of these names, unless others are given."""
    engine = make_engine(clock)
    for node in zoned(**(zones or {"a": "a", "b": "b"})):
        engine.upsert_node(node.obj())
    for item in items:
        engine.upsert_object(item)
    return engine


def decide(engine: Engine, pod: PodBuilder | None = None) -> Decision:
    if pod is not None:
        engine.upsert_pod(pod.obj())
    decision = engine.decide()
    assert decision is not None
    return decision


def matched(decision: Decision) -> dict[str, str]:
    assert decision.volumes is not None
    assert decision.volumes.node == decision.node
    return {b.claim.name: b.volume.name for b in decision.volumes.bindings}


def test_a_volume_is_promised_once() -> None:
    engine = engine_with(claim("c1"), claim("c2"), claim("c3"), storage_class(), volume("v1"), volume("v2"))
    assert matched(decide(engine, with_claims("p1", "c1"))) == {"c1": "v1"}
    assert matched(decide(engine, with_claims("p2", "c2"))) == {"c2": "v2"}
    third = decide(engine, with_claims("p3", "c3"))
    assert third.verdict is Verdict.UNSCHEDULABLE
    assert third.message.startswith(f"0/2 nodes are available: 2 {REASONS[1]}. ")
    assert third.volumes is None


def test_a_failed_bind_gives_the_volume_back_and_wakes_who_waits_for_one() -> None:
    clock = Clock()
    engine = engine_with(claim("c1"), claim("c2"), storage_class(), volume("v"), clock=clock)
    first = decide(engine, with_claims("p1", "c1"))
    assert decide(engine, with_claims("p2", "c2")).verdict is Verdict.UNSCHEDULABLE
    clock.advance(2)
    engine.bind_failed(first.pod.uid)
    assert matched(decide(engine)) == {"c2": "v"}


def test_a_pod_that_is_deleted_or_bound_elsewhere_gives_its_volume_back() -> None:
    for elsewhere in (False, True):
        engine = engine_with(claim("c1"), claim("c2"), storage_class(), volume("v"))
        first = decide(engine, with_claims("p1", "c1"))
        if elsewhere:
            other = "b" if first.node == "a" else "a"
            engine.upsert_pod(with_claims("p1", "c1").on(other).obj())
        else:
            engine.remove_pod(first.pod.uid)
        assert matched(decide(engine, with_claims("p2", "c2"))) == {"c2": "v"}


def test_what_the_watch_says_counts_more_than_what_was_assumed() -> None:
    engine = engine_with(claim("c1"), claim("c2"), storage_class(), volume("v"))
    first = decide(engine, with_claims("p1", "c1"))
    cluster = engine.state.nodes.cluster
    # An update that says nothing new leaves the promise alone.
    engine.upsert_object(volume("v", version="2"))
    assert decide(engine, with_claims("p2", "c2")).verdict is Verdict.UNSCHEDULABLE
    written = volume("v", version="3", claimRef=claim_ref("c1", "uid-c1"))
    engine.upsert_object(written)
    assert cluster.get(PersistentVolume, "v") is written
    # Nothing is left to take back.
    engine.bind_failed(first.pod.uid)
    assert cluster.get(PersistentVolume, "v") is written


def test_a_claim_whose_volume_is_being_made_stays_with_its_node() -> None:
    """Two pods share it: the second has to follow the first."""
    engine = engine_with(claim("c"), storage_class(provisioner="d"))
    first = decide(engine, with_claims("p1", "c"))
    assert first.volumes is not None
    assert [p.claim.name for p in first.volumes.provisions] == ["c"]
    second = decide(engine, with_claims("p2", "c"))
    assert second.node == first.node
    engine.bind_failed(first.pod.uid)
    engine.bind_failed(second.pod.uid)
    engine.upsert_object(claim("c", version="2", annotations={SELECTED_NODE: "b"}))
    assert decide(engine, with_claims("p3", "c")).node == "b"


def test_pods_without_claims_have_no_plan() -> None:
    engine = engine_with()
    assert decide(engine, with_claims("p", emptyDir={})).volumes is None


def test_a_claim_wakes_the_pods_that_use_it_and_no_others() -> None:
    clock = Clock()
    engine = engine_with(storage_class(), clock=clock)
    for number in (1, 2):
        missing = decide(engine, with_claims(f"p{number}", f"c{number}"))
        assert missing.message.startswith("0/2 nodes are available: persistentvolumeclaim")
    clock.advance(60)
    engine.upsert_object(volume("v1"))
    engine.upsert_object(volume("v2", size="2Gi"))
    assert engine.decide() is None, "neither claim is there"
    clock.advance(60)
    engine.upsert_object(claim("c2"))
    assert matched(decide(engine)) == {"c2": "v1"}
    assert engine.decide() is None


def test_changes_that_can_help_do() -> None:
    waiting = [claim("c"), storage_class()]
    bound = [claim("c", volume="v"), volume("v", **csi("d", "h"))]
    made = [claim("c", size="2Gi"), storage_class(provisioner="d"), csi_driver("d", storageCapacity=True)]
    cases: list[tuple[list[ClusterObject], ClusterObject]] = [
        (waiting, volume("v")),
        ([*waiting, volume("v", zone="elsewhere")], volume("v", version="2")),
        (waiting, storage_class(provisioner="d")),
        ([claim("c", storageClassName="now")], claim("c", volume="v")),
        ([claim("c")], storage_class(provisioner="d")),
        ([claim("c", volume="v")], volume("v")),
        ([claim("c", volume="v"), volume("v", labels={"topology.kubernetes.io/zone": "x"})], volume("v")),
        ([*bound, csi_node("a", d=0), csi_node("b", d=0)], csi_node("b", d=1)),
        ([*bound, csi_node("a", d=0), csi_node("b", d=0)], csi_node("b")),
        ([*bound, csi_driver("d", preventPodSchedulingIfMissing=True)], csi_node("b", d=None)),
        ([*bound, csi_driver("d", preventPodSchedulingIfMissing=True)], csi_driver("d")),
        ([*made, storage_pool("s", "1Gi")], storage_pool("s", "3Gi")),
        (made, storage_pool("s", "3Gi", zone="b")),
        (made, csi_driver("d")),
    ]
    for before, helping in cases:
        clock = Clock()
        engine = engine_with(*before, clock=clock)
        if helping == cases[3][1]:
            engine.upsert_object(volume("v"))
            assert decide(engine, with_claims("p", "c")).message.startswith(
                f"0/2 nodes are available: {REASON_UNBOUND}. "
            )
        else:
            assert decide(engine, with_claims("p", "c")).verdict is Verdict.UNSCHEDULABLE
        clock.advance(60)
        assert engine.decide() is None
        engine.upsert_object(helping)
        assert decide(engine).verdict is Verdict.PLACED, helping


def test_a_pod_that_leaves_makes_room_for_volumes() -> None:
    clock = Clock()
    items = [claim("c1", volume="v1"), volume("v1", **csi("d", "h1"))]
    items += [claim("c2", volume="v2"), volume("v2", **csi("d", "h2"))]
    exclusive = claim("c3", volume="v3", accessModes=["ReadWriteOncePod"])
    engine = engine_with(*items, exclusive, volume("v3"), csi_node("a", d=1), clock=clock, a="a")
    assert decide(engine, with_claims("p1", "c1", "c3")).node == "a"
    assert decide(engine, with_claims("p2", "c2")).verdict is Verdict.UNSCHEDULABLE
    assert decide(engine, with_claims("p3", "c3")).verdict is Verdict.UNSCHEDULABLE
    clock.advance(60)
    engine.remove_pod("uid-of-default/p1")
    assert {decide(engine).node, decide(engine).node} == {"a"}


def test_a_claim_in_use_is_free_once_the_node_of_its_user_is_gone() -> None:
    clock = Clock()
    exclusive = claim("c", volume="v", accessModes=["ReadWriteOncePod"])
    engine = engine_with(exclusive, volume("v"), clock=clock)
    engine.upsert_pod(with_claims("user", "c").on("a").obj())
    assert decide(engine, with_claims("p", "c")).verdict is Verdict.UNSCHEDULABLE
    clock.advance(60)
    engine.remove_node("a")
    assert decide(engine).node == "b"


def test_pods_that_name_disks_themselves_are_looked_at_one_by_one() -> None:
    clock, full = Clock(), dict[str, Any]({"cinder.csi.openstack.org": 0})
    engine = engine_with(csi_node("a", **full), csi_node("b", **full), clock=clock)
    for disk in "xy":
        pod = with_claims(f"p-{disk}", cinder={"volumeID": disk})
        assert decide(engine, pod).verdict is Verdict.UNSCHEDULABLE
    clock.advance(60)
    engine.upsert_pod(with_claims("by-hand", cinder={"volumeID": "y"}).on("b").obj())
    assert engine.decide() is None
    engine.upsert_object(csi_node("b"))
    engine.upsert_object(csi_node("b", **full))
    decision = decide(engine)
    assert (decision.pod.name, decision.node) == ("default/p-y", "b")


def test_a_plan_names_the_latest_version_of_a_claim() -> None:
    """Its finalizer comes a moment after the claim, and with it a new resourceVersion."""
    clock = Clock()
    engine = engine_with(claim("c"), storage_class(provisioner="d"), clock=clock, a="a")
    engine.upsert_pod(make_pod("there").host_port(80).on("a").obj())
    assert decide(engine, with_claims("p", "c").host_port(80)).verdict is Verdict.UNSCHEDULABLE
    engine.upsert_object(claim("c", version="2"))
    clock.advance(60)
    engine.remove_pod("uid-of-default/there")
    plan = decide(engine).volumes
    assert plan is not None
    assert [p.claim.resource_version for p in plan.provisions] == ["2"]
