"""Binds that race with another scheduler's, between engine and writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from scheduler.core.pod_info import PodInfo
from scheduler.core.races import VERDICT_AFTER_S
from scheduler.kube.binding import Bound
from tests.builders import PodBuilder, make_node, make_pod
from tests.unit.test_loop import UID, Running, settle, start
from tests.unit.virtual_time import in_virtual_time

OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": "1", "controller": True}


def theirs() -> PodBuilder:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}
    pod = make_pod("theirs").scheduler("another").req(memory="1Gi").on("n")
    return pod.status(conditions=[scheduled])


async def one_bind(*owners: dict[str, object]) -> Running:
    """Our pod is being bound to the only node."""
    running = await start()
    running.nodes.upsert(make_node("n").allocatable(memory="1Gi").obj())
    running.add(make_pod().req(memory="1Gi").owners(*owners))
    await settle()
    assert running.bound_to == {"pod": "n"}
    return running


def race(running: Running, *owners: dict[str, object]) -> None:
    """The other's bind is seen, and then ours, which was later."""
    running.add(theirs())
    running.loop.on_bound(UID, Bound("n"))
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:07Z"}
    running.add(make_pod().req(memory="1Gi").owners(*owners).on("n").status(conditions=[scheduled]))


@in_virtual_time
async def test_a_bind_that_was_not_sent_is_taken_back() -> None:
    running = await one_bind()
    running.writer.unsent = {UID}
    running.add(theirs())
    assert running.loop.binds_under_way == 0
    assert UID not in running.engine.state.pods
    assert running.metric("wholepod_bind_races_total", outcome="recalled") == 1


@pytest.mark.parametrize("owners", [(OWNER,), ()])
@in_virtual_time
async def test_a_bind_that_was_done_is_undone_if_the_pod_has_a_controller(
    owners: tuple[dict[str, object], ...],
) -> None:
    running = await one_bind(*owners)
    deleted: list[tuple[str, str]] = []

    async def delete(info: PodInfo, node: str, message: str, is_wanted: Callable[[], bool]) -> None:
        deleted.append((info.uid, node))

    racing = asyncio.create_task(running.loop.racing.run(delete))
    race(running, *owners)
    await asyncio.sleep(VERDICT_AFTER_S + 1.0)
    assert deleted == ([(UID, "n")] if owners else [])
    outcome = "undone" if owners else "left"
    assert running.metric("wholepod_bind_races_total", outcome=outcome) == 1
    assert not racing.done()
    racing.cancel()


@in_virtual_time
async def test_nothing_is_undone_on_a_picture_that_may_be_old() -> None:
    running = await one_bind(OWNER)
    deleted: list[str] = []

    async def delete(info: PodInfo, node: str, message: str, is_wanted: Callable[[], bool]) -> None:
        deleted.append(info.uid)

    racing = asyncio.create_task(running.loop.racing.run(delete))
    race(running, OWNER)
    running.may_decide = False  # a watch has ended, or the lease is another's
    await asyncio.sleep(VERDICT_AFTER_S + 1.0)
    running.pods.delete(theirs().obj())
    running.may_decide = True
    await asyncio.sleep(VERDICT_AFTER_S + 1.0)
    assert deleted == []
    racing.cancel()


@in_virtual_time
async def test_a_deletion_is_not_wanted_any_more_once_there_is_room() -> None:
    running = await one_bind(OWNER)
    wanted: list[bool] = []

    async def delete(info: PodInfo, node: str, message: str, is_wanted: Callable[[], bool]) -> None:
        wanted.append(is_wanted())
        running.pods.delete(theirs().obj())
        wanted.append(is_wanted())

    racing = asyncio.create_task(running.loop.racing.run(delete))
    race(running, OWNER)
    await asyncio.sleep(VERDICT_AFTER_S + 1.0)
    assert wanted == [True, False]
    racing.cancel()
