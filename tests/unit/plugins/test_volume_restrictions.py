"""VolumeRestrictions: disks that can't be shared, claims for one pod at a time."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.plugins.volume_restrictions import REASON_DISK, REASON_IN_USE, VolumeRestrictions
from tests.builders import make_pod
from tests.unit.plugins.storing import says, view_of
from tests.unit.storage import claim, with_claims

GCE: dict[str, Any] = {"gcePersistentDisk": {"pdName": "d"}}
EBS: dict[str, Any] = {"awsElasticBlockStore": {"volumeID": "vol-1"}}
ISCSI: dict[str, Any] = {"iscsi": {"iqn": "iqn.2026-01.com.example:d"}}
RBD: dict[str, Any] = {"rbd": {"monitors": ["m1", "m2"], "pool": "rbd", "image": "i"}}


def changed(source: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {kind: {**found, **fields} for kind, found in source.items()}


def read_only(source: dict[str, Any]) -> dict[str, Any]:
    return changed(source, readOnly=True)


@pytest.mark.parametrize(
    ("there", "wanted", "conflict"),
    [
        (GCE, GCE, True),
        (read_only(GCE), GCE, True),
        (GCE, read_only(GCE), True),
        (read_only(GCE), read_only(GCE), False),
        (GCE, changed(GCE, pdName="e"), False),
        (EBS, EBS, True),
        (read_only(EBS), read_only(EBS), True),
        (EBS, changed(EBS, volumeID="vol-2"), False),
        (ISCSI, ISCSI, True),
        (read_only(ISCSI), read_only(ISCSI), False),
        (RBD, RBD, True),
        (RBD, changed(RBD, monitors=["m2", "m3"]), True),
        (RBD, changed(RBD, monitors=["m3"]), False),
        (RBD, changed(RBD, pool="p"), False),
        (RBD, changed(RBD, image="j"), False),
        (read_only(RBD), read_only(RBD), False),
        (GCE, EBS, False),
    ],
)
def test_a_disk_in_use_on_a_node(there: dict[str, Any], wanted: dict[str, Any], conflict: bool) -> None:
    nodes = view_of(pods=(with_claims("there", **there).on("a"),))
    expected = [[REASON_DISK] if conflict else [], []]
    assert says(VolumeRestrictions(), with_claims("p", **wanted), nodes) == expected


def test_a_claim_for_one_pod_at_a_time_keeps_others_from_all_nodes() -> None:
    exclusive = claim("c", accessModes=["ReadWriteOncePod"])
    pod = with_claims("p", "c")
    assert says(VolumeRestrictions(), pod, view_of(exclusive)) == [[], []]
    taken = view_of(exclusive, pods=(with_claims("user", "c").on("a"),))
    assert says(VolumeRestrictions(), pod, taken) == [[REASON_IN_USE]] * 2
    # Evicting the user would help.
    assert not VolumeRestrictions().filter(pod.info(), taken).unresolvable.any()


def test_other_claims_are_shared() -> None:
    nodes = view_of(claim("c"), pods=(with_claims("user", "c").on("a"),))
    assert says(VolumeRestrictions(), with_claims("p", "c"), nodes) == [[], []]


def test_a_namesake_in_another_namespace_is_another_claim() -> None:
    exclusive = claim("c", accessModes=["ReadWriteOncePod"])
    user = with_claims("user", "c").named("user", namespace="other").on("a")
    assert says(VolumeRestrictions(), with_claims("p", "c"), view_of(exclusive, pods=(user,))) == [[], []]


def test_a_claim_that_is_not_there() -> None:
    assert says(VolumeRestrictions(), with_claims("p", "c"), view_of()) == (
        'persistentvolumeclaim "c" not found'
    )


def test_pods_without_such_volumes_are_no_business_of_it() -> None:
    assert VolumeRestrictions().context(make_pod().info(), view_of()) == ()
    assert VolumeRestrictions().context(with_claims("p", emptyDir={}).info(), view_of()) == ()
