"""Plans for volumes from the decision to the bind, in virtual time; what is watched is told by the tests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import pytest

from scheduler.api_objects import ClusterObject, CSINode, PersistentVolume, PersistentVolumeClaim
from scheduler.core.engine import Engine
from scheduler.core.queue import SchedulingQueue
from scheduler.core.volumes.plan import ObjectVersion, Provisioning, StaticBinding, VolumePlan
from scheduler.kube.volume_binder import VolumeBinder
from scheduler.kube.volume_writes import NotWritten, VolumeRequest, Written
from tests.builders import make_node
from tests.unit.recorder import Recorder
from tests.unit.virtual_time import in_virtual_time

C = TypeVar("C", bound=ClusterObject)
COMPLETED = {"pv.kubernetes.io/bind-completed": "yes"}
FAILED = 'running PreBind plugin "VolumeBinding": '


def build(kind: type[C], name: str, rv: int, *, annotations: Any = None, **fields: Any) -> C:
    namespace, _, name = name.rpartition("/")
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": str(rv)}
    return msgspec.convert({"metadata": {**metadata, "annotations": annotations or {}}, **fields}, kind)


def claim(rv: int, *, volume: str = "", completed: bool = True, selected: str = "") -> PersistentVolumeClaim:
    annotations = {
        **(COMPLETED if volume and completed else {}),
        **({"volume.kubernetes.io/selected-node": selected} if selected else {}),
    }
    return build(
        PersistentVolumeClaim,
        "default/data",
        rv,
        annotations=annotations,
        spec={"volumeName": volume},
    )


def volume(rv: int, name: str = "pv", *, claimed: bool = True, where: str = "z") -> PersistentVolume:
    reference = {"namespace": "default", "name": "data", "uid": "uid-data"} if claimed else None
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": [where]}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    return build(PersistentVolume, name, rv, spec={"claimRef": reference, "nodeAffinity": affinity})


CLAIM = ObjectVersion("data", "uid-data", "10", "default")
BINDING = VolumePlan("n", bindings=(StaticBinding(CLAIM, ObjectVersion("pv", "uid-pv", "11")),))
PROVISIONING = VolumePlan("n", provisions=(Provisioning(CLAIM),))
CLAIM_KEY, VOLUME_KEY = (PersistentVolumeClaim, "default/data"), (PersistentVolume, "pv")


class Binding:
    """A binder, with node `n` in zone z, an unbound claim and a free volume."""

    def __init__(self) -> None:
        self.engine = Engine([], clock=lambda: 0.0, queue=SchedulingQueue(lambda: 0.0))
        self.writer = Recorder()
        self.bound: list[str] = []
        self.failed: dict[str, str] = {}
        self.binder = VolumeBinder(
            self.engine.state.nodes,
            self.writer.as_writer,
            on_bound=self.bound.append,
            on_failed=self._on_failed,
        )
        self.engine.upsert_node(make_node("n").labels({"zone": "z"}).obj())
        self.see(claim(10), volume(11, claimed=False))

    def _on_failed(self, uid: str, message: str) -> None:
        assert uid not in self.failed
        self.failed[uid] = message

    def bind(self, uid: str, plan: VolumePlan) -> None:
        self.binder.bind(VolumeRequest("default", "pod", uid, plan))

    def see(self, *items: ClusterObject) -> None:
        for item in items:
            self.engine.upsert_object(item)
            self.binder.object_changed(item)

    def lose(self, item: ClusterObject) -> None:
        self.engine.remove_object(item)
        self.binder.object_changed(item)

    @property
    def ends(self) -> tuple[list[str], dict[str, str]]:
        return self.bound, self.failed


@in_virtual_time
async def test_a_volume_is_reserved_and_its_claim_bound() -> None:
    b = Binding()
    b.bind("uid", BINDING)
    assert [request.plan for request in b.writer.volumes] == [BINDING]
    b.binder.on_written("uid", Written({VOLUME_KEY: "20"}))
    assert b.ends == ([], {})
    b.see(volume(20))
    assert b.ends == ([], {})
    b.see(claim(21, volume="pv", completed=False))
    assert b.ends == ([], {})
    b.see(claim(22, volume="pv"))
    assert b.ends == (["uid"], {})
    assert len(b.binder) == 0


@in_virtual_time
async def test_a_volume_is_made_and_its_claim_bound() -> None:
    b = Binding()
    b.bind("uid", PROVISIONING)
    b.binder.on_written("uid", Written({CLAIM_KEY: "20"}))
    b.see(claim(20, selected="n"))
    b.see(claim(22, volume="made", selected="n"))
    # The volume's watch is behind the claim's; who it is for is all that tells of it.
    assert b.ends == ([], {})
    b.see(volume(21, "made"))
    assert b.ends == (["uid"], {})


@in_virtual_time
async def test_the_watch_may_be_faster_than_the_answer() -> None:
    b = Binding()
    b.bind("uid", BINDING)
    b.see(volume(20), claim(22, volume="pv"))
    assert b.ends == ([], {})
    b.binder.on_written("uid", Written({VOLUME_KEY: "20"}))
    assert b.ends == (["uid"], {})


@in_virtual_time
async def test_what_the_watch_showed_before_the_write_says_nothing() -> None:
    b = Binding()
    b.bind("uid", PROVISIONING)
    b.binder.on_written("uid", Written({CLAIM_KEY: "100"}))
    b.see(claim(99))  # not "provisioning failed": it has not begun
    assert b.ends == ([], {})
    b.see(claim(100, selected="n"))
    b.see(claim(101))
    assert b.ends == ([], {"uid": FAILED + 'binding volumes: provisioning failed for PVC "data"'})


@in_virtual_time
async def test_nothing_to_write_means_waiting_at_once() -> None:
    b = Binding()
    [binding] = BINDING.bindings
    b.see(volume(12))
    b.bind("uid", VolumePlan("n", (replace(binding, set_claim_ref=False, set_by_controller=False),)))
    assert b.writer.volumes == []
    b.see(claim(13, volume="pv"))
    assert b.bound == ["uid"]


@in_virtual_time
async def test_it_gives_up_in_time() -> None:
    b = Binding()
    b.bind("uid", replace(PROVISIONING, timeout_s=60))
    await asyncio.sleep(500)  # writing may take as long as it takes
    b.binder.on_written("uid", Written({CLAIM_KEY: "20"}))
    b.see(claim(20, selected="n"))
    await asyncio.sleep(59)
    assert b.ends == ([], {})
    await asyncio.sleep(2)
    assert b.failed == {"uid": FAILED + "binding volumes: context deadline exceeded"}
    b.see(claim(22, volume="pv", selected="n"))
    assert b.bound == []


@in_virtual_time
async def test_nothing_is_left_after_the_end() -> None:
    b = Binding()
    b.bind("uid", replace(PROVISIONING, timeout_s=60))
    b.binder.on_written("uid", Written({CLAIM_KEY: "20"}))
    b.see(claim(22, volume="pv", selected="n"), volume(23))
    assert b.bound == ["uid"]
    await asyncio.sleep(600)
    assert b.failed == {}
    assert b.binder._about == {}


@pytest.mark.parametrize("what", ["refused", "reset", "volume gone", "claim gone", "node gone", "moved"])
@in_virtual_time
async def test_each_way_to_fail(what: str) -> None:
    b = Binding()
    b.bind("uid", BINDING)
    expected = ""
    if what == "refused":
        b.binder.on_written("uid", NotWritten("not so"))
        expected = "not so"
    else:
        b.see(volume(20))
        b.binder.on_written("uid", Written({VOLUME_KEY: "20"}))
    match what:
        case "reset":
            b.see(volume(21, claimed=False))
            expected = 'binding volumes: ClaimRef got reset for pv "pv"'
        case "volume gone":
            b.lose(volume(21))
            expected = 'binding volumes: failed to check binding: persistentvolumes "pv" not found'
        case "claim gone":
            b.lose(claim(10))
            expected = (
                'binding volumes: failed to check binding: persistentvolumeclaims "default/data" not found'
            )
        case "node gone":
            b.engine.remove_node("n")
            b.binder.node_changed("n")
            expected = 'binding volumes: failed to get node "n": node "n" not found'
        case "moved":
            b.engine.upsert_node(make_node("n").labels({"zone": "y"}).obj())
            b.binder.node_changed("n")
            expected = (
                'binding volumes: pv "pv" node affinity doesn\'t match node "n": '
                "no matching NodeSelectorTerms"
            )
    assert b.ends == ([], {"uid": FAILED + expected})
    assert b.binder._about == {}


@in_virtual_time
async def test_a_complete_list_is_looked_at_too() -> None:
    b = Binding()
    b.bind("uid", BINDING)
    b.binder.on_written("uid", Written({VOLUME_KEY: "20"}))
    b.engine.replace_objects(PersistentVolume, [volume(20)])
    b.engine.replace_objects(PersistentVolumeClaim, [claim(21, volume="pv")])
    b.binder.everything_changed()
    assert b.bound == ["uid"]


@in_virtual_time
async def test_cancelled_plans_end_silently() -> None:
    b = Binding()
    for uid in ("a", "b", "c"):
        b.bind(uid, replace(PROVISIONING, timeout_s=60))
    b.binder.on_written("b", Written({CLAIM_KEY: "20"}))
    assert b.binder.cancel("a")
    assert not b.binder.cancel("a")
    assert b.writer.cancelled_volumes == ["a"]
    b.binder.cancel_all()
    b.see(claim(22, volume="pv", selected="n"))
    await asyncio.sleep(100)
    assert (b.ends, len(b.binder)) == (([], {}), 0)


@in_virtual_time
async def test_pods_that_share_a_claim_go_together() -> None:
    b = Binding()
    for uid in ("a", "b"):
        b.bind(uid, PROVISIONING)
        b.binder.on_written(uid, Written({CLAIM_KEY: "20"}))
    with pytest.raises(ValueError, match="already"):
        b.bind("a", PROVISIONING)
    b.see(claim(22, volume="pv", selected="n"), volume(23))
    assert b.bound == ["a", "b"]


@in_virtual_time
async def test_only_what_a_plan_is_about_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    b = Binding()
    b.bind("uid", PROVISIONING)
    b.binder.on_written("uid", Written({CLAIM_KEY: "20"}))
    looked: list[str] = []
    monkeypatch.setattr(VolumeBinder, "_look", lambda self, uid, opened: looked.append(uid))
    b.see(build(PersistentVolumeClaim, "default/other", 30), build(PersistentVolumeClaim, "b/data", 30))
    b.see(build(CSINode, "m", 31))
    b.binder.node_changed("m")
    assert looked == []
    b.see(build(CSINode, "n", 32))
    assert looked == ["uid"]
