"""The committer with a real journal and writer, on an API server that can be told to fail."""

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from scheduler.core.gangs.commit import GANG_GIVEN_UP
from scheduler.kube.binding import Bound, Gone, Refused
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.actions import TXN_ANNOTATION, Commit, Ended, Member
from scheduler.kube.gangs.committer import INCOMPLETE
from scheduler.kube.gangs.pods import TOUCHED
from scheduler.kube.journal_format import Fenced
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until
from tests.unit.kube.gangs.leader import Leader

KEY = ("kube-system", "wholepod-journal")
OWNER = [{"kind": "Job", "name": "j", "uid": "j", "controller": True}]


NewLeader = Callable[[str], Leader]


@pytest_asyncio.fixture
async def new_leader(client: KubeClient) -> AsyncIterator[NewLeader]:
    leaders: list[Leader] = []

    def make(name: str) -> Leader:
        leaders.append(Leader(client, name))
        return leaders[-1]

    yield make
    for leader in leaders:
        await leader.stop()


def add(api: ApiServer, *names: str, owned: bool = True) -> tuple[Member, ...]:
    members = []
    for name in names:
        pod = api.add_pod(name, uid=f"uid-{name}")
        pod["metadata"]["ownerReferences"] = OWNER if owned else []
        pod["metadata"]["labels"] = {"gang": "g"}
        version = pod["metadata"]["resourceVersion"]
        members.append(Member("default", name, f"uid-{name}", version, "n1", owned))
    return tuple(members)


def commit(*members: Member, **more: Any) -> Commit:
    fields: dict[str, Any] = {"txn": "t", "gang": "g", "min_count": len(members), "deadline_s": 60.0}
    return Commit(members=members, **(fields | more))


def bound(api: ApiServer) -> set[str]:
    return {name for (_, name), pod in api.pods.items() if pod["spec"].get("nodeName")}


def entries(api: ApiServer) -> list[dict[str, Any]]:
    data = api.config_maps[KEY]["data"]
    return [json.loads(text) for key, text in data.items() if key.startswith("gang.")]


async def test_a_gang_is_bound(api: ApiServer, new_leader: NewLeader, until: Until) -> None:
    leader = new_leader("a")
    await leader.lead()
    members = add(api, "a", "b", "c")
    leader.committer.start(commit(*members))
    with pytest.raises(ValueError, match="being committed already"):
        leader.committer.start(commit(*members, txn="u"))
    assert "g" in leader.committer
    await until(lambda: leader.ended)
    assert leader.ended == {"t": Ended(True)}
    assert leader.announced == ["t"]
    assert leader.outcomes == dict.fromkeys("abc", Bound("n1"))
    assert {pod["metadata"]["annotations"][TXN_ANNOTATION] for pod in api.pods.values()} == {"t"}
    assert entries(api) == []
    assert len(leader.committer) == 0
    order = [line.rpartition("/")[2] for line in api.requests if not line.startswith("GET")]
    assert order == ["configmaps", "wholepod-journal", "binding", "binding", "binding", "wholepod-journal"]


async def test_commits_may_come_before_run(api: ApiServer, new_leader: NewLeader, until: Until) -> None:
    leader = new_leader("a")
    await leader.journal.open()
    leader.committer.start(commit(*add(api, "a")))
    await leader.lead()
    await until(lambda: leader.ended)
    assert leader.announced == ["t"]


