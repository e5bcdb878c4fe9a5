"""The scheduling loop between engine and writer, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from scheduler.api import Pod
from scheduler.api_objects import ClusterObject
from scheduler.core.engine import Engine
from scheduler.core.queue import SchedulingQueue
from scheduler.kube.binding import Bound, BoundElsewhere, Gone, Refused
from scheduler.kube.reports import PodReports
from scheduler.kube.volume_binder import VolumeBinder
from scheduler.loop import MAX_BINDS_UNDER_WAY, NodeHandler, PodHandler, SchedulingLoop
from scheduler.observe.metrics import Metrics
from tests.builders import PodBuilder, make_node, make_pod, make_profile
from tests.unit.groups import Groups
from tests.unit.recorder import Recorder
from tests.unit.virtual_time import in_virtual_time


class Running:
    """A loop that runs as a task, with what it talks to."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or asyncio.get_running_loop().time
        self.task: asyncio.Task[None] | None = None
        self.may_decide = True
        self.first_turns = 0
        self.engine = Engine([make_profile()], clock=self.clock, queue=SchedulingQueue(self.clock))
        self.metrics = Metrics()
        self.loop = SchedulingLoop(
            self.engine,
            self.metrics,
            may_decide=lambda: self.may_decide,
            on_first_turn=self._on_first_turn,
            clock=self.clock,
        )
        self.writer = Recorder()
        writer = self.writer.as_writer
        self.volumes = VolumeBinder(
            self.engine.state.nodes,
            writer,
            on_bound=self.loop.on_volumes_bound,
            on_failed=self.loop.on_volumes_failed,
        )
        self.groups = Groups()
        self.loop.connect(writer, PodReports(writer, clock=self.clock), self.volumes, self.groups)
        self.pods, self.nodes = PodHandler(self.loop), NodeHandler(self.loop)

    def _on_first_turn(self) -> None:
        self.first_turns += 1

    def add(self, *pods: PodBuilder) -> None:
        for pod in pods:
            self.pods.upsert(pod.obj())

    def see(self, *items: ClusterObject) -> None:
        """What else is watched."""
        for item in items:
            self.loop.upsert_object(item)

    @property
    def bound_to(self) -> dict[str, str]:
        return {bind.name: bind.node for bind in self.writer.binds}

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def settle() -> None:
    """Lets all tasks run until they wait for something."""
    for _ in range(20):
        await asyncio.sleep(0)


async def start() -> Running:
    """The task ends with the test's event loop."""
    running = Running()
    running.task = asyncio.create_task(running.loop.run())
    await settle()
    return running


UID = "uid-of-default/pod"


@in_virtual_time
async def test_a_pod_is_bound_and_its_owner_told() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.add(make_pod())
    await settle()
    [bind] = running.writer.binds
    assert (bind.namespace, bind.name, bind.uid, bind.node) == ("default", "pod", UID, "n")
    assert running.writer.events == []
    assert running.loop.binds_under_way == 1
    running.loop.on_bound(UID, Bound("n"))
    [event] = running.writer.events
    assert (event.type, event.reason, event.action) == ("Normal", "Scheduled", "Binding")
    assert event.note == "Successfully assigned default/pod to n"
    assert running.loop.binds_under_way == 0
    labels = {"result": "scheduled", "profile": "wholepod"}
    assert running.metric("scheduler_schedule_attempts_total", **labels) == 1
    assert running.metric("wholepod_binds_total", outcome="Bound") == 1


@in_virtual_time
async def test_it_waits_for_nothing_but_events() -> None:
    running = await start()
    before = running.clock()
    running.nodes.upsert(make_node("n").obj())
    for i in range(50):
        running.add(make_pod(f"p{i}"))
        await settle()
        assert len(running.writer.binds) == i + 1
    assert running.clock() == before


