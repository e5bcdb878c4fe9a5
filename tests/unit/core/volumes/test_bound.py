"""When a plan has come true, and when it can't any more."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.api_objects import ClusterObject, PersistentVolume, PersistentVolumeClaim
from scheduler.core.volumes.assume import assume_plan
from scheduler.core.volumes.bound import is_bound
from scheduler.core.volumes.plan import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    SELECTED_NODE,
    ObjectVersion,
    PlanFailed,
    Provisioning,
    StaticBinding,
    VolumePlan,
)
from tests.unit.plugins.filtering import state_of
from tests.unit.plugins.storing import zoned
from tests.unit.storage import claim, claim_ref, csi_node, volume

CLAIM = ObjectVersion("c", "uid-c", "1", "default")
BINDING = VolumePlan("a", bindings=(StaticBinding(CLAIM, ObjectVersion("v", "uid-v", "1")),))
MAKING = VolumePlan("a", provisions=(Provisioning(CLAIM),))
CHOSEN = {SELECTED_NODE: "a"}
BOUND: dict[str, Any] = {"volume": "v"}
RESERVED = volume("v", claimRef=claim_ref("c", "uid-c"))


def judged(plan: VolumePlan, *items: ClusterObject) -> bool | str:
    """Whether it is bound, or why that is hopeless."""
    nodes = state_of(*zoned(a="a", b="b")).nodes
    for item in items:
        nodes.cluster.upsert(item)
    try:
        return is_bound(plan, nodes)
    except PlanFailed as failure:
        return str(failure)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([claim("c", volume="v"), RESERVED], True),
        ([claim("c"), RESERVED], False),
        ([claim("c", volumeName="v"), RESERVED], False),
        ([claim("c"), volume("v")], 'ClaimRef got reset for pv "v"'),
        ([claim("c"), volume("v", claimRef=claim_ref("c"))], 'ClaimRef got reset for pv "v"'),
        ([claim("c")], 'failed to check binding: persistentvolumes "v" not found'),
        ([RESERVED], 'failed to check binding: persistentvolumeclaims "default/c" not found'),
        (
            [claim("c"), volume("v", zone="b", claimRef=claim_ref("c", "uid-c"))],
            'pv "v" node affinity doesn\'t match node "a": no matching NodeSelectorTerms',
        ),
    ],
)
def test_a_claim_and_the_volume_that_it_was_promised(
    items: list[ClusterObject], expected: bool | str
) -> None:
    assert judged(BINDING, *items) == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([claim("c", annotations=CHOSEN)], False),
        ([claim("c", volume="v", annotations=CHOSEN), volume("v", zone="a")], True),
        ([claim("c", volumeName="v", annotations=CHOSEN), volume("v")], False),
        ([claim("c", volume="v", annotations=CHOSEN)], False),  # the volume has not been seen yet
        ([claim("c")], 'provisioning failed for PVC "c"'),
        ([claim("c", annotations={SELECTED_NODE: "b"})], 'provisioning failed for PVC "c"'),
        ([], 'failed to check provisioning pvc: persistentvolumeclaims "default/c" not found'),
        (
            [claim("c", volume="v", annotations=CHOSEN), volume("v", zone="b")],
            'pv "v" node affinity doesn\'t match node "a": no matching NodeSelectorTerms',
        ),
    ],
)
def test_a_claim_for_which_a_volume_is_made(items: list[ClusterObject], expected: bool | str) -> None:
    assert judged(MAKING, *items) == expected


def test_a_claim_made_anew_under_the_same_name_is_another() -> None:
    other = VolumePlan("a", provisions=(Provisioning(ObjectVersion("c", "another", "1", "default")),))
    text = 'failed to check provisioning pvc: persistentvolumeclaims "default/c" not found'
    assert judged(other, claim("c", annotations=CHOSEN)) == text


def test_a_node_that_is_gone() -> None:
    assert judged(VolumePlan("x")) == 'failed to get node "x": node "x" not found'


def test_old_volumes_are_where_their_csi_driver_says() -> None:
    made = claim("c", volume="v", annotations=CHOSEN)
    old = volume("v", zone="a", awsElasticBlockStore={"volumeID": "vol-1"})
    assert judged(MAKING, made, old) is True
    migrated = csi_node("a", "kubernetes.io/aws-ebs")
    assert "node affinity doesn't match" in str(judged(MAKING, made, old, migrated))
    azure = volume("v", azureDisk={"diskURI": "/d", "kind": "Dedicated"})
    failed = judged(MAKING, made, azure, csi_node("a", "kubernetes.io/azure-disk"))
    assert str(failed).startswith("failed to translate pv to csi")


def test_what_is_assumed_is_not_taken_for_true() -> None:
    nodes = state_of(*zoned(a="a")).nodes
    for item in (claim("c"), volume("v")):
        nodes.cluster.upsert(item)
    plan = VolumePlan("a", BINDING.bindings, MAKING.provisions)
    assume_plan(plan, nodes.cluster, owner="pod")
    assumed = nodes.cluster.get(PersistentVolume, "v")
    assert assumed is not None
    assert assumed.metadata.annotations == {BOUND_BY_CONTROLLER: "yes"}
    assert assumed.spec.claim_ref is not None
    assert assumed.spec.claim_ref.uid == "uid-c"
    chosen = nodes.cluster.get(PersistentVolumeClaim, "c", "default")
    assert chosen is not None
    assert chosen.metadata.annotations == CHOSEN
    with pytest.raises(PlanFailed, match="ClaimRef got reset"):
        is_bound(BINDING, nodes)
    assert BIND_COMPLETED not in chosen.metadata.annotations
