"""Each answer to a bind, on purpose: what it ends in, and what is sent until then."""

import random

import pytest

from scheduler.kube.binding import Binding, BindOutcome, Bound, BoundElsewhere, Gone, Refused
from scheduler.kube.client import KubeClient
from scheduler.kube.payloads import BindRequest
from scheduler.kube.steps import Again
from tests.unit.kube.api_server import ApiServer

POST = "POST .*/binding"
GET = "GET /api/v1/namespaces"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def settle(
    client: KubeClient, clock: Clock, *, uid: str = "u", annotations: dict[str, str] | None = None
) -> tuple[BindOutcome, list[Again]]:
    """All steps of a bind of pod default/a to node n1; the clock goes on instead of us waiting."""
    request = BindRequest("default", "a", uid, "n1", annotations)
    binding = Binding(request, rng=random.Random(1), clock=clock)
    steps: list[Again] = []
    for _ in range(100):
        result = await binding.step(client)
        if not isinstance(result, Again):
            return result, steps
        steps.append(result)
        clock.now += result.delay_s + result.pause_s
    raise AssertionError("never settled")


async def test_accepted(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u")
    assert await settle(client, clock, annotations={"k": "v"}) == (Bound("n1"), [])
    assert api.pods["default", "a"]["spec"]["nodeName"] == "n1"
    assert api.pods["default", "a"]["metadata"]["annotations"] == {"k": "v"}
    assert len(api.requests) == 1


async def test_pod_is_gone(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    assert (await settle(client, clock))[0] == Gone()
    assert len(api.requests) == 1


async def test_another_pod_of_that_name(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="other")
    assert (await settle(client, clock))[0] == Gone()
    assert "nodeName" not in api.pods["default", "a"]["spec"]


async def test_bound_elsewhere_by_somebody_else(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u", nodeName="n9")
    assert (await settle(client, clock))[0] == BoundElsewhere("n9")


async def test_being_deleted(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    outcome, _ = await settle(client, clock)
    assert isinstance(outcome, Refused)
    assert "being deleted" in outcome.message


async def test_gated(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u", schedulingGates=[{"name": "wait"}])
    outcome, _ = await settle(client, clock)
    assert isinstance(outcome, Refused)
    assert "schedulingGates" in outcome.message


async def test_deleted_between_the_conflict_and_the_read(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="other")
    api.executed = lambda line: api.pods.clear() if line.startswith("GET") else None
    assert (await settle(client, clock))[0] == Gone()


async def test_throttled_waits_as_told_and_sends_the_same(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, status=429, reason="TooManyRequests", headers={"Retry-After": "3"}, times=2)
    outcome, steps = await settle(client, clock)
    assert outcome == Bound("n1")
    assert steps == [Again(pause_s=3.0)] * 2
    assert api.count(GET) == 0


async def test_throttled_without_a_time_waits_a_second(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, status=429)
    assert (await settle(client, clock))[1] == [Again(pause_s=1.0)]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_server_error_before_execution_is_sent_again(
    api: ApiServer, client: KubeClient, clock: Clock, status: int
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, status=status, times=3)
    outcome, steps = await settle(client, clock)
    assert outcome == Bound("n1")
    assert (api.count(POST), api.count(GET)) == (4, 3)  # read before each repetition
    delays = [step.delay_s for step in steps if step.delay_s]
    assert delays == sorted(delays)
    assert len(delays) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_server_error_after_execution_is_seen_by_reading(
    api: ApiServer, client: KubeClient, clock: Clock, status: int
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, status=status, execute=True)
    assert (await settle(client, clock))[0] == Bound("n1")
    assert (api.count(POST), api.count(GET)) == (1, 1)


async def test_lost_answer_of_an_executed_bind(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True, execute=True)
    assert (await settle(client, clock))[0] == Bound("n1")
    assert api.count(POST) == 1


async def test_lost_request(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True)
    assert (await settle(client, clock))[0] == Bound("n1")
    assert api.count(POST) == 2


async def test_lost_answer_and_pod_gone_since(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True, execute=True)
    api.executed = lambda line: api.pods.clear() if line.startswith("GET") else None
    assert (await settle(client, clock))[0] == Gone()


async def test_lost_request_and_somebody_else_was_faster(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True)

    def steal(line: str) -> None:
        if line.startswith("GET"):
            api.modify_pod("a", nodeName="n2")

    api.executed = steal
    assert (await settle(client, clock))[0] == BoundElsewhere("n2")


async def test_reads_go_on_until_one_is_answered(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True, execute=True)
    for status in (500, 403, 401, 504):
        api.fault(GET, status=status)
    api.fault(GET, status=429, headers={"Retry-After": "2"})
    outcome, steps = await settle(client, clock)
    assert outcome == Bound("n1")
    assert api.count(POST) == 1
    assert Again(pause_s=2.0) in steps


async def test_a_late_first_attempt_counts_when_the_second_conflicts(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True)
    sent = 0

    def first_one_arrives_late(line: str) -> None:
        nonlocal sent
        if "binding" in line:
            sent += 1
            api.modify_pod("a", nodeName="n1")

    api.executed = first_one_arrives_late
    assert (await settle(client, clock))[0] == Bound("n1")
    assert sent == 1  # the second attempt, a 409
    assert api.count(GET) == 2


async def test_unreachable_is_tried_again_and_nothing_is_read(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="u")
    await api.stop()
    binding = Binding(BindRequest("default", "a", "u", "n1"), rng=random.Random(1), clock=clock)
    for _ in range(5):
        assert await binding.step(client) == Again(pause_s=0.5)
        assert not binding.undecided
    await api.start()
    assert await binding.step(client) == Bound("n1")
    assert api.count(GET) == 0


async def test_answer_lost_in_a_restart(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True, execute=True)
    binding = Binding(BindRequest("default", "a", "u", "n1"), rng=random.Random(1), clock=clock)
    assert isinstance(await binding.step(client), Again)
    assert binding.undecided
    await api.stop()
    for _ in range(3):
        assert await binding.step(client) == Again(pause_s=0.5)
        assert binding.undecided
    await api.start()
    assert await binding.step(client) == Bound("n1")
    assert api.count(POST) == 1


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        (400, "BadRequest", "cannot create pods/binding: the API server answered 400: why"),
        (401, "Unauthorized", "token or certificate rejected"),
        (403, "Forbidden", "not allowed to create pods/binding: grant it"),
        (422, "Invalid", "cannot create pods/binding: the API server answered 422: why"),
    ],
)
async def test_refusals_end_at_once_and_say_why(
    api: ApiServer, client: KubeClient, clock: Clock, status: int, reason: str, text: str
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, status=status, reason=reason, message="why", times=9)
    outcome, steps = await settle(client, clock)
    assert isinstance(outcome, Refused)
    assert outcome.message.startswith(text)
    assert steps == []
    assert len(api.requests) == 1


async def test_refusal_of_a_repetition_waits_for_the_first_attempt(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True)
    api.fault(POST, status=403, reason="Forbidden", message="no more")
    outcome, _ = await settle(client, clock)
    assert isinstance(outcome, Refused)
    assert clock.now >= 75.0  # until the lost one cannot be executed any more
    assert api.count(POST) == 2


async def test_refusal_of_a_repetition_and_the_first_attempt_arrives(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    api.add_pod("a", uid="u")
    api.fault(POST, drop=True)
    api.fault(POST, status=403, reason="Forbidden", message="no more")

    def arrive(line: str) -> None:
        if line.startswith("GET") and clock.now > 20.0 and not api.pods["default", "a"]["spec"]:
            api.modify_pod("a", nodeName="n1")

    api.executed = arrive
    assert (await settle(client, clock))[0] == Bound("n1")


# Binds of one version of the pod.


async def settle_version(client: KubeClient, clock: Clock, version: str) -> tuple[BindOutcome, list[Again]]:
    request = BindRequest("default", "a", "u", "n1", None, version)
    binding = Binding(request, rng=random.Random(1), clock=clock)
    steps: list[Again] = []
    for _ in range(100):
        result = await binding.step(client)
        if not isinstance(result, Again):
            return result, steps
        steps.append(result)
        clock.now += result.delay_s + result.pause_s
    raise AssertionError("never settled")


async def test_the_version_that_was_asked_for_is_bound(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    version = api.add_pod("a", uid="u")["metadata"]["resourceVersion"]
    assert await settle_version(client, clock, version) == (Bound("n1"), [])


async def test_another_version_is_not_bound_and_says_which_it_is(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    version = api.add_pod("a", uid="u")["metadata"]["resourceVersion"]
    newer = api.modify_pod("a", priority=1)["metadata"]["resourceVersion"]
    outcome, _ = await settle_version(client, clock, version)
    assert isinstance(outcome, Refused)
    assert outcome.newer_version == newer
    assert "nodeName" not in api.pods["default", "a"]["spec"]


async def test_a_change_settles_a_lost_attempt_at_once(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    version = api.add_pod("a", uid="u")["metadata"]["resourceVersion"]
    newer = api.modify_pod("a", priority=1)["metadata"]["resourceVersion"]
    api.fault(POST, drop=True)
    outcome, _ = await settle_version(client, clock, version)
    assert outcome == Refused("the pod has changed since the decision", newer)
    assert api.count(POST) == 1
    assert clock.now < 1.0


async def test_a_refusal_of_the_right_version_names_no_other(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    version = api.add_pod("a", uid="u", schedulingGates=[{"name": "wait"}])["metadata"]["resourceVersion"]
    outcome, _ = await settle_version(client, clock, version)
    assert isinstance(outcome, Refused)
    assert outcome.newer_version == ""
