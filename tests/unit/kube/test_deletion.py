"""Each answer to the deletion of a victim, on purpose: what it ends in, and what is sent until then."""

import random
from typing import Any

import pytest

from scheduler.kube.binding import Gone, Refused
from scheduler.kube.client import KubeClient
from scheduler.kube.deletion import Deleted, Deletion, DeletionOutcome
from scheduler.kube.payloads import Condition, DeleteRequest, StatusPatch
from scheduler.kube.steps import Again
from tests.unit.kube.api_server import ApiServer

PATCH, DELETE, GET = "PATCH .*/status", "DELETE .*/pods/a", "GET .*/pods/a"
CONDITION = Condition("DisruptionTarget", "True", "PreemptionByScheduler", "why", 1, transitioned=True)


async def settle(
    client: KubeClient, *, uid: str = "u", condemned: bool = False
) -> tuple[DeletionOutcome, list[Again]]:
    """All steps of the deletion of pod default/a, without the waits between them."""
    why = None if condemned else StatusPatch("default", "a", uid, CONDITION)
    deletion = Deletion(DeleteRequest("default", "a", uid, why), rng=random.Random(1))
    steps: list[Again] = []
    for _ in range(100):
        result = await deletion.step(client)
        assert deletion.undecided
        if not isinstance(result, Again):
            return result, steps
        steps.append(result)
    raise AssertionError("never settled")


def sent(api: ApiServer) -> list[str]:
    return [line.split(" ")[0] for line in api.requests]


async def test_the_pod_says_why_before_it_goes(api: ApiServer, client: KubeClient) -> None:
    pod = api.add_pod("a", uid="u", terminationGracePeriodSeconds=30)
    assert await settle(client) == (Deleted(), [Again(retry=False)])
    assert sent(api) == ["PATCH", "DELETE"]
    pod = api.pods["default", "a"]
    assert pod["metadata"]["deletionTimestamp"]
    assert [c["message"] for c in pod["status"]["conditions"]] == ["why"]


async def test_what_it_says_already_is_not_said_again(api: ApiServer, client: KubeClient) -> None:
    api.add_pod("a", uid="u")
    assert await settle(client, condemned=True) == (Deleted(), [])
    assert api.pods == {}


async def test_gone(api: ApiServer, client: KubeClient) -> None:
    assert await settle(client) == (Gone(), [])
    assert sent(api) == ["PATCH"]


async def test_gone_in_between(api: ApiServer, client: KubeClient) -> None:
    api.add_pod("a", uid="u")
    api.executed = lambda line: api.pods.clear() if line.startswith("DELETE") else None
    assert (await settle(client))[0] == Deleted()


@pytest.mark.parametrize(("condemned", "outcome"), [(False, Gone()), (True, Deleted())])
async def test_another_pod_of_that_name_is_left_alone(
    api: ApiServer, client: KubeClient, condemned: bool, outcome: DeletionOutcome
) -> None:
    api.add_pod("a", uid="other")
    assert (await settle(client, condemned=condemned))[0] == outcome
    assert api.pods["default", "a"]["status"] == {"phase": "Pending"}
    assert sent(api)[-1] == "GET"


@pytest.mark.parametrize("request_", [PATCH, DELETE])
async def test_a_conflict_of_another_kind_is_tried_again(
    api: ApiServer, client: KubeClient, request_: str
) -> None:
    api.add_pod("a", uid="u")
    api.fault(request_, status=409, reason="Conflict")
    assert (await settle(client))[0] == Deleted()
    assert api.count(request_) == 2
    assert api.pods == {}


@pytest.mark.parametrize("grace_s", [0, 30])
@pytest.mark.parametrize("execute", [True, False])
@pytest.mark.parametrize("request_", [PATCH, DELETE])
@pytest.mark.parametrize("how", [{"drop": True}, {"status": 500}, {"status": 504}])
async def test_a_lost_answer_is_asked_for_again(
    api: ApiServer, client: KubeClient, request_: str, how: dict[str, Any], execute: bool, grace_s: int
) -> None:
    api.add_pod("a", uid="u", terminationGracePeriodSeconds=grace_s)
    api.fault(request_, execute=execute, **how)
    # Whoever deleted it in the meantime: it is gone, and it was to go.
    assert (await settle(client))[0] == Deleted()
    assert api.count(request_) == 2


async def test_an_answer_is_lost_and_the_name_taken_again(api: ApiServer, client: KubeClient) -> None:
    api.add_pod("a", uid="u")
    api.fault(DELETE, drop=True, execute=True)

    def recreate(line: str) -> None:
        if api.count("DELETE") == 2 and not api.pods:
            api.add_pod("a", uid="new")

    api.executed = recreate
    assert (await settle(client))[0] == Deleted()
    assert api.pods["default", "a"]["metadata"]["uid"] == "new"
    assert "deletionTimestamp" not in api.pods["default", "a"]["metadata"]


async def test_throttled_waits_as_told(api: ApiServer, client: KubeClient) -> None:
    api.add_pod("a", uid="u")
    api.fault(DELETE, status=429, headers={"Retry-After": "3"}, times=20)
    outcome, steps = await settle(client, condemned=True)
    assert (outcome, steps) == (Deleted(), [Again(pause_s=3.0)] * 20)


async def test_a_server_that_is_away_is_waited_for(api: ApiServer, client: KubeClient) -> None:
    api.add_pod("a", uid="u")
    await api.stop()
    deletion = Deletion(DeleteRequest("default", "a", "u"), rng=random.Random(1))
    assert [await deletion.step(client) for _ in range(20)] == [Again(pause_s=0.5)] * 20
    await api.start()
    assert await deletion.step(client) == Deleted()


@pytest.mark.parametrize("request_", [PATCH, DELETE])
@pytest.mark.parametrize("status", [401, 403, 500])
async def test_it_is_given_up_in_the_end(
    api: ApiServer, client: KubeClient, request_: str, status: int
) -> None:
    api.add_pod("a", uid="u")
    api.fault(request_, status=status, message="no, never", times=99)
    outcome, steps = await settle(client)
    assert isinstance(outcome, Refused)
    assert "no, never" in outcome.message
    assert api.count(request_) == 8
    delays = [step.delay_s for step in steps if step.delay_s]
    assert len(delays) == 7
    assert sum(delays) > 10
    assert api.pods


async def test_what_is_wrong_stays_wrong(api: ApiServer, client: KubeClient) -> None:
    api.add_pod("a", uid="u")
    api.fault(PATCH, status=422, reason="Invalid", message="bad condition")
    outcome, _ = await settle(client)
    assert isinstance(outcome, Refused)
    assert sent(api) == ["PATCH"]


async def test_a_pod_that_cannot_be_read_is_not_asked_for_for_ever(
    api: ApiServer, client: KubeClient
) -> None:
    api.add_pod("a", uid="u")
    api.fault(DELETE, status=409, reason="Conflict")
    api.fault(GET, status=500, times=99)
    assert isinstance((await settle(client))[0], Refused)
    assert api.pods
