"""Objects beside nodes and pods: kept by kind and name, with versions that caches can trust."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scheduler.api_objects import ClusterObject, PersistentVolume, PersistentVolumeClaim, Service
from scheduler.core.engine import Engine
from scheduler.core.objects import WAKES, ClusterObjects
from scheduler.core.queue import SchedulingQueue
from scheduler.kube.resources import RESOURCES


def claim(name: str, namespace: str = "a", *, rv: str = "1", **spec: Any) -> PersistentVolumeClaim:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": rv}
    return msgspec.convert({"metadata": metadata, "spec": spec}, PersistentVolumeClaim)


def test_objects_are_found_by_kind_namespace_and_name() -> None:
    objects = ClusterObjects()
    here, there = claim("data"), claim("data", "b")
    for item in (here, there):
        objects.upsert(item)
    assert objects.get(PersistentVolumeClaim, "data", "a") is here
    assert objects.get(PersistentVolumeClaim, "data", "b") is there
    assert objects.get(PersistentVolumeClaim, "data") is None
    assert objects.get(PersistentVolume, "data", "a") is None
    assert list(objects.in_namespace(PersistentVolumeClaim, "b")) == [there]
    assert objects.all(PersistentVolumeClaim) == [here, there]
    assert objects.all(Service) == []


def test_the_version_tells_of_content_only() -> None:
    objects = ClusterObjects()
    assert objects.upsert(claim("data", rv="1"))
    version = objects.version(PersistentVolumeClaim)
    assert not objects.upsert(claim("data", rv="2"))
    assert objects.version(PersistentVolumeClaim) == version
    kept = objects.get(PersistentVolumeClaim, "data", "a")
    assert kept is not None
    assert kept.metadata.resource_version == "2"  # writes are guarded by the newest one
    assert objects.upsert(claim("data", rv="3", volumeName="pv"))
    assert objects.version(PersistentVolumeClaim) > version
    assert objects.version(Service) == 0


def test_a_complete_list_removes_what_is_not_in_it() -> None:
    objects = ClusterObjects()
    objects.replace(PersistentVolumeClaim, [claim("x"), claim("y")])
    before = objects.changes
    assert not objects.replace(PersistentVolumeClaim, [claim("y", rv="7"), claim("x", rv="7")])
    assert objects.changes == before
    assert objects.replace(PersistentVolumeClaim, [claim("y", rv="7")])
    assert [item.metadata.name for item in objects.all(PersistentVolumeClaim)] == ["y"]
    assert objects.replace(PersistentVolumeClaim, [])
    assert objects.all(PersistentVolumeClaim) == []
    assert not objects.remove(PersistentVolumeClaim, claim("y").metadata)


def test_the_engine_takes_them_in() -> None:
    engine = Engine([], clock=lambda: 0.0, queue=SchedulingQueue(lambda: 0.0))
    objects = engine.state.nodes.cluster
    stamp = engine.state.nodes.stamp
    engine.replace_objects(PersistentVolumeClaim, [claim("x")])
    assert engine.state.nodes.stamp != stamp
    engine.upsert_object(claim("y"))
    engine.remove_object(claim("x"))
    assert [item.metadata.name for item in objects.all(PersistentVolumeClaim)] == ["y"]


@pytest.mark.parametrize("kind", RESOURCES)
def test_every_kind_is_decoded_from_its_name_alone(kind: type[ClusterObject]) -> None:
    decoded = msgspec.json.decode(b'{"metadata":{"name":"x"},"kind":"ignored"}', type=kind)
    assert decoded.metadata.name == "x"


def test_kinds_that_wake_can_be_watched() -> None:
    assert set(WAKES) <= set(RESOURCES)
