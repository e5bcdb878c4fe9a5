"""VolumeBinding: claims that are bound, that get a volume, that get one made; the plan and the score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scheduler.core.nodes import NodeView
from scheduler.core.volumes.plan import (
    SELECTED_NODE,
    ObjectVersion,
    Provisioning,
    StaticBinding,
    VolumePlan,
)
from scheduler.plugins.volume_binding import REASON_UNBOUND, REASONS, VolumeBinding
from tests.builders import PodBuilder, make_pod
from tests.unit.plugins.storing import says, view_of, zoned
from tests.unit.storage import (
    claim,
    claim_ref,
    csi_driver,
    csi_node,
    storage_class,
    storage_pool,
    volume,
    with_claims,
)

NODE_CONFLICT, BIND_CONFLICT, NO_SPACE, NO_VOLUME = ([text] for text in REASONS)
FITS: list[str] = []
MADE = storage_class(provisioner="d")
"""A class whose volumes are made."""


def said(pod: PodBuilder, *items: Any) -> str | list[list[str]]:
    return says(VolumeBinding(), pod, view_of(*items))


def plan(pod: PodBuilder, nodes: NodeView, node: str = "a") -> VolumePlan | None:
    return VolumeBinding().plan(pod.info(), nodes, nodes.row_of[node])


def chosen(pod: PodBuilder, nodes: NodeView, node: str = "a") -> dict[str, str]:
    """Claim → volume that it would get on the node."""
    found = plan(pod, nodes, node)
    return {} if found is None else {b.claim.name: b.volume.name for b in found.bindings}


# ---- before nodes are looked at


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, 'persistentvolumeclaim "c" not found'),
        (
            claim("c", volume="v", phase="Lost"),
            'persistentvolumeclaim "c" bound to non-existent persistentvolume "v"',
        ),
        (claim("c", deleted=True), 'persistentvolumeclaim "c" is being deleted'),
        (claim("c", storageClassName="at-once"), REASON_UNBOUND),
        (claim("c", storageClassName="unknown"), REASON_UNBOUND),
        (claim("c", volumeName="v"), REASON_UNBOUND),  # reserved by its author, not bound yet
    ],
)
def test_claims_that_keep_a_pod_from_all_nodes(found: Any, text: str) -> None:
    items = [storage_class(), storage_class("at-once", mode="Immediate"), *([found] if found else [])]
    assert said(with_claims("p", "c"), *items) == text


def test_ephemeral_volumes_have_claims_of_their_own() -> None:
    pod = with_claims("p", ephemeral={})
    waiting = "waiting for ephemeral volume controller to create the persistentvolumeclaim"
    assert said(pod) == f'{waiting} "p-s0"'
    another = claim("p-s0", owner="uid-of-another")
    text = "PVC default/p-s0 was not created for pod default/p (pod is not owner)"
    assert said(pod, another, storage_class()) == text
    own = claim("p-s0", owner="uid-of-default/p")
    assert said(pod, own, storage_class(), volume("v", zone="b")) == [BIND_CONFLICT, FITS]


def test_pods_without_claims_are_no_business_of_it() -> None:
    for pod in (make_pod(), with_claims("p", iscsi={"iqn": "i"})):
        assert VolumeBinding().context(pod.info(), view_of()) == ()


# ---- bound claims


def test_a_bound_volume_has_to_be_reached() -> None:
    pod = with_claims("p", "c")
    assert said(pod, claim("c", volume="v"), volume("v", zone="b")) == [NODE_CONFLICT, FITS]
    assert said(pod, claim("c", volume="v"), volume("v")) == [FITS, FITS]
    assert said(pod, claim("c", volume="v")) == [NO_VOLUME, NO_VOLUME]
    # Where one is out of reach, the next is not asked about.
    items = (claim("c", volume="v"), volume("v", zone="b"), claim("d", volume="gone"))
    assert said(with_claims("p", "c", "d"), *items) == [NODE_CONFLICT, NO_VOLUME]


def test_volumes_see_labels_of_nodes_but_not_their_names() -> None:
    affinity = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
    named = volume("v", nodeAffinity={"required": {"nodeSelectorTerms": [affinity]}})
    assert said(with_claims("p", "c"), claim("c", volume="v"), named) == [NODE_CONFLICT] * 2


def test_an_old_volume_is_where_its_csi_driver_says_once_that_took_over() -> None:
    old = volume("v", zone="a", awsElasticBlockStore={"volumeID": "vol-1"})
    items = (claim("c", volume="v"), old, csi_node("a", "kubernetes.io/aws-ebs"))
    assert said(with_claims("p", "c"), *items) == [NODE_CONFLICT, NODE_CONFLICT]
    nodes = zoned(a="a")[0].labels({"topology.ebs.csi.aws.com/zone": "a"})
    assert says(VolumeBinding(), with_claims("p", "c"), view_of(*items, nodes=(nodes,))) == [[]]


# ---- volumes that exist


def test_the_smallest_volume_that_fits_is_taken() -> None:
    volumes = [volume(f"v{size}", size=f"{size}Gi") for size in (1, 2, 3, 4)]
    nodes = view_of(claim("c", size="2Gi"), storage_class(), *volumes)
    assert chosen(with_claims("p", "c"), nodes) == {"c": "v2"}


def test_each_claim_gets_a_volume_of_its_own_the_smallest_first() -> None:
    volumes = [volume("v5", size="5Gi"), volume("v9", size="9Gi", zone="a")]
    claims = [claim("large", size="4Gi"), claim("small", size="1Gi")]
    pod = with_claims("p", "large", "small")
    nodes = view_of(*claims, storage_class(), *volumes)
    assert says(VolumeBinding(), pod, nodes) == [FITS, BIND_CONFLICT]
    assert chosen(pod, nodes) == {"small": "v5", "large": "v9"}


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"accessModes": ["ReadOnlyMany"]}, {}),
        ({}, {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}),
        ({"volumeMode": "Block"}, {}),
        ({}, {"volumeMode": "Block"}),
        ({"storageClassName": "other"}, {}),
        ({"volumeAttributesClassName": "gold"}, {}),
        ({"claimRef": claim_ref("another")}, {}),
        ({"claimRef": claim_ref("c", uid="of an earlier one")}, {}),
        ({"size": "1Mi"}, {}),
        ({"phase": "Released"}, {}),
        ({}, {"selector": {"matchLabels": {"tier": "x"}}}),
    ],
)
def test_volumes_that_a_claim_does_not_get(changes: dict[str, Any], asked: dict[str, Any]) -> None:
    pod, items = with_claims("p", "c"), (claim("c", **asked), storage_class())
    assert said(pod, *items, volume("v", **changes)) == [BIND_CONFLICT] * 2
    good = volume("good", labels={"tier": "x"}, accessModes=["ReadWriteOnce", "ReadWriteMany"])
    if "volumeMode" not in asked:
        assert said(pod, *items, volume("v", **changes), good) == [FITS] * 2


def test_a_volume_reserved_for_the_claim_is_the_one_it_gets() -> None:
    reserved = volume("r", size="9Gi", zone="b", phase="Pending", claimRef=claim_ref("c"))
    nodes = view_of(claim("c"), storage_class(), reserved, volume("v"))
    pod = with_claims("p", "c")
    assert says(VolumeBinding(), pod, nodes) == [BIND_CONFLICT, FITS]
    assert chosen(pod, nodes, "b") == {"c": "r"}


# ---- volumes to be made


def test_volumes_are_made_where_the_class_allows_it() -> None:
    pod = with_claims("p", "c")
    assert said(pod, claim("c"), MADE) == [FITS, FITS]
    assert said(pod, claim("c"), storage_class(provisioner="d", zones=["b"])) == [BIND_CONFLICT, FITS]
    assert said(pod, claim("c"), storage_class()) == [BIND_CONFLICT] * 2


def test_a_volume_that_exists_is_taken_before_one_is_made() -> None:
    nodes = view_of(claim("c"), MADE, volume("v", zone="a"))
    assert plan(with_claims("p", "c"), nodes) == VolumePlan(
        "a", bindings=(StaticBinding(_version("c", "default"), _version("v")),)
    )
    made = VolumePlan("b", provisions=(Provisioning(_version("c", "default")),))
    assert plan(with_claims("p", "c"), nodes, "b") == made


def test_a_claim_whose_node_is_chosen_stays_there() -> None:
    chosen_before = claim("c", annotations={SELECTED_NODE: "b"})
    assert said(with_claims("p", "c"), chosen_before, MADE) == [BIND_CONFLICT, FITS]
    # Nor is it given a volume that exists meanwhile.
    nodes = view_of(chosen_before, MADE, volume("v"))
    found = plan(with_claims("p", "c"), nodes, "b")
    assert found is not None
    assert not found.bindings
    assert found.provisions


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ([storage_pool("p", "5Gi")], [FITS, FITS]),
        ([storage_pool("p", "1Gi")], [NO_SPACE] * 2),
        ([storage_pool("p", "9Gi", maximumVolumeSize="1Gi")], [NO_SPACE] * 2),
        ([storage_pool("p", None, maximumVolumeSize="5Gi")], [FITS, FITS]),
        ([storage_pool("p", None)], [NO_SPACE] * 2),
        ([storage_pool("p", "5Gi", zone="a"), storage_pool("q", "1Gi", zone="b")], [FITS, NO_SPACE]),
        ([storage_pool("p", "5Gi", nodeTopology=None)], [NO_SPACE] * 2),
        ([storage_pool("p", "5Gi", storageClassName="other")], [NO_SPACE] * 2),
        ([], [NO_SPACE] * 2),
    ],
)
def test_room_for_what_is_to_be_made(pools: list[Any], expected: list[list[str]]) -> None:
    items = (claim("c", size="2Gi"), MADE, *pools)
    assert said(with_claims("p", "c"), *items, csi_driver("d", storageCapacity=True)) == expected
    # Drivers that do not publish their capacity are not asked for it.
    assert said(with_claims("p", "c"), *items, csi_driver("d")) == [FITS, FITS]


def test_what_no_eviction_can_cure_is_unresolvable() -> None:
    nodes = view_of(claim("c"), storage_class())
    assert VolumeBinding().filter(with_claims("p", "c").info(), nodes).unresolvable.all()


def test_several_reasons_on_a_node() -> None:
    taken = volume("v", zone="b", claimRef=claim_ref("c"))
    items = (claim("c", volume="v"), taken, claim("d"), storage_class())
    both = [*NODE_CONFLICT, *BIND_CONFLICT]
    assert said(with_claims("p", "c", "d"), *items) == [both, BIND_CONFLICT]


# ---- the plan


def _version(name: str, namespace: str = "") -> ObjectVersion:
    return ObjectVersion(name, f"uid-{name}", "1", namespace)


def test_nothing_is_to_be_done_for_bound_claims() -> None:
    nodes = view_of(claim("c", volume="v"), volume("v"))
    assert plan(with_claims("p", "c"), nodes) is None


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (None, (True, True)),
        (claim_ref("c"), (True, False)),
        (claim_ref("c", uid="uid-c"), (False, False)),
    ],
)
def test_what_is_written_to_a_volume(reference: dict[str, Any] | None, expected: tuple[bool, bool]) -> None:
    nodes = view_of(claim("c"), storage_class(), volume("v", claimRef=reference))
    found = plan(with_claims("p", "c"), nodes)
    assert found is not None
    [binding] = found.bindings
    assert (binding.set_claim_ref, binding.set_by_controller) == expected
    assert binding.is_written is not any(expected)


# ---- the score


def scores(pod: PodBuilder, *items: Any, **args: Any) -> list[int]:
    nodes = view_of(*items, nodes=zoned(a="a", b="b", c=""))
    plugin = VolumeBinding(args)
    found: list[int] = plugin.rank(pod.info(), nodes, np.ones(3, np.bool_)).normalized.tolist()
    return found


def test_the_emptier_the_volume_the_better() -> None:
    volumes = [volume("v4", size="4Gi", zone="a"), volume("v2", size="2Gi", zone="b")]
    assert scores(with_claims("p", "c"), claim("c"), storage_class(), *volumes) == [75, 50, 0]


def test_the_more_room_in_the_storage_pool_the_better() -> None:
    items = [claim("c"), claim("d"), MADE, csi_driver("d", storageCapacity=True)]
    pools = [storage_pool("p", "8Gi", zone="a"), storage_pool("q", "3Gi", zone="b")]
    # Claims of one class are added up, the pool is one.
    assert scores(with_claims("p", "c", "d"), *items, *pools) == [75, 34, 0]


def test_the_shape_is_an_argument() -> None:
    shape = [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]
    volumes = [volume("v4", size="4Gi", zone="a"), volume("v2", size="2Gi", zone="b")]
    items = [claim("c"), storage_class(), *volumes]
    assert scores(with_claims("p", "c"), *items, shape=shape) == [25, 50, 0]


def test_pods_whose_claims_are_bound_are_not_scored() -> None:
    nodes = view_of(claim("c", volume="v"), volume("v"), claim("d"), storage_class())
    assert not VolumeBinding().prefers(with_claims("p", "c").info(), nodes)
    assert VolumeBinding().prefers(with_claims("p", "c", "d").info(), nodes)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"bindTimeoutSeconds": -1}, "bindTimeoutSeconds: must not be negative"),
        ({"shape": [{"utilization": 101, "score": 1}]}, r"shape\[0\].utilization: must be 0 to 100, got 101"),
        ({"timeout": 1}, "timeout: unknown field"),
    ],
)
def test_arguments_that_make_no_sense(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeBinding(args)


@pytest.mark.parametrize(("args", "timeout_s"), [({}, 600), ({"bindTimeoutSeconds": 5}, 5)])
def test_the_time_to_wait_is_an_argument(args: dict[str, Any], timeout_s: float) -> None:
    nodes = view_of(claim("c"), MADE)
    found = VolumeBinding(args).plan(with_claims("p", "c").info(), nodes, 0)
    assert found is not None
    assert found.timeout_s == timeout_s
