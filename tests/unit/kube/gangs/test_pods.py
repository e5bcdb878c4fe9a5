"""What the API server will not do for a pod: how touches and deletions that it refuses end."""

import random

from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.actions import TXN_ANNOTATION, Member
from scheduler.kube.gangs.pods import PodWrites
from scheduler.kube.gangs.recovery import Found
from tests.unit.kube.api_server import ApiServer


async def test_a_touch_that_is_refused_waits_until_no_late_bind_is_possible(
    api: ApiServer, client: KubeClient
) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 30.0
        return now

    version = api.add_pod("a", uid="u")["metadata"]["resourceVersion"]
    api.fault("PATCH .*/status", status=422, reason="Invalid", times=9)

    def bind_late(line: str) -> None:
        if line.startswith("GET") and not api.pods["default", "a"]["spec"]:
            api.pods["default", "a"]["metadata"]["annotations"] = {TXN_ANNOTATION: "t"}
            api.modify_pod("a", nodeName="n1")

    api.executed = bind_late
    member = Member("default", "a", "u", version, "", True)
    found = await PodWrites(client, rng=random.Random(1), clock=clock).touch(member, "mark")
    assert found == Found(api.pods["default", "a"]["metadata"]["resourceVersion"], "n1", "t")
    assert now >= 75.0
    assert api.count("PATCH") == 3


async def test_a_refused_deletion_is_not_begun_anew_when_it_is_not_wanted_any_more(
    api: ApiServer, client: KubeClient
) -> None:
    version = api.add_pod("a", uid="u")["metadata"]["resourceVersion"]
    api.fault("DELETE .*", status=422, reason="Invalid", times=9)
    asked = iter([True, False])
    member = Member("default", "a", "u", version, "n1", True)
    writes = PodWrites(client, rng=random.Random(1), clock=lambda: 0.0)
    await writes.delete(member, reason="R", message="m", is_wanted=lambda: next(asked))
    assert api.count("DELETE") == 2
    assert ("default", "a") in api.pods
