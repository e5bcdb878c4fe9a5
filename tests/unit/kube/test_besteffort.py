import random

import pytest
from structlog.testing import capture_logs

from scheduler.kube.besteffort import BestEffort, Job
from scheduler.kube.client import KubeClient
from scheduler.kube.ratelimit import TokenBucket
from tests.unit.kube.api_server import ApiServer


class Sending:
    """Attempts, one by one; nobody waits between them."""

    def __init__(self, client: KubeClient) -> None:
        self.drops: list[tuple[str, str]] = []
        self.retries: list[str] = []
        self.now = 0.0
        self.bucket = TokenBucket(100.0, 100, clock=lambda: self.now)
        self.client = client
        self.best_effort = BestEffort(
            bucket=self.bucket,
            on_drop=lambda work, why: self.drops.append((work, why)),
            on_retry=self.retries.append,
            rng=random.Random(1),
            clock=lambda: self.now,
        )

    async def send(self, job: Job[str]) -> float | None:
        return await self.best_effort.send(
            job, "event", lambda: self.client.request("POST", "/events", body=b"{}")
        )


@pytest.fixture
def sending(client: KubeClient) -> Sending:
    return Sending(client)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_given_up_after_four_attempts_ever_farther_apart(
    api: ApiServer, sending: Sending, status: int
) -> None:
    api.fault("events", status=status, times=9)
    job = Job("x")
    delays = [await sending.send(job) for _ in range(4)]
    assert delays.pop() is None
    for i, delay in enumerate(delays):
        assert delay is not None
        assert 0.5 * 2**i <= delay <= 2 * 0.5 * 2**i
    assert (sending.drops, sending.retries) == ([("event", "failed")], ["event"] * 3)
    assert not job.written


async def test_an_unanswered_attempt_counts(api: ApiServer, sending: Sending) -> None:
    api.fault("events", drop=True, times=9)
    job = Job("x")
    while await sending.send(job) is not None:
        pass
    assert api.count("events") == 4


async def test_a_server_that_is_away_pauses_all_and_costs_no_attempt(
    api: ApiServer, sending: Sending
) -> None:
    await api.stop()
    job = Job("x")
    for _ in range(10):
        assert await sending.send(job) == 0.0
        assert sending.bucket.take() == pytest.approx(0.5)
        sending.now += 0.6
    assert job.attempts == 0
    assert sending.drops == []
    await api.start()


async def test_throttling_pauses_all_and_costs_no_attempt(api: ApiServer, sending: Sending) -> None:
    api.fault("events", status=429, headers={"Retry-After": "8"})
    job = Job("x")
    assert await sending.send(job) == 0.0
    assert sending.bucket.take() == pytest.approx(8.0)
    assert job.attempts == 0


async def test_one_complaint_a_minute(api: ApiServer, sending: Sending) -> None:
    api.fault("events", status=422, times=9)
    with capture_logs() as logs:
        for pause_s in (1.0, 58.0, 2.0, 1.0):
            await sending.send(Job("x"))
            sending.now += pause_s
    assert [entry["event"] for entry in logs] == ["write given up"] * 2
    assert len(sending.drops) == 4
