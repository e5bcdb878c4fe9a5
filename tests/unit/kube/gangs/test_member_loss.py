"""Gangs that were complete and have lost members: loop, committer, restarts and writer are the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from scheduler.core.gangs.commit import GANG_GIVEN_UP, TXN_ANNOTATION
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.restarts import LOST_MEMBERS, Restarts
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until
from tests.unit.kube.gangs.test_wiring import Scheduler

OWNER = [{"kind": "Job", "name": "j", "uid": "j", "controller": True}]
RESTART = {"min-count": "3", "on-member-loss": "restart"}


@pytest_asyncio.fixture
async def scheduler(api: ApiServer, client: KubeClient) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(api, client)
    scheduler.node("n", "16Gi")
    yield scheduler
    await scheduler.stop()


def add_bound(
    scheduler: Scheduler,
    *names: str,
    owned: bool = True,
    policy: str = "restart",
    agreed: bool = False,
    gang: str = "g",
) -> None:
    """Members of a gang that was complete; they have a controller unless told otherwise."""
    options = RESTART | {"on-member-loss": policy, "delete-uncontrolled": "true" if agreed else "false"}
    options["gang"] = gang
    for name in names:
        scheduler.pod(name, **options)
        pod = scheduler.api.pods["default", name]
        pod["metadata"]["annotations"][TXN_ANNOTATION] = "earlier"
        pod["metadata"]["ownerReferences"] = OWNER if owned else []
        pod["spec"] |= {"nodeName": "n", "terminationGracePeriodSeconds": 30}
        scheduler.see(name)


def leaving(api: ApiServer) -> set[str]:
    return {name for (_, name), pod in api.pods.items() if pod["metadata"].get("deletionTimestamp")}


async def test_the_others_go_when_one_is_lost_and_the_gang_starts_anew(
    scheduler: Scheduler, until: Until
) -> None:
    await scheduler.lead()
    add_bound(scheduler, "a", "b", "c")
    await asyncio.sleep(0.7)
    assert leaving(scheduler.api) == set()
    scheduler.miss("c")
    scheduler.api.delete_pod("c")
    for name in ("x", "y"):
        scheduler.pod(name, **RESTART)
    await until(lambda: leaving(scheduler.api) == {"a", "b"})
    for patch in scheduler.api.patches[-2:]:
        [why] = patch["status"]["conditions"]
        assert (why["type"], why["reason"]) == ("DisruptionTarget", LOST_MEMBERS)
    await asyncio.sleep(0.1)  # the watch has told of no deletion yet, and x and y are too few
    assert "nodeName" not in scheduler.api.pods["default", "x"]["spec"]
    for name in ("a", "b"):
        scheduler.see(name)
    scheduler.pod("z", **RESTART)
    await until(lambda: scheduler.ended("complete"))
    assert {"x", "y", "z"} <= set(scheduler.bound)
    assert leaving(scheduler.api) == {"a", "b"}
    assert scheduler.metrics.registry.get_sample_value("wholepod_gang_restarts_total") == 1.0


@pytest.mark.parametrize("how", ["terminating", "failed", "relisted"])
async def test_ways_to_lose_a_member(scheduler: Scheduler, until: Until, how: str) -> None:
    await scheduler.lead()
    add_bound(scheduler, "a", "b", "c")
    pod = scheduler.api.pods["default", "c"]
    if how == "terminating":
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        scheduler.see("c")
    elif how == "failed":
        scheduler.miss("c")
        pod["status"]["phase"] = "Failed"
    else:
        scheduler.api.delete_pod("c")
        scheduler.see_all()
    await until(lambda: {"a", "b"} <= leaving(scheduler.api))


async def test_a_leader_finds_what_was_lost_before_its_time(scheduler: Scheduler, until: Until) -> None:
    add_bound(scheduler, "a", "b")
    await scheduler.lead()
    await until(lambda: leaving(scheduler.api) == {"a", "b"})


async def test_members_that_have_finished_are_no_loss(scheduler: Scheduler, until: Until) -> None:
    await scheduler.lead()
    add_bound(scheduler, "a", "b", "c")
    scheduler.miss("c")
    scheduler.api.pods["default", "c"]["status"]["phase"] = "Succeeded"
    scheduler.pod("late", **RESTART)
    await until(lambda: "late" in scheduler.bound)  # so it is settled
    assert leaving(scheduler.api) == set()
    scheduler.see("late")
    for name in ("a", "b", "late"):
        scheduler.miss(name)
        scheduler.api.pods["default", name]["status"]["phase"] = "Succeeded"
    await asyncio.sleep(0.7)
    assert leaving(scheduler.api) == set()


@pytest.mark.parametrize("policy", ["replace", "keep"])
async def test_other_policies_delete_nobody(scheduler: Scheduler, policy: str) -> None:
    await scheduler.lead()
    add_bound(scheduler, "a", "b", policy=policy)
    scheduler.miss("b")
    scheduler.api.delete_pod("b")
    await asyncio.sleep(0.7)
    assert leaving(scheduler.api) == set()
    assert scheduler.api.count("GET .*/namespaces/default/pods$") == 0


async def test_members_that_nothing_would_create_again_stay_and_say_so(
    scheduler: Scheduler, until: Until
) -> None:
    add_bound(scheduler, "a")
    add_bound(scheduler, "orphan", owned=False)
    await scheduler.lead()
    await until(lambda: leaving(scheduler.api) == {"a"} and len(scheduler.api.patches) == 2)
    [mark] = scheduler.api.pods["default", "orphan"]["status"]["conditions"]
    assert (mark["type"], mark["status"], mark["reason"]) == (GANG_GIVEN_UP, "True", LOST_MEMBERS)
    [event] = scheduler.api.events.values()
    assert event["regarding"]["name"] == "orphan"
    lists = scheduler.api.count("GET .*/namespaces/default/pods$")
    for name in ("a", "orphan"):
        scheduler.see(name)
    scheduler.miss("a")
    await asyncio.sleep(0.7)
    assert scheduler.api.count("GET .*/namespaces/default/pods$") == lists  # there is nothing left to settle


async def test_a_gang_may_agree_that_they_go_as_well(scheduler: Scheduler, until: Until) -> None:
    add_bound(scheduler, "a", "b", owned=False, agreed=True)
    await scheduler.lead()
    await until(lambda: leaving(scheduler.api) == {"a", "b"})


async def test_gangs_that_lose_members_at_once_share_lists(scheduler: Scheduler, until: Until) -> None:
    names = [f"p{i}" for i in range(20)]
    for name in names:
        add_bound(scheduler, name, gang=f"gang-of-{name}")
    await scheduler.lead()
    await until(lambda: leaving(scheduler.api) == set(names))
    # One, unless the machine is so busy that their half seconds end apart.
    assert scheduler.api.count("GET .*/namespaces/default/pods$") < len(names) / 2


async def test_another_schedulers_pods_are_no_members_whatever_they_say(
    scheduler: Scheduler, until: Until
) -> None:
    add_bound(scheduler, "a", "theirs")
    scheduler.api.pods["default", "theirs"]["spec"]["schedulerName"] = "another"
    scheduler.see_all()
    await scheduler.lead()
    await until(lambda: scheduler.metrics.registry.get_sample_value("wholepod_gang_restarts_total"))
    assert leaving(scheduler.api) == {"a"}


async def test_a_moment_without_the_lease_leaves_no_gang_unsettled(
    scheduler: Scheduler, client: KubeClient, until: Until
) -> None:
    leads = iter([False])
    scheduler.restarts = Restarts(
        client,
        scheduler.writer,
        scheduler.loop.gangs.losses,
        scheduler_name="wholepod",
        gang_of=scheduler.loop.gangs.key_of,
        leads=lambda: next(leads, True),
    )
    add_bound(scheduler, "a", "b")
    await scheduler.lead()
    await until(lambda: leaving(scheduler.api) == {"a", "b"})


async def test_it_is_tried_until_it_is_done(scheduler: Scheduler, until: Until) -> None:
    for pattern in ("GET .*/namespaces/default/pods$", "PATCH .*/a/status", "DELETE .*/b"):
        scheduler.api.fault(pattern, status=500, reason="InternalError", message="not now")
    add_bound(scheduler, "a", "b")
    await scheduler.lead()
    await until(lambda: leaving(scheduler.api) == {"a", "b"})


async def test_a_bound_member_that_vanishes_in_a_gap_of_the_watch_is_missing_to_its_commit(
    scheduler: Scheduler, until: Until
) -> None:
    """It had been counted as bound for as long as the commit went on."""
    await scheduler.lead()
    scheduler.api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="not now")
    scheduler.pod("a")
    scheduler.pod("b")
    await until(lambda: scheduler.bound)
    scheduler.see("a")
    scheduler.api.delete_pod("a")
    scheduler.see_all()
    await until(lambda: scheduler.api.count("GET .*/pods/a$"))
    scheduler.api.faults.clear()
    scheduler.api.fault("POST .*/c/binding", times=1000, status=403, reason="Forbidden", message="not now")
    scheduler.pod("c")
    await until(lambda: scheduler.bound == {"b": "n"})
    await asyncio.sleep(0.2)
    assert scheduler.ended("complete") == 0
    scheduler.api.faults.clear()
    await until(lambda: scheduler.ended("complete"))
    assert scheduler.bound == {"b": "n", "c": "n"}


async def test_a_member_that_finishes_before_its_gang_is_complete_counts(
    scheduler: Scheduler, until: Until
) -> None:
    await scheduler.lead()
    scheduler.api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="not now")
    scheduler.pod("a")
    scheduler.pod("b")
    await until(lambda: scheduler.bound)
    scheduler.see("a")
    scheduler.miss("a")
    scheduler.api.pods["default", "a"]["status"]["phase"] = "Succeeded"
    await until(lambda: scheduler.api.count("GET .*/pods/a$"))
    scheduler.api.faults.clear()
    scheduler.pod("c")  # two have to exist, to be planned
    await until(lambda: scheduler.ended("complete"))


async def test_a_second_entry_of_a_gang_harms_nobody(
    scheduler: Scheduler, api: ApiServer, client: KubeClient, until: Until
) -> None:
    """An intent that was given up, and became durable all the same, may stand beside the next one."""
    await scheduler.lead()
    fault = api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="not now")
    scheduler.pod("a")
    scheduler.pod("b")
    await until(lambda: scheduler.bound)
    await scheduler.stop()
    data = api.config_maps["kube-system", "wholepod-journal"]["data"]
    [(key, text)] = [(key, text) for key, text in data.items() if key.startswith("gang.")]
    txn = key.removeprefix("gang.")
    data["gang.twin"] = text.replace(txn, "twin")
    fault.times = 0
    heir = Scheduler(api, client, "b")
    try:
        heir.node("n", "16Gi")
        for name in ("a", "b"):
            heir.see(name)
        await heir.lead()
        await until(lambda: heir.ended("complete") and heir.ended("given_up"))
        assert heir.bound == {"a": "n", "b": "n"}
        assert heir.entries == []
    finally:
        await heir.stop()
