"""Volumes of old sources as those of CSI drivers.

Expected values are those of k8s.io/csi-translation-lib's own tests, where it has any.
"""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.api import NodeSelector
from scheduler.core.volumes.sources import (
    OLD_REGION,
    OLD_ZONE,
    REGION,
    ZONE,
    Attachable,
    UntranslatableVolume,
    attachable_volume,
    inline_volume,
    translated_affinity,
)
from tests.unit.storage import csi, volume

EBS: dict[str, Any] = {"awsElasticBlockStore": {"volumeID": "vol-1"}}
EBS_ZONE = "topology.ebs.csi.aws.com/zone"
GCE: dict[str, Any] = {"gcePersistentDisk": {"pdName": "d"}}
DISKS = "projects/UNSPECIFIED"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (EBS, ("ebs.csi.aws.com", "vol-1")),
        ({"awsElasticBlockStore": {"volumeID": "aws://us-east-1a/vol-1"}}, ("ebs.csi.aws.com", "vol-1")),
        ({"awsElasticBlockStore": {"volumeID": "aws:///vol-1"}}, ("ebs.csi.aws.com", "vol-1")),
        (GCE, ("pd.csi.storage.gke.io", f"{DISKS}/zones/UNSPECIFIED/disks/d")),
        ({"azureDisk": {"diskURI": "/d"}}, ("disk.csi.azure.com", "/d")),
        ({"azureDisk": {"diskURI": "/d", "kind": "Managed"}}, ("disk.csi.azure.com", "/d")),
        ({"cinder": {"volumeID": "c"}}, ("cinder.csi.openstack.org", "c")),
        ({"portworxVolume": {"volumeID": "p"}}, ("pxd.portworx.com", "p")),
        ({"azureFile": {"shareName": "s"}}, None),
        ({"vsphereVolume": {"volumePath": "v"}}, None),
        ({"emptyDir": {}}, None),
    ],
)
def test_volumes_in_a_pod_s_spec(source: dict[str, Any], expected: tuple[str, str] | None) -> None:
    found = inline_volume({"name": "v", **source})
    assert found == (None if expected is None else Attachable(*expected, in_tree=True))
    assert attachable_volume(volume("v", **source)) == found


@pytest.mark.parametrize(
    "source",
    [
        {"awsElasticBlockStore": {"volumeID": "aws://us-east-1a/disk-1"}},
        {"awsElasticBlockStore": {"volumeID": "aws://"}},
        {"azureDisk": {"diskURI": "/d", "kind": "Dedicated"}},
    ],
)
def test_what_the_driver_has_no_word_for(source: dict[str, Any]) -> None:
    with pytest.raises(UntranslatableVolume):
        inline_volume(source)
    assert attachable_volume(volume("v", **source)) is None
    with pytest.raises(UntranslatableVolume):
        translated_affinity(volume("v", **source))


@pytest.mark.parametrize(
    ("labels", "place"),
    [
        ({ZONE: "us-1-a"}, "zones/us-1-a"),
        ({OLD_ZONE: "us-1-a", ZONE: "us-1-b"}, "zones/us-1-a"),
        ({ZONE: "us-1-a__us-1-b"}, "regions/us-1"),
    ],
)
def test_a_gce_disk_s_handle_says_where_it_is(labels: dict[str, str], place: str) -> None:
    found = attachable_volume(volume("v", labels=labels, **GCE))
    assert found == ("pd.csi.storage.gke.io", f"{DISKS}/{place}/disks/d", True)


@pytest.mark.parametrize("zones", ["us-1-a__eu-1-a", "us-1-a__b"])
def test_a_gce_disk_in_no_one_region(zones: str) -> None:
    disk = volume("v", labels={ZONE: zones}, **GCE)
    assert attachable_volume(disk) is None
    with pytest.raises(UntranslatableVolume):
        translated_affinity(disk)


def test_volumes_of_csi_drivers_are_themselves() -> None:
    assert attachable_volume(volume("v", **csi("d", "h"))) == Attachable("d", "h")
    assert attachable_volume(volume("v", csi={"driver": "d"})) is None
    assert attachable_volume(volume("v", hostPath={"path": "/"})) is None


Terms = list[list[tuple[str, list[str]]]]


def affinity(terms: Terms) -> dict[str, Any]:
    expressions = [
        {"matchExpressions": [{"key": k, "operator": "In", "values": v} for k, v in term]} for term in terms
    ]
    return {"nodeAffinity": {"required": {"nodeSelectorTerms": expressions}}} if terms else {}


def terms_of(selector: NodeSelector | None) -> Terms | None:
    if selector is None:
        return None
    return [
        [(r.key, list(r.values or ())) for r in term.match_expressions or ()]
        for term in selector.node_selector_terms or ()
    ]


@pytest.mark.parametrize(
    ("terms", "labels", "expected"),
    [
        ([], {}, None),
        ([[(ZONE, ["a"])]], {}, [[(EBS_ZONE, ["a"])]]),
        ([[(OLD_ZONE, ["a"]), (OLD_REGION, ["r"])]], {}, [[(EBS_ZONE, ["a"]), (REGION, ["r"])]]),
        ([[(ZONE, ["a"]), (REGION, ["r"])]], {}, [[(EBS_ZONE, ["a"]), (REGION, ["r"])]]),
        ([[(ZONE, ["a"])], [("x", ["y"])]], {ZONE: "b"}, [[(EBS_ZONE, ["a"])], [("x", ["y"])]]),
        ([[("x", ["y"])], [("x", ["z"])]], {ZONE: "b__ a"}, None),
        ([], {ZONE: "b__a"}, [[(EBS_ZONE, ["a", "b"])]]),
        ([], {OLD_ZONE: "a"}, [[(EBS_ZONE, ["a"])]]),
        ([], {ZONE: "__"}, None),
    ],
)
def test_the_zone_under_the_driver_s_own_key(terms: Terms, labels: dict[str, str], expected: Terms) -> None:
    if terms and expected is None:
        expected = [[*term, (EBS_ZONE, ["a", "b"])] for term in terms]
    found = translated_affinity(volume("v", labels=labels, **EBS, **affinity(terms)))
    assert terms_of(found) == expected


def test_drivers_without_zones_keep_the_affinity() -> None:
    disk = volume("v", zone="a", azureDisk={"diskURI": "/d"})
    assert terms_of(translated_affinity(disk)) == [[(ZONE, ["a"])]]