@in_virtual_time
async def test_a_pod_that_fits_nowhere() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").cordoned().obj())
    running.add(make_pod())
    await settle()
    [event], [patch] = running.writer.events, running.writer.patches
    text = (
        "0/1 nodes are available: 1 node(s) were unschedulable. "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    assert (event.type, event.reason, event.note) == ("Warning", "FailedScheduling", text)
    assert patch.condition is not None
    assert (patch.condition.reason, patch.condition.message) == ("Unschedulable", text)
    running.nodes.upsert(make_node("n").obj())
    await asyncio.sleep(1.5)
    assert running.bound_to == {"pod": "n"}


@in_virtual_time
async def test_backoff_ends_without_any_event() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.add(make_pod())
    await settle()
    started = running.clock()
    running.loop.on_bound(UID, Refused("not today"))
    assert running.writer.notes == ["binding rejected: not today"]
    [patch] = running.writer.patches
    assert patch.condition is not None
    assert patch.condition.reason == "SchedulerError"
    await asyncio.sleep(0.9)
    assert len(running.writer.binds) == 1
    await asyncio.sleep(0.2)
    assert len(running.writer.binds) == 2
    assert running.clock() - started < 1.2
    labels = {"result": "error", "profile": "wholepod"}
    assert running.metric("scheduler_schedule_attempts_total", **labels) == 1


@in_virtual_time
async def test_sleepers_are_tried_after_five_minutes() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").cordoned().obj())
    running.add(make_pod())
    await settle()
    await asyncio.sleep(299)
    assert len(running.writer.notes) == 1
    await asyncio.sleep(2)
    assert len(running.writer.notes) == 2


@in_virtual_time
async def test_bound_elsewhere_or_gone_is_the_end_of_it() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.add(make_pod("a"), make_pod("b"))
    await settle()
    running.loop.on_bound("uid-of-default/a", BoundElsewhere("m"))
    running.loop.on_bound("uid-of-default/b", Gone())
    await asyncio.sleep(600)
    assert (len(running.writer.binds), running.writer.events) == (2, [])
    assert running.engine.state.assumed_count == 0
    assert running.metric("wholepod_binds_total", outcome="BoundElsewhere") == 1
    assert running.metric("wholepod_binds_total", outcome="Gone") == 1


@in_virtual_time
async def test_terminating_pods_get_an_event_and_no_condition() -> None:
    running = await start()
    running.may_decide = False
    running.add(make_pod())
    running.add(make_pod().terminating())
    running.may_decide = True
    running.loop.wake()
    await settle()
    assert running.writer.notes == ["skip schedule deleting pod: default/pod"]
    assert running.writer.patches == []


@in_virtual_time
async def test_it_decides_only_while_it_may() -> None:
    running = await start()
    running.may_decide = False
    running.nodes.upsert(make_node("n").obj())
    running.add(make_pod())
    await asyncio.sleep(10)
    assert (running.writer.binds, running.first_turns) == ([], 1)
    running.may_decide = True
    running.pods.on_sync_changed(True)
    await settle()
    assert running.bound_to == {"pod": "n"}
    assert running.first_turns == 1


@in_virtual_time
async def test_the_first_turn_is_announced_before_the_first_decision() -> None:
    running = Running()
    running.may_decide = False
    running.nodes.upsert(make_node("n").obj())
    running.add(make_pod())
    async with asyncio.timeout(60):
        task = asyncio.create_task(running.loop.run())
        await asyncio.sleep(5)
        assert running.first_turns == 0
        running.may_decide = True
        running.nodes.on_sync_changed(True)
        await settle()
        assert (running.first_turns, len(running.writer.binds)) == (1, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_no_more_binds_at_once_than_their_limit() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").allocatable(pods="10000").obj())
    running.add(*(make_pod(f"p{i}") for i in range(MAX_BINDS_UNDER_WAY + 5)))
    await settle()
    assert len(running.writer.binds) == running.loop.binds_under_way == MAX_BINDS_UNDER_WAY
    for bind in running.writer.binds[:3]:
        running.loop.on_bound(bind.uid, Bound("n"))
    await settle()
    assert len(running.writer.binds) == MAX_BINDS_UNDER_WAY + 3


@in_virtual_time
async def test_others_get_their_turn_while_it_decides() -> None:
    now = 0.0

    def slow_clock() -> float:
        nonlocal now
        now += 0.004
        return now

    running = Running(slow_clock)
    running.nodes.upsert(make_node("n").obj())
    running.add(*(make_pod(f"p{i}") for i in range(30)))
    task = asyncio.create_task(running.loop.run())
    turns = 0
    while len(running.writer.binds) < 30:
        turns += 1
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turns > 10


@in_virtual_time
async def test_the_loop_shows_that_it_is_alive() -> None:
    running = await start()
    for _ in range(5):
        await asyncio.sleep(7)
        assert running.clock() - running.loop.last_turn_at <= 1


# ---- what the watches say


@pytest.mark.parametrize("how", ["deleted", "not listed"])
@in_virtual_time
async def test_the_bind_of_a_pod_that_vanished_is_cancelled(how: str) -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.add(make_pod(), make_pod("other"))
    await settle()
    if how == "deleted":
        running.pods.delete(make_pod().obj())
    else:
        running.pods.replace([make_pod("other").obj()])
    assert running.writer.cancelled == [UID]
    assert running.loop.binds_under_way == 1
    assert list(running.engine.state.pods) == ["uid-of-default/other"]


@in_virtual_time
async def test_the_watch_may_be_faster_than_the_answer() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").obj())
    running.add(make_pod())
    await settle()
    running.add(make_pod().on("n"))
    running.loop.on_bound(UID, Bound("n"))
    assert running.writer.notes == ["Successfully assigned default/pod to n"]
    assert running.engine.state.assumed_count == 0


@pytest.mark.parametrize("how", ["modified", "listed"])
@in_virtual_time
async def test_nobody_has_to_leave_for_a_pod_that_somebody_else_has_bound(how: str) -> None:
    running = await start()
    running.writer.held = []
    running.nodes.upsert(make_node("n").allocatable(pods="1").obj())
    low = make_pod("low").on("n").obj()
    running.pods.upsert(low)
    running.add(make_pod().priority(100))
    await settle()
    [nomination] = running.writer.held
    bound = make_pod().priority(100).on("m").obj()
    if how == "modified":
        running.pods.upsert(bound)
    else:
        running.pods.replace([low, bound])
    nomination()
    assert running.writer.deletions == []


@in_virtual_time
async def test_a_pod_that_left_makes_room() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").allocatable(pods="1").obj())
    running.add(make_pod("there").on("n"), make_pod())
    await settle()
    assert running.bound_to == {}
    running.pods.delete(make_pod("there").on("n").phase("Succeeded").obj())
    await asyncio.sleep(1.5)
    assert running.bound_to == {"pod": "n"}


@in_virtual_time
async def test_objects_that_cannot_be_read_are_skipped_and_counted() -> None:
    running = await start()
    bad_pod, bad_node = make_pod("bad").req(cpu="lots").obj(), make_node("bad").allocatable(cpu="lots").obj()
    running.pods.upsert(bad_pod)
    running.pods.replace([bad_pod, make_pod().obj()])
    running.nodes.upsert(bad_node)
    running.nodes.replace([bad_node, make_node("n").obj()])
    await settle()
    assert running.bound_to == {"pod": "n"}
    assert running.metric("wholepod_unreadable_objects_total", resource="pods") == 2
    assert running.metric("wholepod_unreadable_objects_total", resource="nodes") == 2


@in_virtual_time
async def test_a_node_that_left_takes_no_pods() -> None:
    running = await start()
    running.nodes.replace([make_node("n").obj(), make_node("m").obj()])
    running.nodes.delete(make_node("n").obj())
    running.add(*(make_pod(f"p{i}") for i in range(5)))
    await settle()
    assert set(running.bound_to.values()) == {"m"}


@in_virtual_time
async def test_churn_leaves_nothing_behind() -> None:
    running = await start()
    running.nodes.upsert(make_node("n").cordoned().obj())

    def pod(i: int) -> Pod:
        return make_pod(f"p{i}").obj()

    for i in range(100):
        running.pods.upsert(pod(i))
    await settle()
    for i in range(50):
        running.pods.delete(pod(i))
    running.pods.replace([])
    assert list(running.engine.queue) == []
    assert running.loop._reports._event_at == {}
