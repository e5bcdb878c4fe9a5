import random
import re
from typing import Any

import pytest

from scheduler.kube.client import KubeClient
from scheduler.kube.lease import LeaseConfig, LeaseLock
from tests.unit.kube.api_server import ApiServer

KEY = ("kube-system", "wholepod")
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lock(client: KubeClient, clock: Clock, identity: str, **config: Any) -> LeaseLock:
    return LeaseLock(client, LeaseConfig(**config), identity=identity, clock=clock)


def spec(api: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = api.leases[KEY]["spec"]
    return found


async def test_first_one_creates_the_lease(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    a = lock(client, clock, "a")
    assert not a.leading
    assert await a.acquire_or_renew()
    assert a.leading
    record = spec(api)
    assert MICRO_TIME.fullmatch(record["acquireTime"])
    assert record["renewTime"] == record["acquireTime"]
    assert (record["holderIdentity"], record["leaseDurationSeconds"]) == ("a", 15)
    assert record["leaseTransitions"] == 0


async def test_name_and_namespace_can_be_chosen(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    assert await lock(client, clock, "a", namespace="ops", name="s").acquire_or_renew()
    assert list(api.leases) == [("ops", "s")]


async def test_renewing_is_one_request_and_keeps_the_acquire_time(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    before = dict(spec(api))
    api.leases[KEY]["metadata"]["labels"] = {"mine": "yes"}
    api.requests.clear()
    assert await a.acquire_or_renew()
    assert len(api.requests) == 1
    assert spec(api)["renewTime"] > before["renewTime"]
    assert spec(api)["acquireTime"] == before["acquireTime"]
    assert spec(api)["leaseTransitions"] == 0


async def test_labels_on_the_lease_survive(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    api.leases[KEY]["metadata"]["labels"] = {"mine": "yes"}
    await b.acquire_or_renew()
    clock.now += 15
    assert await b.acquire_or_renew()
    assert api.leases[KEY]["metadata"]["labels"] == {"mine": "yes"}


async def test_we_lead_until_the_deadline_after_the_last_renewal(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    clock.now += 9.9
    assert a.leading
    clock.now += 0.2
    assert not a.leading


async def test_the_deadline_counts_from_the_start_of_the_request(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    def slow(line: str) -> None:
        clock.now += 4.0

    a = lock(client, clock, "a")
    api.executed = slow
    await a.acquire_or_renew()
    assert a.leading_until <= 1000.0 + 4.0 + 10.0  # one answer to the read, then the creation


async def test_a_held_lease_is_respected_until_it_stops_changing(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    for _ in range(20):
        clock.now += 5
        assert await a.acquire_or_renew()
        assert not await b.acquire_or_renew()
    assert b.holder == "a"
    clock.now += 14.9
    assert not await b.acquire_or_renew()
    clock.now += 0.2
    assert await b.acquire_or_renew()
    assert (spec(api)["holderIdentity"], spec(api)["leaseTransitions"]) == ("b", 1)


async def test_expiry_is_counted_from_our_first_look(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    await lock(client, clock, "a").acquire_or_renew()
    spec(api)["renewTime"] = "2001-01-01T00:00:00.000000Z"  # its clock says nothing to us
    clock.now += 1000
    b = lock(client, clock, "b")
    assert not await b.acquire_or_renew()
    clock.now += 15.1
    assert await b.acquire_or_renew()


async def test_the_records_own_duration_counts(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    await lock(client, clock, "a", lease_duration_s=60).acquire_or_renew()
    b = lock(client, clock, "b")
    assert not await b.acquire_or_renew()
    clock.now += 59
    assert not await b.acquire_or_renew()
    clock.now += 2
    assert await b.acquire_or_renew()


async def test_of_two_that_see_it_expire_one_wins(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    await lock(client, clock, "a").acquire_or_renew()
    b, c = lock(client, clock, "b"), lock(client, clock, "c")
    await b.acquire_or_renew()
    await c.acquire_or_renew()
    clock.now += 16
    taken: list[bool] = []

    def c_was_faster(line: str) -> None:
        if line.startswith("PUT") and not taken:
            taken.append(True)
            api.leases[KEY]["metadata"]["resourceVersion"] = "9999"
            spec(api)["holderIdentity"] = "c"

    api.executed = c_was_faster
    assert not await b.acquire_or_renew()
    assert not b.leading
    assert not await b.acquire_or_renew()  # and now it sees c's record
    assert b.holder == "c"


async def test_one_that_lost_the_lease_does_not_lead(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    await b.acquire_or_renew()
    clock.now += 16
    await b.acquire_or_renew()
    assert not a.leading
    assert not await a.acquire_or_renew()
    assert a.holder == "b"
    assert spec(api)["holderIdentity"] == "b"


async def test_a_lease_edited_by_hand_ends_our_lead(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    api.leases[KEY]["metadata"]["resourceVersion"] = "9999"
    spec(api)["holderIdentity"] = "somebody"
    assert not await a.acquire_or_renew()
    assert not a.leading


@pytest.mark.parametrize("execute", [True, False])
async def test_a_lost_answer_to_a_renewal_is_made_up_for(
    api: ApiServer, client: KubeClient, clock: Clock, execute: bool
) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    before = spec(api)["acquireTime"]
    clock.now += 2
    api.fault("PUT", status=504, execute=execute)
    assert not await a.acquire_or_renew()
    assert a.leading_until == 1010.0
    assert await a.acquire_or_renew()
    assert a.leading_until == 1012.0
    assert (spec(api)["acquireTime"], spec(api)["leaseTransitions"]) == (before, 0)


async def test_a_lost_answer_to_the_creation_is_made_up_for(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a = lock(client, clock, "a")
    api.fault("POST", drop=True, execute=True)
    assert not await a.acquire_or_renew()
    assert not a.leading
    assert await a.acquire_or_renew()
    assert spec(api)["leaseTransitions"] == 0


async def test_a_deleted_lease_is_made_anew(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    api.leases.clear()
    assert await a.acquire_or_renew()
    assert spec(api)["holderIdentity"] == "a"


async def test_a_leadership_that_has_ended_does_not_come_back_to_life(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    """Stopped just before its renewal was sent, and gone on after another one has led and released."""
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    await b.acquire_or_renew()
    clock.now += 16
    assert await b.acquire_or_renew()
    await b.release()
    assert not await a.acquire_or_renew()
    assert not a.leading
    assert spec(api)["holderIdentity"] == ""


async def test_a_lease_deleted_after_its_deadline_is_not_made_anew_by_who_held_it(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    clock.now += 16
    api.leases.clear()
    assert not await a.acquire_or_renew()
    assert not api.leases


async def test_release_lets_the_next_one_in_at_once(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    await b.acquire_or_renew()
    await a.release()
    assert not a.leading
    assert (spec(api)["holderIdentity"], spec(api)["leaseDurationSeconds"]) == ("", 1)
    assert await b.acquire_or_renew()
    assert spec(api)["leaseTransitions"] == 1


async def test_release_takes_nothing_from_others(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    await b.acquire_or_renew()
    clock.now += 16
    await b.acquire_or_renew()
    await a.release()  # a has not noticed yet: the resourceVersion saves b
    assert spec(api)["holderIdentity"] == "b"
    await lock(client, clock, "c").release()
    assert spec(api)["holderIdentity"] == "b"


async def test_a_record_that_makes_no_sense_is_no_reason_to_die(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    spec(api)["leaseTransitions"] = "many"
    assert not await lock(client, clock, "b").acquire_or_renew()


@pytest.mark.parametrize(
    ("durations", "text"),
    [
        ({"lease_duration_s": 10}, r"leaseDuration \(10 s\) must be longer than renewDeadline \(10.0 s\)"),
        ({"renew_deadline_s": 2.4}, r"renewDeadline \(2.4 s\) must be longer than 1.2 x retryPeriod"),
        ({"retry_period_s": 0.0}, r"retryPeriod \(0.0 s\) must be above 0"),
    ],
)
def test_durations_that_cannot_work_are_refused(durations: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LeaseConfig(**durations)


async def test_candidates_do_not_come_in_step(client: KubeClient, clock: Clock) -> None:
    a = lock(client, clock, "a")
    delays = {a.retry_delay_s(random.Random(seed)) for seed in range(20)}
    assert len(delays) == 20
    assert all(1.0 <= delay <= 1.2 for delay in delays)


async def test_a_candidate_looks_again_when_the_lease_expires(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    await b.acquire_or_renew()
    clock.now += 14.5
    assert b.retry_delay_s(random.Random(1)) == 0.5
    clock.now += 0.5
    assert await b.acquire_or_renew()


@pytest.mark.parametrize("skew", ["2001-01-01T00:00:00.000000Z", "2101-01-01T00:00:00.000000Z"])
async def test_a_holder_whose_clock_is_wrong_is_respected_and_succeeded(
    api: ApiServer, client: KubeClient, clock: Clock, skew: str
) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    for _ in range(20):
        assert await a.acquire_or_renew()
        spec(api)["renewTime"] = spec(api)["acquireTime"] = skew[:-2] + f"{int(clock.now) % 10}Z"
        assert not await b.acquire_or_renew()
        clock.now += 3
    clock.now += 13
    assert await b.acquire_or_renew()
    assert spec(api)["leaseTransitions"] == 1


async def test_who_has_seen_the_lease_does_not_take_it_when_somebody_deletes_it(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    await b.acquire_or_renew()
    api.leases.clear()
    clock.now += 2
    assert a.leading
    assert not await b.acquire_or_renew()
    assert await a.acquire_or_renew()
    assert not await b.acquire_or_renew()
    api.leases.clear()
    clock.now += 14.9
    assert not await b.acquire_or_renew()  # a never came back
    clock.now += 0.2
    assert await b.acquire_or_renew()


async def test_a_lease_deleted_and_taken_by_another_is_lost(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a, b = lock(client, clock, "a"), lock(client, clock, "b")
    await a.acquire_or_renew()
    api.leases.clear()
    assert await b.acquire_or_renew()  # nobody can tell it that a still leads, but a soon knows
    assert not await a.acquire_or_renew()
    assert not a.leading
    assert (a.holder, spec(api)["holderIdentity"]) == ("b", "b")


async def test_the_last_transition_that_fits_is_not_the_last_leader(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    await lock(client, clock, "a").acquire_or_renew()
    spec(api).update(holderIdentity="", leaseTransitions=2**31 - 1)
    assert await lock(client, clock, "b").acquire_or_renew()
    assert spec(api)["leaseTransitions"] == 2**31 - 1  # one more, and the API server refuses the Lease


async def test_fields_of_a_newer_api_are_no_hindrance(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    spec(api).update(preferredHolder="b", strategy="OldestEmulationVersion", added={"later": [1]})
    b = lock(client, clock, "b")
    assert not await b.acquire_or_renew()
    assert b.holder == "a"
    assert await a.acquire_or_renew()


async def test_a_lease_without_a_spec_is_free(api: ApiServer, client: KubeClient, clock: Clock) -> None:
    await lock(client, clock, "a").acquire_or_renew()
    del api.leases[KEY]["spec"]
    assert await lock(client, clock, "b").acquire_or_renew()


async def test_a_right_that_was_taken_away_ends_our_lead_at_the_deadline(
    api: ApiServer, client: KubeClient, clock: Clock
) -> None:
    a = lock(client, clock, "a")
    await a.acquire_or_renew()
    api.fault("PUT", status=403, reason="Forbidden", times=100)
    for _ in range(4):
        clock.now += 2
        assert not await a.acquire_or_renew()
        assert a.leading  # nobody else can hold it yet, and the right may come back
    clock.now += 2
    assert not a.leading