async def test_without_a_journal_no_gang_is_begun(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    api.fault("PUT .*/configmaps", status=403, reason="Forbidden", message="no")
    leader.committer.start(commit(*add(api, "a")))
    await until(lambda: leader.ended)
    assert "not allowed to update configmaps" in leader.ended["t"].why
    assert api.count("binding") == 0


async def test_closed_it_begins_no_more(api: ApiServer, new_leader: NewLeader) -> None:
    leader = new_leader("a")
    await leader.lead()
    leader.committer.close("shutting down")
    leader.committer.start(commit(*add(api, "a")))
    assert leader.ended == {"t": Ended(False, "shutting down")}


async def test_a_member_that_has_changed_is_bound_as_it_is(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    members = add(api, "a", "b")
    api.modify_pod("a", priority=1)
    leader.committer.start(commit(*members))
    await until(lambda: leader.ended)
    assert bound(api) == {"a", "b"}
    assert leader.short == []


async def test_a_former_leader_binds_no_member_that_has_changed(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    members = add(api, "a", "b")
    api.fault("POST .*/b/binding", delay_s=0.3)
    leader.committer.start(commit(*members))
    await until(lambda: api.count("b/binding"))
    # An heir comes and touches what is not bound; the bind that is on the wire arrives after that.
    heir = new_leader("b")
    await heir.lead(*api.pods.values())
    assert [unfinished.entry.txn for unfinished in heir.unfinished] == ["t"]
    with pytest.raises(Fenced):
        await leader.tasks[-1]
    assert bound(api) == {"a"}
    assert heir.short == [1]
    heir.committer.extend("t", heir.unfinished[0].unbound and add_node(heir.unfinished[0].unbound))
    await until(lambda: heir.ended)
    assert bound(api) == {"a", "b"}
    assert entries(api) == []


def add_node(members: tuple[Member, ...]) -> list[Member]:
    return [msgspec.structs.replace(member, node="n2") for member in members]


async def test_a_gang_that_cannot_be_completed_is_taken_back(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    leader.on_missing = lambda txn: leader.committer.compensate(txn, "no room")
    members = (*add(api, "a"), *add(api, "orphan", owned=False), *add(api, "z"))
    api.fault("POST .*/z/binding", status=422, reason="Invalid", delay_s=0.2)
    leader.committer.start(commit(*members))
    await until(lambda: leader.ended)
    assert bound(api) == {"orphan"}
    assert {name for _, name in api.pods} == {"orphan", "z"}
    ended = leader.ended["t"]
    assert (ended.complete, ended.why, [member.name for member in ended.stay]) == (
        False,
        "no room",
        ["orphan"],
    )
    assert entries(api) == []
    reasons = {
        patch["status"]["conditions"][0]["type"]: patch["status"]["conditions"][0] for patch in api.patches
    }
    assert (reasons[GANG_GIVEN_UP]["status"], reasons[GANG_GIVEN_UP]["reason"]) == ("True", INCOMPLETE)
    why = reasons["DisruptionTarget"]
    assert (why["type"], why["status"], why["reason"]) == ("DisruptionTarget", "True", INCOMPLETE)
    await until(lambda: api.events)
    [event] = api.events.values()
    assert (event["reason"], event["regarding"]["name"]) == (INCOMPLETE, "orphan")
    assert "no controller" in event["note"]


async def test_a_bind_whose_end_is_unknown_is_made_impossible_and_not_waited_for(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    a, b = add(api, "a", "b")
    api.fault("POST .*/b/binding", delay_s=0.5)
    leader.committer.start(commit(a, b))
    await until(lambda: "a" in leader.outcomes and api.count("b/binding"))
    leader.committer.compensate("t", "no room")
    await until(lambda: leader.ended)
    assert leader.outcomes["b"] == Refused("the commit of its gang was given up")
    [touch] = [c for patch in api.patches for c in patch["status"]["conditions"] if c["type"] == TOUCHED]
    assert touch["message"] == "epoch 1 of a: t was given up"
    await asyncio.sleep(0.6)  # the bind arrives
    assert bound(api) == set()


async def test_the_deadline_ends_what_nobody_ends(api: ApiServer, client: KubeClient, until: Until) -> None:
    def clock() -> float:
        return 1000.0 if leader.outcomes else 0.0  # until it is bound no time passes, as long as it takes

    leader = Leader(client, "a", clock=clock)
    try:
        await leader.lead()
        [a] = add(api, "a")
        leader.committer.start(commit(a, min_count=2, deadline_s=0.02))
        await until(lambda: leader.ended)
        assert leader.ended["t"].why == "1 of 2 members were bound within 0.02 s"
        assert bound(api) == set()
    finally:
        await leader.stop()


async def test_a_bound_member_that_is_deleted_meanwhile_is_missing(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    a, spare = add(api, "a", "spare")
    leader.committer.start(commit(a, min_count=2))
    await until(lambda: leader.outcomes)
    leader.committer.lost(a.uid)
    leader.committer.lost("stranger")
    assert leader.short == [1, 2]
    leader.committer.extend("t", [spare])
    await until(lambda: bound(api) == {"a", "spare"})
    assert not leader.ended


async def test_extending_what_has_ended_is_refused(api: ApiServer, new_leader: NewLeader) -> None:
    leader = new_leader("a")
    await leader.lead()
    leader.committer.extend("t", add(api, "a"))
    assert isinstance(leader.outcomes["a"], Refused)


async def test_an_heir_completes_nothing_with_a_member_that_was_lost_since_the_list(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    a, b = add(api, "a", "b")
    fault = api.fault("POST .*/b/binding", times=1000, status=403, reason="Forbidden", message="not now")
    leader.committer.start(commit(a, b, min_count=2))
    await until(lambda: bound(api) == {"a"} and fault.times < 1000)
    await leader.stop()
    fault.times = 0
    api.pods["default", "b"]["spec"]["nodeName"] = "n"
    pods = copy.deepcopy([*api.pods.values()])
    api.delete_pod("a")
    heir = new_leader("b")
    heir.missed = {a.uid}
    await heir.lead(*pods)
    await until(lambda: heir.short)
    assert heir.announced == []


async def test_an_heir_goes_on_compensating(api: ApiServer, new_leader: NewLeader, until: Until) -> None:
    leader = new_leader("a")
    await leader.lead()
    a, b = add(api, "a", "b")
    leader.committer.start(commit(a, b, min_count=3))
    await until(lambda: bound(api) == {"a", "b"})
    api.fault("PATCH .*/status", delay_s=60.0, times=2)
    leader.committer.compensate("t", "no room")
    await until(lambda: api.count("PATCH .*/status") == 2)
    await leader.stop()
    heir = new_leader("b")
    await heir.lead(*api.pods.values())
    await until(lambda: heir.ended)
    assert api.pods == {}
    assert not heir.ended["t"].complete


@pytest.mark.parametrize("ahead_s", [-1e6, 0.0, 1e6])
async def test_our_clock_does_not_matter_for_a_deadline_that_runs_since_a_former_leader(
    api: ApiServer, client: KubeClient, ahead_s: float
) -> None:
    former, heir = Leader(client, "a"), Leader(client, "b", wall=lambda: time.time() + ahead_s)
    try:
        await former.lead()
        [a] = add(api, "a")
        former.committer.start(commit(a, min_count=2))
        async with asyncio.timeout(10):
            while not former.outcomes:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        at = datetime.now(UTC) - timedelta(seconds=30)
        scheduled = {"type": "PodScheduled", "lastTransitionTime": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
        api.pods["default", "a"]["status"]["conditions"] = [scheduled]
        await heir.lead(*api.pods.values())
        assert 25 < heir.unfinished[0].bound_for_s < 5000  # and not a million
    finally:
        await former.stop()
        await heir.stop()


# The two writes about a pod.


@pytest.mark.parametrize(
    "fault", [{"drop": True}, {"drop": True, "execute": True}, {"status": 500}, {"status": 429}]
)
@pytest.mark.parametrize("pattern", ["PATCH .*/status", "DELETE"])
async def test_deletions_are_repeated_until_they_are_certain(
    api: ApiServer, new_leader: NewLeader, until: Until, pattern: str, fault: dict[str, Any]
) -> None:
    leader = new_leader("a")
    await leader.lead()
    [a] = add(api, "a")
    leader.committer.start(commit(a, min_count=2))
    await until(lambda: leader.outcomes)
    api.fault(pattern, **fault)
    leader.committer.compensate("t", "no room")
    await until(lambda: leader.ended)
    assert api.pods == {}


async def test_a_pod_of_another_uid_is_left_alone(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    a, b = add(api, "a", "b")
    api.fault("POST .*/b/binding", delay_s=0.3)
    leader.committer.start(commit(a, b, min_count=3))
    await until(lambda: "a" in leader.outcomes and api.count("b/binding"))
    for name in ("a", "b"):
        api.delete_pod(name)
        api.add_pod(name, uid=f"new-{name}")
    leader.committer.compensate("t", "no room")
    await until(lambda: leader.ended)
    assert leader.outcomes["b"] == Gone()
    assert {pod["metadata"]["uid"] for pod in api.pods.values()} == {"new-a", "new-b"}
    assert api.patches == []


async def test_a_pod_that_cannot_be_told_why_is_deleted_all_the_same(
    api: ApiServer, new_leader: NewLeader, until: Until
) -> None:
    leader = new_leader("a")
    await leader.lead()
    [a] = add(api, "a")
    leader.committer.start(commit(a, min_count=2))
    await until(lambda: leader.outcomes)
    api.fault("PATCH .*/status", status=422, reason="Invalid", times=9)
    leader.committer.compensate("t", "no room")
    await until(lambda: leader.ended)
    assert api.pods == {}
