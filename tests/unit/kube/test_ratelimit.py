import random

import pytest

from scheduler.kube.backoff import Backoff
from scheduler.kube.ratelimit import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_burst_then_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, 3, clock=clock)
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take() == pytest.approx(0.1)
    assert bucket.take() == pytest.approx(0.1)  # asking takes nothing
    clock.now += 0.1
    assert bucket.take() == 0.0
    assert bucket.take() > 0.0


def test_idle_time_fills_up_to_the_burst_only() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, 3, clock=clock)
    clock.now += 1000.0
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take() > 0.0


def test_long_run_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(50.0, 100, clock=clock)
    taken = 0
    while clock.now < 110.0:
        wait_s = bucket.take()
        if wait_s == 0.0:
            taken += 1
        clock.now += wait_s
    assert 598 <= taken <= 602


def test_pause_gives_nothing_and_then_no_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, 5, clock=clock)
    bucket.pause(7.0)
    assert bucket.take() == pytest.approx(7.0)
    clock.now += 6.9
    assert bucket.take() == pytest.approx(0.1)
    clock.now += 0.11
    assert bucket.take() == 0.0
    assert bucket.take() > 0.0


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, 5, clock=clock)
    bucket.pause(7.0)
    bucket.pause(1.0)
    assert bucket.take() == pytest.approx(7.0)


@pytest.mark.parametrize(("qps", "burst"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_impossible_limits_are_refused(qps: float, burst: int) -> None:
    with pytest.raises(ValueError, match="qps must be above 0 and burst at least 1"):
        TokenBucket(qps, burst, clock=Clock())


def test_backoff_doubles_to_its_cap_and_starts_again() -> None:
    backoff = Backoff(1.0, 10.0, rng=random.Random(0), jitter=0.0)
    assert [backoff.next() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    backoff.reset()
    assert backoff.next() == 1.0


def test_jitter_only_lengthens() -> None:
    delays = [Backoff(1.0, 1.0, rng=random.Random(seed)).next() for seed in range(200)]
    assert all(1.0 <= delay <= 2.0 for delay in delays)
    assert max(delays) - min(delays) > 0.8
