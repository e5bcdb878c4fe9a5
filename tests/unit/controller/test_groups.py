"""Writing statuses and creating groups, when the API server does not do as one would like."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from scheduler.controller.creating import Creating, WorkloadKey
from scheduler.controller.groups import Groups
from scheduler.controller.members import Members
from scheduler.controller.reports import Reports
from scheduler.controller.shapes import GroupObject, Key, MemberPod
from scheduler.controller.workloads import workload
from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError, ErrorKind
from tests.unit.controller.group_server import GroupServer, Json, serving

G = Key("default", "g")
JOBS = "/apis/batch/v1/namespaces/default/jobs"
LABEL = "scheduling.x-k8s.io/pod-group"


class Desk:
    """All parts that write, put together."""

    def __init__(self, server: GroupServer, client: KubeClient) -> None:
        self.server = server
        self.written: list[str] = []
        self.gone: list[Key] = []
        self.now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        self.may_write = True
        self.members = Members(lambda key: None, on_synced=lambda: None)
        reports = Reports(client)
        self.groups = Groups(
            client,
            self.members,
            reports,
            may_write=lambda: self.may_write,
            ours=lambda name: name == "wholepod",
            now=lambda: self.now,
            on_written=self.written.append,
            on_gone=self.gone.append,
        )
        self.created: list[str] = []
        self.creating = Creating(client, self.groups, reports, on_created=self.created.append)

    def see(self, manifest: Json) -> None:
        """As a watch would bring it now."""
        self.groups.seen(msgspec.convert(manifest, GroupObject))

    def pod(self, name: str, group: str, *, scheduler: str = "wholepod", seen: bool = True) -> None:
        metadata = {"name": name, "namespace": "default", "labels": {LABEL: group}}
        manifest = {"metadata": metadata, "spec": {"schedulerName": scheduler}}
        self.server.pods.append(manifest)
        if seen:
            self.members.upsert(msgspec.convert(manifest, MemberPod))

    def job(self, name: str = "g", *, uid: str = "uid-g") -> WorkloadKey:
        metadata = {
            "name": name,
            "namespace": "default",
            "uid": uid,
            "annotations": {"wholepod.io/create-pod-group": "true"},
        }
        template = {"metadata": {"labels": {LABEL: "g"}}}
        manifest = {"metadata": metadata, "spec": {"parallelism": 2, "template": template}}
        key = self.creating.seen(workload("Job", manifest))
        assert key is not None
        return key

    @property
    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.server.events.values()]


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    async with serving() as (server, client):
        yield Desk(server, client)


# Statuses.


async def test_a_status_is_written_once(desk: Desk) -> None:
    desk.see(desk.server.add_group("g", spec={"minMember": 1}))
    assert await desk.groups.reconcile(G) is None
    assert desk.server.group("g")["status"]["phase"] == "Pending"
    await desk.groups.reconcile(G)
    assert (len(desk.server.writes), desk.written) == (1, ["written"])
    assert desk.groups.phases() == {"Pending": 1}


async def test_nothing_is_written_on_a_picture_that_is_not_complete(desk: Desk) -> None:
    desk.see(desk.server.add_group("g"))
    desk.may_write = False
    assert await desk.groups.reconcile(G) is not None
    assert desk.server.writes == []


async def test_somebody_else_was_quicker(desk: Desk) -> None:
    desk.see(desk.server.add_group("g"))
    theirs = desk.server.add_group("g", status={"phase": "Pending", "running": 7})
    again_s = await desk.groups.reconcile(G)
    assert again_s is not None
    assert desk.written == ["conflict"]
    assert theirs["status"]["running"] == 7
    desk.see(theirs)
    await desk.groups.reconcile(G)
    assert desk.server.group("g")["status"]["running"] == 0


async def test_a_group_that_is_gone_is_forgotten(desk: Desk) -> None:
    desk.see(desk.server.add_group("g"))
    desk.server.objects.clear()
    assert await desk.groups.reconcile(G) is None
    assert desk.groups.get(G) is None
    assert await desk.groups.reconcile(G) is None
    assert len(desk.server.writes) == 1


async def test_a_group_of_the_same_name_is_not_written_to(desk: Desk) -> None:
    desk.see(desk.server.add_group("g"))
    other = desk.server.add_group("g", metadata={"uid": "another"})
    await desk.groups.reconcile(G)
    assert "status" not in other


async def test_an_older_picture_of_the_pods_takes_nothing_back(desk: Desk) -> None:
    desk.pod("a", "g")
    desk.pod("b", "g", seen=False)
    start = "2026-01-01T00:00:00Z"
    theirs = {"phase": "Scheduling", "scheduled": 0, "scheduleStartTime": start}
    desk.see(desk.server.add_group("g", spec={"minMember": 2}, status=theirs))
    await desk.groups.reconcile(G)
    assert desk.server.group("g")["status"]["phase"] == "Scheduling"
    assert desk.server.group("g")["status"]["scheduleStartTime"] == start
    del desk.server.pods[1]
    await desk.groups.reconcile(G)
    assert desk.server.group("g")["status"]["phase"] == "Pending"


async def test_failures_are_for_the_queue(desk: Desk) -> None:
    desk.see(desk.server.add_group("g"))
    desk.server.fail("PATCH", 503)
    with pytest.raises(ApiError) as failure:
        await desk.groups.reconcile(G)
    assert failure.value.kind is ErrorKind.SERVER_ERROR
    await desk.groups.reconcile(G)
    assert desk.written == ["error", "written"]


async def test_a_crd_without_conditions(desk: Desk) -> None:
    desk.server.not_stored = {"conditions", "scheduled"}
    desk.see(desk.server.add_group("g"))
    await desk.groups.reconcile(G)
    desk.pod("a", "g")
    for _ in range(3):
        await desk.groups.reconcile(G)
    assert desk.written == ["written", "written"]


async def test_a_timeout_is_told_once_and_also_when_nothing_is_written(desk: Desk) -> None:
    desk.see(desk.server.add_group("g", spec={"minMember": 1, "scheduleTimeoutSeconds": 30}))
    desk.pod("a", "g")
    assert await desk.groups.reconcile(G) == 30
    desk.now += datetime.timedelta(seconds=31)
    desk.server.fail("events", 500)
    with pytest.raises(ApiError):
        await desk.groups.reconcile(G)
    for _ in range(2):
        await desk.groups.reconcile(G)
    assert desk.reasons == ["ScheduleTimeout"]


async def test_another_schedulers_group(desk: Desk) -> None:
    desk.see(desk.server.add_group("g"))
    desk.pod("a", "g", scheduler="theirs")
    await desk.groups.reconcile(G)
    assert desk.server.writes == []
    desk.pod("b", "g")
    await desk.groups.reconcile(G)
    assert desk.written == ["written"]


async def test_a_deletion_that_the_watch_missed(desk: Desk) -> None:
    for n in range(5):
        desk.see(desk.server.add_group(f"g-{n}"))
    path = next(path for path in desk.server.objects if path.endswith("/g-3"))
    del desk.server.objects[path]
    await desk.groups.resync()
    assert desk.gone == [Key("default", "g-3")]
    assert len(desk.groups.names()) == 4
    desk.server.fail("GET", 404)
    await desk.groups.resync()
    assert len(desk.groups.names()) == 4


# Creation.


async def test_a_group_is_created(desk: Desk) -> None:
    desk.server.add(JOBS, "g")
    await desk.creating.reconcile(desk.job())
    assert desk.server.group("g")["spec"] == {"minMember": 2}
    assert desk.created == ["Job"]
    assert desk.creating.asking_for(G) == [WorkloadKey("Job", G)]


async def test_nothing_is_created_for_who_is_gone(desk: Desk) -> None:
    key = desk.job()
    await desk.creating.reconcile(key)
    desk.server.add(JOBS, "g", metadata={"uid": "another"})
    await desk.creating.reconcile(desk.job())
    assert desk.server.writes == []
    assert desk.creating.asking_for(G) == []


async def test_a_group_that_was_there_before_we_saw_it(desk: Desk) -> None:
    desk.server.add(JOBS, "g")
    key = desk.job()
    group = desk.server.add_group("g", spec={"minMember": 9})
    assert await desk.creating.reconcile(key) is not None, "the watch will bring it"
    desk.see(group)
    await desk.creating.reconcile(key)
    assert desk.reasons == ["PodGroupTaken"]
    assert desk.server.group("g")["spec"] == {"minMember": 9}


async def test_the_group_of_a_namesake_goes_with_it(desk: Desk) -> None:
    desk.server.add(JOBS, "g")
    owner = {"kind": "Job", "name": "g", "uid": "of the one before", "controller": True}
    desk.see(desk.server.add_group("g", metadata={"ownerReferences": [owner]}))
    assert await desk.creating.reconcile(desk.job()) is not None
    assert desk.reasons == []


async def test_a_group_follows_its_owner(desk: Desk) -> None:
    owner = {"kind": "Job", "name": "g", "uid": "uid-g", "controller": True}
    group = desk.server.add_group("g", spec={"minMember": 5}, metadata={"ownerReferences": [owner]})
    desk.see(group)
    desk.server.fail("PATCH", 409, "Conflict")
    key = desk.job()
    await desk.creating.reconcile(key)
    assert group["spec"] == {"minMember": 5}
    await desk.creating.reconcile(key)
    assert group["spec"] == {"minMember": 2}
    await desk.creating.reconcile(key)
    assert len(desk.server.writes) == 2


@pytest.mark.parametrize(
    ("status", "reason", "again"), [(404, "PodGroupsNotServed", True), (422, "PodGroupRefused", False)]
)
async def test_what_the_api_server_refuses(desk: Desk, status: int, reason: str, again: bool) -> None:
    desk.server.add(JOBS, "g")
    desk.server.fail("POST", status)
    answer = await desk.creating.reconcile(desk.job())
    assert (answer is not None) is again
    assert desk.reasons == [reason]


@pytest.mark.parametrize("field", ["annotations", "deletionTimestamp"])
async def test_who_asks_no_more(desk: Desk, field: str) -> None:
    key = desk.job()
    value: Any = {} if field == "annotations" else "2026-01-02T03:04:05Z"
    asks = {"annotations": {"wholepod.io/create-pod-group": "true"}}
    metadata = {"name": "g", "namespace": "default", **asks, field: value}
    assert desk.creating.seen(workload("Job", {"metadata": metadata})) is None
    await desk.creating.reconcile(key)
    assert desk.server.writes == []


# Members.


async def test_members_that_change_their_group_and_go(desk: Desk) -> None:
    changed: list[Key] = []
    members = Members(changed.append, on_synced=lambda: None)

    def pod(name: str, group: str | None) -> MemberPod:
        labels = {LABEL: group} if group else {}
        return msgspec.convert(
            {"metadata": {"name": name, "namespace": "default", "labels": labels}}, MemberPod
        )

    members.upsert(pod("a", "one"))
    members.upsert(pod("a", "other"))
    assert (members.count(Key("default", "one")).exist, members.count(Key("default", "other")).exist) == (
        0,
        1,
    )
    assert [key.name for key in changed] == ["one", "one", "other"]
    members.upsert(pod("a", None))
    assert len(members) == 0
    members.replace([pod("b", "one"), pod("c", "one")])
    assert members.count(Key("default", "one")).exist == 2
    changed.clear()
    members.replace([])
    assert changed == [Key("default", "one")], "groups that have lost all of them are looked at, too"
    members.delete(pod("b", "one"))
