"""Objects that are seen otherwise than observed, for a while."""

from __future__ import annotations

from typing import Any

from scheduler.api_objects import ClusterObject, PersistentVolume, PersistentVolumeClaim
from scheduler.core.objects import ClusterObjects
from tests.unit.storage import claim, claim_ref, volume

PLAIN, PROMISED = volume("v"), volume("v", claimRef=claim_ref("c"))


def objects_with(*items: ClusterObject) -> ClusterObjects:
    objects = ClusterObjects()
    for item in items:
        objects.upsert(item)
    return objects


def test_what_is_assumed_is_seen_everywhere_but_not_as_observed() -> None:
    objects = objects_with(PLAIN, volume("w"))
    before = objects.version(PersistentVolume)
    objects.assume(PROMISED, owner="pod")
    assert objects.get(PersistentVolume, "v") is PROMISED
    assert PROMISED in objects.all(PersistentVolume)
    assert PROMISED in objects.in_namespace(PersistentVolume, "")
    assert len(objects.all(PersistentVolume)) == 2
    assert objects.observed(PersistentVolume, "v") is PLAIN
    assert objects.version(PersistentVolume) > before


def test_it_can_be_taken_back_by_whose_it_is() -> None:
    objects = objects_with(PLAIN, claim("c"))
    objects.assume(PROMISED, owner="pod")
    assert objects.restore("another") == frozenset()
    assert objects.get(PersistentVolume, "v") is PROMISED
    before = objects.version(PersistentVolume)
    assert objects.restore("pod") == {PersistentVolume}
    assert objects.get(PersistentVolume, "v") is PLAIN
    assert objects.version(PersistentVolume) > before
    assert objects.restore("pod") == frozenset()


def test_news_of_the_object_end_it() -> None:
    news = volume("v", size="2Gi", version="2")
    for end in ("upsert", "replace", "remove"):
        objects = objects_with(PLAIN)
        objects.assume(PROMISED, owner="pod")
        match end:
            case "upsert":
                objects.upsert(news)
            case "replace":
                objects.replace(PersistentVolume, [news])
            case "remove":
                objects.remove(PersistentVolume, PLAIN.metadata)
        expected = None if end == "remove" else news
        assert objects.get(PersistentVolume, "v") is expected
        assert objects.restore("pod") == frozenset()


def test_a_new_version_without_news_does_not() -> None:
    objects = objects_with(PLAIN)
    objects.assume(PROMISED, owner="pod")
    objects.upsert(volume("v", version="2"))
    assert objects.get(PersistentVolume, "v") is PROMISED
    objects.restore("pod")
    seen = objects.get(PersistentVolume, "v")
    assert seen is not None
    assert seen.metadata.resource_version == "2"


def test_listeners_hear_of_each_step() -> None:
    objects, heard = ClusterObjects(), list[tuple[Any, Any]]()
    objects.listen(PersistentVolume, lambda before, after: heard.append((before, after)))
    objects.upsert(PLAIN)
    objects.upsert(PLAIN)
    objects.upsert(claim("c"))
    objects.assume(PROMISED, owner="pod")
    objects.restore("pod")
    objects.assume(PROMISED, owner="pod")
    objects.remove(PersistentVolume, PLAIN.metadata)
    steps = [(None, PLAIN), (PLAIN, PROMISED), (PROMISED, PLAIN), (PLAIN, PROMISED), (PROMISED, None)]
    assert heard == steps
    assert objects.get(PersistentVolumeClaim, "c", "default") is not None
