"""Pods with volumes in the scheduling loop, in virtual time: between their decision and their bind."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.api_objects import PersistentVolume, PersistentVolumeClaim
from scheduler.core.volumes.plan import SELECTED_NODE
from scheduler.kube.binding import Bound, Refused
from scheduler.kube.volume_writes import NotWritten, Written
from scheduler.loop import MAX_BINDS_UNDER_WAY
from tests.builders import make_node, make_pod
from tests.unit.storage import claim, claim_ref, storage_class, volume, with_claims
from tests.unit.test_loop import Running, settle, start
from tests.unit.virtual_time import in_virtual_time

UID = "uid-of-default/pod"
FAILED = 'running PreBind plugin "VolumeBinding": '


async def placed(pod: str = "pod") -> Running:
    """A pod that takes half of node `n` waits for a volume to be made."""
    running = await start()
    host = {"kubernetes.io/hostname": "n"}
    running.nodes.upsert(make_node("n").labels(host).allocatable(memory="4Gi").obj())
    running.see(storage_class(provisioner="example.com/made"), claim("data"))
    running.add(with_claims(pod, "data").req(memory="2Gi"))
    await settle()
    return running


def written(running: Running) -> None:
    running.volumes.on_written(UID, Written({(PersistentVolumeClaim, "default/data"): "2"}))
    running.see(claim("data", version="2", annotations={SELECTED_NODE: "n"}))


def provisioned(running: Running) -> None:
    running.see(
        volume("made", node="n", claimRef=claim_ref("data", "uid-data")),
        claim("data", version="3", volume="made", annotations={SELECTED_NODE: "n"}),
    )


@in_virtual_time
async def test_the_bind_comes_after_the_volumes() -> None:
    running = await placed()
    [request] = running.writer.volumes
    assert (request.uid, request.plan.node, request.plan.timeout_s) == (UID, "n", 600)
    [patch] = running.writer.patches
    assert (patch.nominated_node, patch.condition) == ("n", None)
    written(running)
    assert (running.writer.binds, running.loop.waiting_for_volumes) == ([], 1)
    provisioned(running)
    assert running.bound_to == {"pod": "n"}
    assert (running.loop.waiting_for_volumes, running.loop.binds_under_way) == (0, 1)
    running.loop.on_bound(UID, Bound("n"))
    assert running.writer.notes == ["Successfully assigned default/pod to n"]


@in_virtual_time
async def test_bound_claims_need_no_plan() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.see(volume("pv", claimRef=claim_ref("data", "uid-data")), claim("data", volume="pv"))
    running.add(with_claims("pod", "data"))
    await settle()
    assert running.bound_to == {"pod": "n"}
    assert (running.writer.volumes, running.writer.patches) == ([], [])


@pytest.mark.parametrize("how", ["refused", "failed", "too late"])
@in_virtual_time
async def test_a_failure_gives_the_room_back_and_tries_again(how: str) -> None:
    running = await placed()
    if how == "refused":
        running.volumes.on_written(UID, NotWritten("not so"))
        text = "not so"
    else:
        written(running)
        if how == "failed":
            running.see(claim("data", version="3"))
            text = 'binding volumes: provisioning failed for PVC "data"'
        else:
            await asyncio.sleep(601)
            text = "binding volumes: context deadline exceeded"
    assert running.writer.notes == [FAILED + text]
    condition = running.writer.patches[-1].condition
    assert condition is not None
    assert (condition.reason, condition.message) == ("SchedulerError", FAILED + text)
    assert running.writer.patches[-1].nominated_node == ""
    assert running.engine.state.assumed_count == 0
    assert running.metric("scheduler_volume_scheduling_stage_error_total", operation="bind") == 1
    labels = {"result": "error", "profile": "wholepod"}
    assert running.metric("scheduler_schedule_attempts_total", **labels) == 1
    await asyncio.sleep(1.5)
    assert len(running.writer.volumes) == 2


@in_virtual_time
async def test_a_refused_bind_finds_the_volumes_ready() -> None:
    running = await placed()
    written(running)
    provisioned(running)
    running.loop.on_bound(UID, Refused("not today"))
    await asyncio.sleep(1.5)
    assert len(running.writer.binds) == 2
    assert len(running.writer.volumes) == 1


@in_virtual_time
async def test_pods_that_wait_hold_their_room_and_hinder_nobody() -> None:
    running = await placed()
    running.nodes.upsert(make_node("big").labels({"size": "big"}).allocatable(pods="10000").obj())
    running.see(*(claim(f"data-{i}") for i in range(MAX_BINDS_UNDER_WAY + 10)))
    for i in range(MAX_BINDS_UNDER_WAY + 10):
        running.add(with_claims(f"waits-{i}", f"data-{i}").selector({"size": "big"}))
    await settle()
    assert running.loop.waiting_for_volumes == MAX_BINDS_UNDER_WAY + 11
    running.add(make_pod("too-much").pinned_to("n").req(memory="3Gi"))
    running.add(make_pod("fits").pinned_to("n").req(memory="2Gi"))
    await settle()
    assert running.bound_to == {"fits": "n"}


@in_virtual_time
async def test_a_pod_that_waits_takes_its_room_once() -> None:
    running = await placed()
    # What we have written comes back by the watch; the room is assumed already.
    running.add(with_claims("pod", "data").req(memory="2Gi").status(nominatedNodeName="n"))
    running.add(make_pod("fits").req(memory="2Gi"))
    await settle()
    assert running.bound_to == {"fits": "n"}


@in_virtual_time
async def test_a_volume_that_is_promised_is_not_promised_again() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.see(storage_class(), volume("pv"), claim("data"), claim("other"))
    running.add(with_claims("pod", "data"), with_claims("late", "other"))
    await settle()
    assert [request.uid for request in running.writer.volumes] == [UID]
    assert "1 node(s) didn't find available persistent volumes to bind" in running.writer.notes[0]
    # The promise is void: the other pod may have it now.
    running.pods.delete(with_claims("pod", "data").obj())
    assert running.writer.cancelled_volumes == [UID]
    await asyncio.sleep(1.5)
    assert [request.uid for request in running.writer.volumes] == [UID, "uid-of-default/late"]


@pytest.mark.parametrize("first_fails", [False, True])
@in_virtual_time
async def test_pods_that_share_a_claim_each_see_to_its_volume(first_fails: bool) -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.see(storage_class(), volume("pv"), claim("data"))
    running.add(with_claims("pod", "data"), with_claims("twin", "data"))
    await settle()
    # The second can't rely on the first.
    assert [request.plan.bindings[0].is_written for request in running.writer.volumes] == [False, False]
    second = "uid-of-default/twin"
    if first_fails:
        running.pods.delete(with_claims("pod", "data").obj())
    else:
        running.volumes.on_written(UID, Written({(PersistentVolume, "pv"): "2"}))
    running.volumes.on_written(second, Written({(PersistentVolume, "pv"): "2"}))
    running.see(volume("pv", version="2", claimRef=claim_ref("data", "uid-data")))
    running.see(claim("data", version="3", volume="pv"))
    assert running.bound_to == ({} if first_fails else {"pod": "n"}) | {"twin": "n"}
    assert running.writer.notes == []


@pytest.mark.parametrize("how", ["deleted", "not listed"])
@in_virtual_time
async def test_a_pod_that_vanishes_while_it_waits(how: str) -> None:
    running = await placed()
    written(running)
    if how == "deleted":
        running.pods.delete(with_claims("pod", "data").obj())
    else:
        running.pods.replace([])
    provisioned(running)
    await asyncio.sleep(700)
    assert (running.writer.binds, running.writer.notes) == ([], [])
    assert (running.loop.waiting_for_volumes, running.engine.state.assumed_count) == (0, 0)


@pytest.mark.parametrize("how", ["seen", "listed"])
@in_virtual_time
async def test_a_pod_that_somebody_else_binds_while_it_waits(how: str) -> None:
    running = await placed()
    bound = with_claims("pod", "data").req(memory="2Gi").on("n").obj()
    if how == "seen":
        running.pods.upsert(bound)
    else:
        running.pods.replace([bound])
    assert running.writer.cancelled_volumes == [UID]
    await asyncio.sleep(700)
    assert (running.writer.binds, running.writer.notes) == ([], [])
    assert list(running.engine.state.pods) == [UID]


@in_virtual_time
async def test_a_node_that_goes_takes_the_plan_with_it() -> None:
    running = await placed()
    written(running)
    running.nodes.delete(make_node("n").obj())
    assert running.writer.notes == [FAILED + 'binding volumes: failed to get node "n": node "n" not found']


@in_virtual_time
async def test_lists_after_a_gap_tell_as_much_as_events() -> None:
    running = await placed()
    written(running)
    made = volume("made", node="n", claimRef=claim_ref("data", "uid-data"))
    running.loop.replace_objects(PersistentVolume, [made])
    bound = claim("data", version="3", volume="made", annotations={SELECTED_NODE: "n"})
    running.loop.replace_objects(PersistentVolumeClaim, [bound])
    assert running.bound_to == {"pod": "n"}


@in_virtual_time
async def test_stopping_leaves_the_rest_to_the_next_process() -> None:
    running = await placed()
    running.may_decide = False
    running.loop.stop_waiting_for_volumes()
    assert running.writer.cancelled_volumes == [UID]
    provisioned(running)
    assert (running.writer.binds, running.loop.waiting_for_volumes) == ([], 0)


@pytest.mark.parametrize("its_volumes", ["wait", "are ready"])
@in_virtual_time
async def test_a_victim_that_is_not_bound_yet_is_taken_back(its_volumes: str) -> None:
    running = await placed()
    if its_volumes == "are ready":
        written(running)
        provisioned(running)
        running.writer.unsent = {UID}
    assert running.loop._recall_bind(UID)
    assert running.writer.cancelled_volumes == ([UID] if its_volumes == "wait" else [])
    assert (running.loop.binds_under_way, running.loop.waiting_for_volumes) == (0, 0)
    assert running.writer.patches[-1].nominated_node == ""
    assert running.engine.state.assumed_count == 0
    assert not running.loop._recall_bind(UID)
    await asyncio.sleep(1.5)
    assert len(running.writer.volumes if its_volumes == "wait" else running.writer.binds) == 2
