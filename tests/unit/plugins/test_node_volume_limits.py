"""NodeVolumeLimits: what counts against a driver's limit on a node."""

from __future__ import annotations

import pytest

from scheduler.api_objects import ClusterObject
from scheduler.core.volumes.sources import UntranslatableVolume
from scheduler.plugins.node_volume_limits import REASON, NodeVolumeLimits
from tests.builders import PodBuilder, make_pod
from tests.unit.plugins.storing import says, view_of
from tests.unit.storage import (
    attachment,
    claim,
    csi,
    csi_driver,
    csi_node,
    storage_class,
    volume,
    with_claims,
)

FULL = [[REASON], []]
FREE: list[list[str]] = [[], []]


def bound(number: int, driver: str = "d") -> tuple[ClusterObject, ClusterObject]:
    """Claim c1 with its volume v1, and so on."""
    return claim(f"c{number}", volume=f"v{number}"), volume(f"v{number}", **csi(driver, f"h{number}"))


def judged(*items: ClusterObject, pod: PodBuilder, there: PodBuilder | None = None, limit: int = 1) -> object:
    """What is said of nodes a, on which a pod is and which has a limit, and b, which has none."""
    pods = (there.on("a"),) if there is not None else ()
    return says(NodeVolumeLimits(), pod, view_of(*items, csi_node("a", d=limit), pods=pods))


def test_volumes_of_pods_count() -> None:
    items = (*bound(1), *bound(2))
    assert judged(*items, pod=with_claims("p", "c2"), there=with_claims("q", "c1")) == FULL
    assert judged(*items, pod=with_claims("p", "c2"), there=with_claims("q", "c1"), limit=2) == FREE
    assert judged(*items, pod=with_claims("p", "c1", "c2")) == FULL
    assert judged(*items, pod=with_claims("p", "c1"), limit=0) == FULL


def test_a_volume_that_is_there_already_takes_no_place() -> None:
    assert judged(*bound(1), pod=with_claims("p", "c1"), there=with_claims("q", "c1")) == FREE
    # Not even when the node has more than it can take.
    assert judged(*bound(1), pod=with_claims("p", "c1"), there=with_claims("q", "c1"), limit=0) == FREE


def test_volumes_of_another_driver_count_for_that() -> None:
    items = (*bound(1, "other"), *bound(2))
    assert judged(*items, pod=with_claims("p", "c2"), there=with_claims("q", "c1")) == FREE


def test_one_volume_behind_two_claims_is_one() -> None:
    items = (claim("x", volume="vx"), volume("vx", **csi("d", "h1")), *bound(1))
    assert judged(*items, pod=with_claims("p", "x"), there=with_claims("q", "c1")) == FREE


def test_what_is_attached_beside_pods_counts_too() -> None:
    items = (*bound(1), *bound(2), attachment("va", "a", "v1", "d"))
    assert judged(*items, pod=with_claims("p", "c2")) == FULL
    # Once, if a pod has it as well; twice for a pod that wants that very volume (as in kube-scheduler).
    assert judged(*items, pod=with_claims("p", "c2"), there=with_claims("q", "c1"), limit=2) == FREE
    assert judged(*items, pod=with_claims("p", "c1")) == FULL


def test_volumes_to_be_made_count_for_the_class_s_driver() -> None:
    items = (claim("w"), storage_class(provisioner="d"), *bound(1))
    assert judged(*items, pod=with_claims("p", "w"), there=with_claims("q", "c1")) == FULL
    assert judged(*items, pod=with_claims("p", "c1"), there=with_claims("q", "w")) == FULL
    assert judged(claim("w"), *bound(1), pod=with_claims("p", "w"), there=with_claims("q", "c1")) == FREE


def test_claims_of_ephemeral_volumes_count() -> None:
    items = (*bound(1), claim("p-s0", owner="uid-of-default/p"), storage_class(provisioner="d"))
    assert judged(*items, pod=with_claims("p", ephemeral={}), there=with_claims("q", "c1")) == FULL


def test_old_sources_count_for_the_driver_that_took_over() -> None:
    nodes = view_of(
        csi_node("a", ebs_csi_aws_com=1),
        pods=(with_claims("q", awsElasticBlockStore={"volumeID": "aws://zone/vol-1"}).on("a"),),
    )
    plugin = NodeVolumeLimits()
    another = with_claims("p", awsElasticBlockStore={"volumeID": "vol-2"})
    assert says(plugin, another, nodes) == FULL
    same = with_claims("p", awsElasticBlockStore={"volumeID": "vol-1"})
    assert says(plugin, same, nodes) == FREE
    assert says(plugin, with_claims("p", azureFile={}), nodes) == FREE


def test_a_driver_may_ask_for_nodes_on_which_it_is_installed() -> None:
    picky = csi_driver("d", preventPodSchedulingIfMissing=True)
    items = (*bound(1), picky)
    assert judged(*items, pod=with_claims("p", "c1")) == [[], ["d CSI driver is not installed on the node"]]
    assert judged(*bound(1), csi_driver("d"), pod=with_claims("p", "c1")) == FREE


def test_reasons_of_drivers_keep_apart() -> None:
    plugin = NodeVolumeLimits()
    drivers = [csi_driver(name, preventPodSchedulingIfMissing=True) for name in ("d", "e")]
    nodes = view_of(*bound(1, "d"), *bound(2, "e"), *drivers)
    for name, driver in (("c1", "d"), ("c2", "e"), ("c1", "d")):
        expected = [[f"{driver} CSI driver is not installed on the node"]] * 2
        assert says(plugin, with_claims("p", name), nodes) == expected


def test_a_source_without_a_translation_is_an_error() -> None:
    pod = with_claims("p", azureDisk={"diskURI": "/d", "kind": "Dedicated"})
    with pytest.raises(UntranslatableVolume, match="is not supported in csi migration"):
        says(NodeVolumeLimits(), pod, view_of(csi_node("a")))
    assert says(NodeVolumeLimits(), pod, view_of()) == FREE


def test_evicting_pods_makes_room() -> None:
    nodes = view_of(*bound(1), csi_node("a", d=0))
    assert not NodeVolumeLimits().filter(with_claims("p", "c1").info(), nodes).unresolvable.any()


def test_pods_without_such_volumes_are_no_business_of_it() -> None:
    assert NodeVolumeLimits().context(make_pod().info(), view_of()) == ()
    assert NodeVolumeLimits().context(with_claims("p", iscsi={"iqn": "i"}).info(), view_of()) == ()
