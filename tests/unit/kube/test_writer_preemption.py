"""Deletions and nominations in the writer."""

import asyncio

import pytest
from msgspec import structs

from scheduler.kube.binding import Bound, Gone
from scheduler.kube.deletion import Deleted
from scheduler.kube.payloads import Condition, DeleteRequest, StatusPatch
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until
from tests.unit.kube.writing import Start, add, bind, event, idle, messages, patch


def deletion(name: str) -> DeleteRequest:
    condition = Condition("DisruptionTarget", "True", "PreemptionByScheduler", "why", 1, transitioned=True)
    why = StatusPatch("default", name, f"uid-{name}", condition)
    return DeleteRequest("default", name, f"uid-{name}", why)


async def test_victims_are_deleted(api: ApiServer, start: Start, until: Until) -> None:
    names = [f"p{i}" for i in range(50)]
    add(api, *names)
    api.fault("DELETE", drop=True, execute=True, times=5)
    w = start(in_flight=8)
    for name in names:
        w.writer.delete(deletion(name))
    w.writer.delete(deletion("missing"))
    await until(lambda: idle(w))
    assert api.pods == {}
    assert w.deletions.pop("uid-missing") == Gone()
    assert set(w.deletions.values()) == {Deleted()}
    assert len(w.deletions) == 50
    assert set(w.retries) == {"delete"}


async def test_a_preemption_does_not_wait_for_all_binds(api: ApiServer, start: Start, until: Until) -> None:
    """A nomination, on which the deletion waits, and this take turns with binds."""
    names = [f"p{i}" for i in range(8)]
    add(api, "preemptor", "victim", *names)
    api.fault("GET|POST", delay_s=0.05)  # holds the only worker while the rest queues up
    w = start(in_flight=1)
    w.writer.post_event(event("first"))
    await until(lambda: api.requests)
    for name in names:
        w.writer.bind(bind(name))
    w.writer.patch_status(patch("preemptor"))
    w.writer.patch_status(nomination(api, "preemptor"), lambda: w.writer.delete(deletion("victim")))
    await until(lambda: idle(w))
    assert w.deletions == {"uid-victim": Deleted()}
    requests = [line for line in api.requests if "events" not in line]
    assert all("binding" in line for line in requests[7:])
    assert sum("binding" in line for line in requests[:7]) == 4


