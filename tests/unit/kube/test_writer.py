"""Binds, status patches and events in the writer."""

import asyncio
from typing import Any

import pytest

from scheduler.kube.binding import BindOutcome, Bound, Gone, Refused
from scheduler.kube.client import KubeClient
from scheduler.kube.writer import Writer, WriterLimits
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until
from tests.unit.kube.writing import Start, add, bind, event, idle, messages, patch


async def test_all_kinds_of_work_are_done(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a", "b")
    w = start()
    w.writer.bind(bind("a"))
    w.writer.patch_status(patch("b"))
    w.writer.post_event(event("a"))
    assert w.writer.pending() == {"bind": 1, "volumes": 0, "delete": 0, "status": 1, "event": 1}
    await until(lambda: idle(w))
    assert w.outcomes == {"uid-a": Bound("n1")}
    assert messages(api) == ["0/1 nodes"]
    assert len(api.events) == 1
    assert (w.drops, w.retries) == ([], [])


async def test_many_binds_with_few_workers(api: ApiServer, start: Start, until: Until) -> None:
    names = [f"p{i}" for i in range(300)]
    add(api, *names)
    w = start(in_flight=8)
    for name in names:
        w.writer.bind(bind(name))
        w.writer.post_event(event(name))
    await until(lambda: idle(w))
    assert set(w.outcomes.values()) == {Bound("n1")}
    assert len(w.outcomes) == len(api.events) == 300


async def test_binds_then_patches_then_events(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a", "b", "c", "d")
    api.fault("GET|POST|PATCH", delay_s=0.05)  # holds the only worker while the rest queues up
    w = start(in_flight=1)
    w.writer.post_event(event("first"))
    await until(lambda: api.requests)
    for name in ("a", "b"):
        w.writer.post_event(event(name))
    for name in ("c", "d"):
        w.writer.patch_status(patch(name))
    for name in ("a", "b"):
        w.writer.bind(bind(name))
    await until(lambda: idle(w))
    kinds = [line.rsplit("/", 1)[1] for line in api.requests]
    assert kinds == ["events", "binding", "binding", "status", "status", "events", "events"]


async def test_a_bind_overtakes_an_event_that_waits_for_its_token(
    api: ApiServer, client: KubeClient, until: Until
) -> None:
    add(api, "a")
    now = 1000.0
    writer = Writer(
        client,
        on_bound=lambda uid, outcome: None,
        limits=WriterLimits(qps=20.0, burst=1),
        clock=lambda: now,
    )
    task = asyncio.create_task(writer.run())
    for i in range(3):
        writer.post_event(event(f"e{i}"))
    await until(lambda: len(api.events) == 1)  # no token comes for the next one while the clock stands
    writer.bind(bind("a"))
    for done in (2, 3, 4):
        await asyncio.sleep(0.06)
        assert len(api.requests) == done - 1
        now += 0.05
        await until(lambda done=done: len(api.requests) == done)  # type: ignore[misc]
    assert [line.rsplit("/", 1)[1] for line in api.requests] == ["events", "binding", "events", "events"]
    task.cancel()


async def test_rate_limit_holds(api: ApiServer, start: Start, until: Until) -> None:
    w = start(qps=100.0, burst=5)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for i in range(25):
        w.writer.post_event(event(f"e{i}"))
    await until(lambda: idle(w))
    assert loop.time() - started >= 0.19  # 5 at once, 20 at 100 a second; never sooner


async def test_events_leave_places_in_flight_for_binds(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a")
    api.fault("events", delay_s=30.0, times=100)
    w = start(in_flight=4)
    for i in range(10):
        w.writer.post_event(event(f"e{i}"))
    await until(lambda: api.count("events") == 2)
    w.writer.bind(bind("a"))
    await until(lambda: w.outcomes)
    assert api.count("events") == 2


async def test_a_bind_in_trouble_does_not_hold_up_others(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "stuck", "a", "b")
    api.fault("pods/stuck", status=503, times=1000)
    w = start(in_flight=1)
    w.writer.bind(bind("stuck"))
    await until(lambda: w.retries)
    w.writer.bind(bind("a"))
    w.writer.bind(bind("b"))
    await until(lambda: len(w.outcomes) == 2)
    assert w.writer.pending()["bind"] == 1


async def test_throttling_pauses_everything(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a")
    api.fault("binding", status=429, headers={"Retry-After": "1"})
    w = start()
    loop = asyncio.get_running_loop()
    started = loop.time()
    w.writer.bind(bind("a"))
    await until(lambda: w.retries)
    w.writer.post_event(event("a"))
    await until(lambda: idle(w))
    assert loop.time() - started >= 1.0
    assert [line.rsplit("/", 1)[1] for line in api.requests] == ["binding", "binding", "events"]


async def test_nothing_is_lost_while_the_server_is_away(api: ApiServer, start: Start, until: Until) -> None:
    names = [f"p{i}" for i in range(20)]
    add(api, *names)
    add(api, "q")
    await api.stop()
    w = start()
    for name in names:
        w.writer.bind(bind(name))
        w.writer.post_event(event(name))
    w.writer.patch_status(patch("q"))
    await asyncio.sleep(1.2)
    assert w.outcomes == {}
    assert len(w.retries) <= 100  # twice a second each at most, no busy loop
    await api.start()
    await until(lambda: idle(w))
    assert len(w.outcomes) == len(api.events) == 20
    assert len(api.patches) == 1
    assert w.drops == []


async def test_cancelled_binds_are_not_sent_and_not_reported(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a", "b", "c")
    api.fault("pods/a", delay_s=0.1)
    w = start(in_flight=1)
    w.writer.bind(bind("a"))
    await until(lambda: api.requests)
    w.writer.bind(bind("b"))
    w.writer.bind(bind("c"))
    assert w.writer.cancel("uid-a")
    assert w.writer.cancel("uid-b")
    assert not w.writer.cancel("uid-b")
    await until(lambda: w.outcomes)
    assert w.outcomes == {"uid-c": Bound("n1")}
    assert api.count("pods/b/") == 0


async def test_a_cancelled_pod_may_be_bound_again(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a")
    api.fault("binding", status=503)
    w = start()
    w.writer.bind(bind("a"))
    await until(lambda: w.retries)
    w.writer.cancel("uid-a")
    w.writer.bind(bind("a", "n2"))
    await until(lambda: w.outcomes)
    await asyncio.sleep(0.3)
    assert w.outcomes == {"uid-a": Bound("n2")}


async def test_nothing_is_bound_without_the_lease(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a", "b")
    w = start()
    w.leading = False
    w.writer.bind(bind("a"))
    w.writer.bind(bind("b"))
    await asyncio.sleep(0.05)
    assert api.requests == []
    w.writer.cancel("uid-a")
    w.leading = True
    await until(lambda: idle(w))
    assert w.outcomes == {"uid-b": Bound("n1")}


async def test_one_bind_for_a_pod_at_a_time(api: ApiServer, start: Start) -> None:
    w = start()
    w.writer.bind(bind("a"))
    with pytest.raises(ValueError, match="default/pods/a"):
        w.writer.bind(bind("a", "n2"))


async def test_outcomes_other_than_bound_are_reported(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "forbidden")
    api.fault("pods/forbidden", status=403, reason="Forbidden")
    w = start()
    w.writer.bind(bind("missing"))
    w.writer.bind(bind("forbidden"))
    await until(lambda: len(w.outcomes) == 2)
    assert w.outcomes["uid-missing"] == Gone()
    assert isinstance(w.outcomes["uid-forbidden"], Refused)


async def test_only_the_newest_patch_of_a_pod_is_sent(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a", "b")
    api.fault("PATCH", delay_s=0.05)
    w = start()
    w.writer.patch_status(patch("a", "one"))
    await until(lambda: api.requests)
    w.writer.patch_status(patch("a", "two"))
    w.writer.patch_status(patch("a", "three"))
    w.writer.patch_status(patch("b", "other"))
    await until(lambda: idle(w))
    assert sorted(messages(api)) == ["one", "other", "three"]
    assert [message for message in messages(api) if message != "other"] == ["one", "three"]


async def test_a_newer_patch_replaces_one_that_is_to_be_retried(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a")
    api.fault("PATCH", status=500)
    w = start()
    w.writer.patch_status(patch("a", "old"))
    await until(lambda: w.retries)
    w.writer.patch_status(patch("a", "new"))
    await until(lambda: idle(w))
    await asyncio.sleep(1.1)
    assert messages(api) == ["new"]


async def test_a_bind_drops_the_waiting_patch_of_its_pod(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a")
    api.fault("events", delay_s=0.05)
    w = start(in_flight=1)
    w.writer.post_event(event("hold"))
    await until(lambda: api.requests)
    w.writer.patch_status(patch("a"))
    w.writer.bind(bind("a"))
    w.writer.patch_status(patch("a"))  # and a later one is not wanted either
    await until(lambda: idle(w))
    assert w.outcomes == {"uid-a": Bound("n1")}
    assert api.patches == []


async def test_a_bind_waits_for_the_patch_under_way(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a")
    api.fault("PATCH", delay_s=0.1)
    w = start()
    w.writer.patch_status(patch("a"))
    await until(lambda: api.requests)
    w.writer.bind(bind("a"))
    await until(lambda: w.outcomes)
    assert [line.rsplit("/", 1)[1] for line in api.requests] == ["status", "binding"]


@pytest.mark.parametrize(
    ("fault", "sent", "drops"),
    [
        ({"status": 409, "reason": "Conflict", "times": 1}, 2, []),
        ({"status": 409, "reason": "Conflict", "times": 9}, 2, [("status", "failed")]),
        ({"status": 404, "reason": "NotFound", "times": 9}, 1, [("status", "gone")]),
        ({"status": 403, "reason": "Forbidden", "times": 1}, 2, []),
        ({"status": 422, "reason": "Invalid", "times": 9}, 1, [("status", "failed")]),
        ({"status": 500, "times": 1}, 2, []),
        ({"drop": True, "times": 1}, 2, []),
        ({"status": 429, "headers": {"Retry-After": "0"}, "times": 6}, 7, []),
    ],
)
async def test_what_becomes_of_a_patch(
    api: ApiServer,
    start: Start,
    until: Until,
    fault: dict[str, Any],
    sent: int,
    drops: list[tuple[str, str]],
) -> None:
    add(api, "a")
    api.fault("PATCH", **fault)
    w = start()
    w.writer.patch_status(patch("a"))
    await until(lambda: idle(w))
    assert (api.count("PATCH"), w.drops) == (sent, drops)
    assert len(api.patches) == (0 if drops else 1)


@pytest.mark.parametrize(
    ("fault", "sent", "drops"),
    [
        ({"drop": True, "execute": True}, 2, []),  # the repetition is AlreadyExists
        ({"status": 503}, 2, []),
        ({"status": 404, "reason": "NotFound"}, 1, [("event", "gone")]),
        ({"status": 403, "message": "namespace x is being terminated"}, 1, [("event", "gone")]),
        ({"status": 403, "message": "no"}, 2, []),
        ({"status": 422}, 1, [("event", "failed")]),
    ],
)
async def test_what_becomes_of_an_event(
    api: ApiServer,
    start: Start,
    until: Until,
    fault: dict[str, Any],
    sent: int,
    drops: list[tuple[str, str]],
) -> None:
    api.fault("events", **fault)
    w = start()
    w.writer.post_event(event("a"))
    await until(lambda: idle(w))
    assert (api.count("events"), w.drops) == (sent, drops)
    assert len(api.events) == (0 if drops else 1)


async def test_an_event_written_twice_exists_once(api: ApiServer, start: Start, until: Until) -> None:
    w = start()
    w.writer.post_event(event("a"))
    w.writer.post_event(event("a"))
    w.writer.post_event(event("a", "another note"))
    await until(lambda: idle(w))
    assert len(api.events) == 2
    assert w.drops == []


async def test_an_event_written_lately_is_not_sent_again(
    api: ApiServer, client: KubeClient, until: Until
) -> None:
    now = 1000.0
    writer = Writer(client, on_bound=lambda uid, outcome: None, clock=lambda: now)
    task = asyncio.create_task(writer.run())
    for _ in range(3):
        writer.post_event(event("a"))
        await until(lambda: not any(writer.pending().values()))
    assert api.count("events") == 1
    api.events.clear()  # the API server keeps events for an hour
    now += 1801
    writer.post_event(event("a"))
    await until(lambda: not any(writer.pending().values()))
    assert len(api.events) == 1
    task.cancel()


async def test_an_event_that_failed_may_be_tried_again(api: ApiServer, start: Start, until: Until) -> None:
    api.fault("events", status=422)
    w = start()
    for _ in range(2):
        w.writer.post_event(event("a"))
        await until(lambda: idle(w))
    assert (api.count("events"), len(api.events)) == (2, 1)


async def test_full_queues_shed_their_end(api: ApiServer, start: Start, until: Until) -> None:
    add(api, *(f"p{i}" for i in range(6)))
    api.fault("events", delay_s=0.1)
    w = start(in_flight=1, queued_events=2, queued_patches=3)
    w.writer.post_event(event("hold"))
    await until(lambda: api.requests)
    for i in range(5):
        w.writer.post_event(event(f"p{i}"))
        w.writer.patch_status(patch(f"p{i}"))
    w.writer.patch_status(patch("p0", "newer"))  # takes a place that it has
    w.writer.bind(bind("p5"))
    assert sorted(w.drops) == [("event", "queue_full")] * 3 + [("status", "queue_full")] * 2
    await until(lambda: idle(w))
    assert len(api.events) == 3
    assert sorted(messages(api)) == ["0/1 nodes", "0/1 nodes", "newer"]
    assert w.outcomes == {"uid-p5": Bound("n1")}


async def test_drain_settles_what_is_under_way(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "sent", "lost", "queued")
    api.fault("pods/lost", drop=True, execute=True)
    w = start(in_flight=1)
    w.writer.bind(bind("lost"))
    await until(lambda: w.retries)
    api.fault("pods/sent", delay_s=0.2)
    w.writer.bind(bind("sent"))
    await until(lambda: api.count("pods/sent"))
    w.writer.bind(bind("queued"))
    w.writer.post_event(event("sent"))
    w.writer.patch_status(patch("x"))
    drained = await w.writer.drain(5.0)
    assert w.outcomes == {"uid-sent": Bound("n1"), "uid-lost": Bound("n1")}
    assert [request.name for request in drained.unsent] == ["queued"]
    assert (drained.undecided, drained.events) == ([], 0)
    assert len(api.events) == 1
    assert api.patches == []
    with pytest.raises(RuntimeError, match="draining"):
        w.writer.bind(bind("late"))


async def test_drain_spends_no_tokens_on_what_is_given_up(api: ApiServer, start: Start, until: Until) -> None:
    names = [f"pod-{n}" for n in range(100)]
    add(api, *names)
    w = start(qps=10.0, burst=1)
    for name in names:
        w.writer.bind(bind(name))
    w.writer.post_event(event("pod-0"))
    await until(lambda: w.outcomes)
    drained = await w.writer.drain(5.0)  # a hundred tokens take ten seconds
    assert len(drained.unsent) + len(w.outcomes) == len(names)
    assert (drained.undecided, drained.events) == ([], 0)


async def test_what_needs_no_leader_is_drained_after_the_rest(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a")
    api.fault("pods/a/binding", delay_s=0.2)
    w = start(qps=5.0, burst=1)
    w.writer.bind(bind("a"))
    await until(lambda: api.count("binding"))
    for n in range(3):
        w.writer.post_event(event(f"pod-{n}"))
    seen: list[tuple[dict[str, Any], int]] = []

    async def when_settled() -> None:
        seen.append((dict(w.outcomes), len(api.events)))

    drained = await w.writer.drain(5.0, when_settled=when_settled)
    ((outcomes, events_before),) = seen
    assert outcomes == {"uid-a": Bound("n1")}
    assert events_before < len(api.events) == 3
    assert drained.events == 0


async def test_drain_gives_up_in_time_and_says_what_is_open(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a")
    api.fault("binding", drop=True)
    api.fault("GET .*pods/a", status=500, times=1000)
    w = start()
    w.writer.bind(bind("a"))
    await until(lambda: w.retries)
    w.writer.post_event(event("a"))
    drained = await w.writer.drain(0.3)
    assert [request.name for request in drained.undecided] == ["a"]
    assert w.writer.undecided == drained.undecided
    assert (drained.unsent, drained.events) == ([], 0)


async def test_drain_does_not_wait_for_what_is_cancelled(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a")
    api.fault("binding", drop=True)
    api.fault("GET .*pods/a", status=500, times=1000)
    w = start()
    w.writer.bind(bind("a"))
    await until(lambda: w.retries)
    draining = asyncio.create_task(w.writer.drain(3600.0))
    await asyncio.sleep(0)
    w.writer.cancel("uid-a")
    assert (await draining).undecided == []


async def test_what_the_callback_raises_is_not_swallowed(api: ApiServer, client: KubeClient) -> None:
    def broken(uid: str, outcome: BindOutcome) -> None:
        raise ZeroDivisionError

    add(api, "a")
    writer = Writer(client, on_bound=broken)
    writer.bind(bind("a"))
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(5):
            await writer.run()
    assert caught.group_contains(ZeroDivisionError)
