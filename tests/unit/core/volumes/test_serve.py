"""Which volumes a pod's claims get on each node."""

from __future__ import annotations

import random

import pytest

from scheduler.api_objects import PersistentVolume, PersistentVolumeClaim
from scheduler.core.nodes import NodeView
from scheduler.core.volumes.pod_volumes import ClaimUse
from scheduler.core.volumes.serve import Service, serve
from tests.unit.plugins.storing import view_of, zoned
from tests.unit.storage import claim, storage_class, volume

ZONES = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}


def served(nodes: NodeView, claims: list[PersistentVolumeClaim]) -> Service:
    return serve(tuple(ClaimUse("default", c.metadata.name) for c in claims), nodes)


def choices(service: Service, row: int) -> dict[str, str]:
    """Claim → volume on the node of this row."""
    return {
        match.claim.metadata.name: match.volumes[match.choice[row]].name
        for match in service.matches
        if match.choice[row] >= 0
    }


@pytest.mark.parametrize("seed", range(30))
def test_each_claim_gets_the_smallest_volume_that_is_left(seed: int) -> None:
    """As if each node was looked at by itself."""
    rng = random.Random(seed)
    sizes = {f"c{k}": rng.randint(1, 4) for k in range(rng.randint(1, 6))}
    there = {
        f"v{k:02}": (rng.randint(1, 4), rng.choice(["", "a", "b", "c"])) for k in range(rng.randint(0, 12))
    }
    claims = [claim(name, size=f"{size}Gi") for name, size in sizes.items()]
    volumes = [volume(name, size=f"{size}Gi", zone=zone) for name, (size, zone) in there.items()]
    nodes = view_of(storage_class(), *claims, *volumes, nodes=zoned(**ZONES))
    service = served(nodes, claims)
    for row, zone in enumerate(ZONES.values()):
        left = sorted((size, name) for name, (size, place) in there.items() if place in ("", zone))
        expected = {}
        for name in sorted(sizes, key=sizes.__getitem__):
            found = next((each for each in left if each[0] >= sizes[name]), None)
            if found is not None:
                left.remove(found)
                expected[name] = found[1]
        assert choices(service, row) == expected


def test_many_claims_and_volumes_are_not_tried_with_one_another() -> None:
    """Which would take minutes, and a pod's author says how many claims there are."""
    claims = [claim(f"c{k}") for k in range(40)]
    free: list[PersistentVolume] = [volume(f"v{k:02}", zone="ab"[k % 2]) for k in range(80)]
    nodes = view_of(storage_class(), *claims, *free)
    service = served(nodes, claims)
    assert not service.bits.any()
    assert all(len(match.volumes) == 2 for match in service.matches)


def test_of_large_sets_of_claims_one_answer_is_kept() -> None:
    claims = [claim(f"c{k}") for k in range(20)]
    nodes = view_of(storage_class(provisioner="d"), *claims)
    first = served(nodes, claims)
    assert served(nodes, claims) is first
    nodes.cluster.upsert(claim("other"))
    assert served(nodes, claims) is not first
    latest = served(nodes, claims)
    served(nodes, claims[1:])
    assert served(nodes, claims) is not latest