async def test_deletions_take_turns_with_binds_and_come_before_patches(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a", "b", "c")
    api.fault("GET|POST|PATCH|DELETE", delay_s=0.05)  # holds the only worker while the rest queues up
    w = start(in_flight=1)
    w.writer.post_event(event("first"))
    await until(lambda: api.requests)
    w.writer.patch_status(patch("c"))
    w.writer.delete(deletion("b"))
    w.writer.bind(bind("a"))
    await until(lambda: idle(w))
    kinds = [line.removeprefix("POST ").rsplit("/", 1)[1] for line in api.requests]
    assert kinds == ["events", "binding", "status", "b", "status"]


async def test_nothing_is_deleted_without_the_lease(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a", "b")

    def lose_the_lease(line: str) -> None:
        w.leading = False

    api.executed = lose_the_lease
    w = start(in_flight=1)
    w.writer.delete(deletion("a"))
    await until(lambda: api.requests)
    await asyncio.sleep(0.05)
    # Between the condition and the deletion, too.
    assert [line.split(" ")[0] for line in api.requests] == ["PATCH"]
    assert len(api.pods) == 2
    w.leading = True
    api.executed = lambda line: None
    await until(lambda: idle(w))
    assert w.deletions == {"uid-a": Deleted()}


async def test_only_an_unsent_deletion_can_be_taken_back(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "a", "b")
    api.fault("pods/a/status", delay_s=0.1)
    w = start(in_flight=1)
    w.writer.delete(deletion("a"))
    w.writer.delete(deletion("b"))
    await until(lambda: api.requests)
    assert not w.writer.cancel_unsent("uid-a")
    assert w.writer.cancel_unsent("uid-b")
    assert not w.writer.cancel_unsent("uid-b")
    await until(lambda: idle(w))
    assert w.deletions == {"uid-a": Deleted()}
    assert list(api.pods) == [("default", "b")]


async def test_only_an_unsent_bind_can_be_taken_back(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "sent", "queued", "lost")
    api.fault("pods/sent", delay_s=0.2)
    api.fault("pods/lost/binding", drop=True, execute=True)
    w = start(in_flight=2)
    w.writer.bind(bind("sent"))
    w.writer.bind(bind("lost"))
    await until(lambda: w.retries)
    assert not w.writer.cancel_unsent("uid-lost")  # nobody knows yet whether it was executed
    assert not w.writer.cancel_unsent("uid-sent")
    w.writer.bind(bind("queued"))
    assert w.writer.cancel_unsent("uid-queued")
    await until(lambda: idle(w))
    assert w.outcomes == {"uid-sent": Bound("n1"), "uid-lost": Bound("n1")}


async def test_a_bind_that_may_be_executed_late_is_not_taken_back(
    api: ApiServer, start: Start, until: Until
) -> None:
    """Its pod was read and is not bound, but the attempt whose answer was lost may still be on its way."""
    add(api, "a")
    api.fault("binding", drop=True)
    api.fault("binding", status=429, headers={"Retry-After": "1"})
    w = start()
    w.writer.bind(bind("a"))
    await until(lambda: api.count("binding") == 2 and len(w.retries) == 3)
    assert api.count("GET") == 1
    assert not w.writer.cancel_unsent("uid-a")
    drained = await w.writer.drain(5.0)
    assert (drained.unsent, w.outcomes) == ([], {"uid-a": Bound("n1")})


async def test_drain_finishes_deletions_that_have_begun(api: ApiServer, start: Start, until: Until) -> None:
    add(api, "begun", "queued", "late")
    api.fault("pods/begun/status", delay_s=0.1)
    w = start(in_flight=1)
    w.writer.delete(deletion("begun"))
    w.writer.delete(deletion("queued"))
    await until(lambda: api.requests)
    await w.writer.drain(5.0)
    w.writer.delete(deletion("late"))
    assert w.deletions == {"uid-begun": Deleted()}
    assert [name for _, name in api.pods] == ["queued", "late"]
    assert idle(w)


# Nominations.


def nomination(api: ApiServer, name: str, node: str = "n1") -> StatusPatch:
    version = api.pods["default", name]["metadata"]["resourceVersion"]
    return structs.replace(patch(name), nominated_node=node, resource_version=version)


def nominated(api: ApiServer, name: str) -> str | None:
    node: str | None = api.pods["default", name]["status"].get("nominatedNodeName")
    return node


async def test_a_nomination_and_its_condition_are_one_patch(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a")
    w = start()
    then: list[str] = []
    w.writer.patch_status(nomination(api, "a"), lambda: then.append("written"))
    assert then == []
    await until(lambda: then)
    assert nominated(api, "a") == "n1"
    assert messages(api) == ["0/1 nodes"]
    w.writer.patch_status(StatusPatch("default", "a", "uid-a", nominated_node=""))
    await until(lambda: idle(w))
    assert nominated(api, "a") is None
    assert len(api.patches) == 2


async def test_a_nomination_of_an_older_version_is_renewed(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a")
    patch_ = nomination(api, "a")
    api.modify_pod("a")
    w = start()
    w.writer.patch_status(patch_)
    await until(lambda: idle(w))
    assert nominated(api, "a") == "n1"
    assert (api.count("PATCH"), api.count("GET"), w.drops) == (2, 1, [])


@pytest.mark.parametrize("execute", [True, False])
async def test_a_nomination_whose_answer_is_lost(
    api: ApiServer, start: Start, until: Until, execute: bool
) -> None:
    add(api, "a")
    api.fault("PATCH", drop=True, execute=execute)
    w = start()
    w.writer.patch_status(nomination(api, "a"))
    await until(lambda: idle(w))
    assert nominated(api, "a") == "n1"


async def test_an_answer_that_is_no_pod_is_one_more_failure(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a")
    patch_ = nomination(api, "a")
    api.modify_pod("a")
    api.fault("GET", status=200)
    w = start()
    w.writer.patch_status(patch_)
    w.writer.post_event(event("a"))
    await until(lambda: idle(w) or w.task.done())
    assert not w.task.done()
    assert api.count("GET") == 2
    assert nominated(api, "a") == "n1"


async def test_a_late_nomination_does_not_outlive_the_bind(
    api: ApiServer, start: Start, until: Until
) -> None:
    """As when an answer is lost: the pod is bound by the time it is tried again, or comes to execution."""
    add(api, "a")
    w = start()
    stale = nomination(api, "a")
    w.writer.bind(bind("a"))
    await until(lambda: idle(w))
    w.writer.patch_status(stale)
    await until(lambda: idle(w))
    assert nominated(api, "a") is None
    assert (api.count("PATCH"), api.count("GET"), api.patches) == (1, 1, [])


async def test_what_is_to_follow_a_patch_follows_in_any_case(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "refused", "full", "bound", "newer")
    api.fault("pods/refused", status=422, times=9)
    api.fault("events", delay_s=0.05)
    w = start(in_flight=1, queued_patches=3)
    w.writer.post_event(event("hold"))
    await until(lambda: api.requests)
    then: list[str] = []
    w.writer.patch_status(patch("refused"), lambda: then.append("refused"))
    w.writer.patch_status(patch("bound"), lambda: then.append("bound"))
    w.writer.patch_status(nomination(api, "newer"), lambda: then.append("old"))
    w.writer.patch_status(patch("newer", "newer"), lambda: then.append("new"))
    w.writer.patch_status(patch("full"), lambda: then.append("full"))
    assert then == ["full"]
    w.writer.bind(bind("bound"))
    assert then == ["full", "bound"]
    w.writer.patch_status(patch("bound"), lambda: then.append("too late"))
    assert then == ["full", "bound", "too late"]
    await until(lambda: idle(w))
    assert then[3:] == ["refused", "old", "new"]
    assert nominated(api, "newer") == "n1"  # what the newer patch was silent about is not lost
    assert messages(api) == ["newer"]


async def test_a_newer_patch_inherits_from_one_that_failed(
    api: ApiServer, start: Start, until: Until
) -> None:
    add(api, "a")
    api.fault("PATCH", status=500, delay_s=0.05)
    w = start()
    then: list[str] = []
    w.writer.patch_status(nomination(api, "a"), lambda: then.append("old"))
    await until(lambda: api.requests)
    w.writer.patch_status(patch("a", "newer"), lambda: then.append("new"))
    await until(lambda: idle(w))
    assert (nominated(api, "a"), messages(api), then) == ("n1", ["newer"], ["old", "new"])
