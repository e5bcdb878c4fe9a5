"""VolumeZone: volumes with labels of zones and regions."""

from __future__ import annotations

import pytest

from scheduler.plugins.volume_zone import REASON, VolumeZone
from tests.builders import make_node, make_pod
from tests.unit.plugins.storing import says, view_of
from tests.unit.storage import ZONE, claim, storage_class, volume, with_claims

OLD_ZONE = "failure-domain.beta.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"


@pytest.mark.parametrize(
    ("labels", "on_a", "on_b"),
    [
        ({}, True, True),
        ({ZONE: "a"}, True, False),
        ({ZONE: "b__ a "}, True, True),
        ({ZONE: "b__c"}, False, True),
        ({ZONE: "a__"}, True, True),  # no list of zones
        ({OLD_ZONE: "a"}, True, False),  # nodes have the label that has replaced it
        ({REGION: "r"}, False, False),  # nodes with a zone, but without a region
        ({"pool": "x"}, True, True),
    ],
)
def test_labels_of_the_volume(labels: dict[str, str], on_a: bool, on_b: bool) -> None:
    nodes = view_of(claim("c", volume="v"), volume("v", labels=labels))
    expected = [[] if fits else [REASON] for fits in (on_a, on_b)]
    assert says(VolumeZone(), with_claims("p", "c"), nodes) == expected


def test_nodes_without_any_of_the_labels_take_all() -> None:
    items = (claim("c", volume="v"), volume("v", labels={ZONE: "z"}))
    assert says(VolumeZone(), with_claims("p", "c"), view_of(*items, nodes=(make_node(),))) == [[]]


def test_the_old_label_of_a_node_counts_first() -> None:
    node = make_node().labels({OLD_ZONE: "x", ZONE: "a"})
    items = (claim("c", volume="v"), volume("v", labels={OLD_ZONE: "a"}))
    assert says(VolumeZone(), with_claims("p", "c"), view_of(*items, nodes=(node,))) == [[REASON]]


def test_claims_it_can_say_nothing_of() -> None:
    pod, plugin = with_claims("p", "c"), VolumeZone()
    assert says(plugin, pod, view_of()) == 'persistentvolumeclaim "c" not found'
    assert says(plugin, pod, view_of(claim("c", volume="v"))) == 'persistentvolume "v" not found'
    unknown = 'storageclass.storage.k8s.io "wait" not found'
    assert says(plugin, pod, view_of(claim("c"))) == unknown
    at_once = storage_class(mode="Immediate")
    assert says(plugin, pod, view_of(claim("c"), at_once)) == "PersistentVolume had no name"
    assert says(plugin, pod, view_of(claim("c"), storage_class())) == [[], []]
    classless = claim("c", storageClassName="")
    expected = "PersistentVolumeClaim had no pv name and storageClass name"
    assert says(plugin, pod, view_of(classless)) == expected


def test_ephemeral_volumes_and_pods_without_claims_are_no_business_of_it() -> None:
    for pod in (make_pod(), with_claims("p", ephemeral={})):
        assert VolumeZone().context(pod.info(), view_of()) == ()
