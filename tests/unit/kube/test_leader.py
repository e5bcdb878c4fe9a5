"""The election thread, in real time: durations are short, and only orders of events are asserted."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest_asyncio

from scheduler.kube.leader import LeaderElector
from scheduler.kube.lease import LeaseConfig, boottime
from tests.unit.kube.api_server import ApiServer
from tests.unit.kube.conftest import Until, write_kubeconfig

KEY = ("kube-system", "wholepod")
CONFIG = LeaseConfig(lease_duration_s=2, renew_deadline_s=1.5, retry_period_s=0.1)


class Candidate:
    """An elector and what it said."""

    def __init__(self, kubeconfig: Path | None, identity: str) -> None:
        self.acquired = 0
        self.lost: list[str] = []
        self.skew_s = 0.0
        self.elector = LeaderElector(
            CONFIG,
            kubeconfig=kubeconfig,
            on_acquired=self._on_acquired,
            on_lost=self.lost.append,
            identity=identity,
            clock=lambda: boottime() + self.skew_s,
        )
        self.elector.start()

    def _on_acquired(self) -> None:
        asyncio.get_running_loop()  # fails outside the main loop's thread
        self.acquired += 1


Stand = Callable[[str], Candidate]


@pytest_asyncio.fixture
async def stand(kubeconfig: Path) -> AsyncIterator[Stand]:
    candidates: list[Candidate] = []

    def stand_for_election(identity: str) -> Candidate:
        candidates.append(Candidate(kubeconfig, identity))
        return candidates[-1]

    yield stand_for_election
    for candidate in candidates:
        await candidate.elector.release()


async def test_one_leads_and_hands_over_on_release(api: ApiServer, stand: Stand, until: Until) -> None:
    a = stand("a")
    await until(lambda: a.acquired)
    assert a.elector.is_leader()
    b = stand("b")
    await until(lambda: b.elector.holder == "a")
    await asyncio.sleep(CONFIG.lease_duration_s + 0.2)  # longer than the lease: it is renewed
    assert a.elector.is_leader()
    assert (a.acquired, b.acquired) == (1, 0)
    await a.elector.release()
    assert not a.elector.is_leader()
    await until(lambda: b.acquired)
    assert b.elector.is_leader()
    assert (a.lost, b.lost) == ([], [])
    assert api.leases[KEY]["spec"]["leaseTransitions"] == 1


@contextlib.contextmanager
def served_by_another_thread(api: ApiServer) -> Iterator[None]:
    """So that it answers while the main loop does not run."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(api.start(), loop).result()
    yield
    asyncio.run_coroutine_threadsafe(api.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_a_busy_main_loop_does_not_lose_the_lease(tmp_path: Path, until: Until) -> None:
    api = ApiServer()
    with served_by_another_thread(api):
        a = Candidate(write_kubeconfig(tmp_path / "kubeconfig", api.url), "a")
        await until(lambda: a.acquired)
        end = time.monotonic() + CONFIG.lease_duration_s + 0.2
        while time.monotonic() < end:  # a cycle that never yields, nor gives up the interpreter lock
            pass
        assert a.elector.is_leader()
        await asyncio.sleep(0)
        assert a.lost == []
        await a.elector.release()


async def test_lost_when_the_server_stays_away(api: ApiServer, stand: Stand, until: Until) -> None:
    a = stand("a")
    await until(lambda: a.acquired)
    await api.stop()
    await until(lambda: a.lost)
    assert a.lost == ["the lease was not renewed within 1.5 s"]
    assert not a.elector.is_leader()
    await api.start()
    await asyncio.sleep(0.3)
    assert not a.elector.is_leader()  # lost is lost
    assert a.acquired == 1


async def test_lost_to_somebody_else(api: ApiServer, stand: Stand, until: Until) -> None:
    a = stand("a")
    await until(lambda: a.acquired)
    api.leases[KEY]["metadata"]["resourceVersion"] = "9999"
    api.leases[KEY]["spec"]["holderIdentity"] = "somebody"
    await until(lambda: a.lost)
    assert a.lost == ["the lease is held by somebody"]
    assert not a.elector.is_leader()


async def test_a_process_that_slept_is_no_leader_even_before_its_thread_knows(
    api: ApiServer, stand: Stand, until: Until
) -> None:
    a = stand("a")
    await until(lambda: a.acquired)
    a.skew_s = 5.0  # what SIGSTOP or a suspended machine looks like to the clock
    assert not a.elector.is_leader()
    await until(lambda: a.lost)
    assert not a.elector.is_leader()


async def test_a_short_outage_is_survived(api: ApiServer, stand: Stand, until: Until) -> None:
    a = stand("a")
    await until(lambda: a.acquired)
    api.fault("PUT", status=503, times=2)
    api.fault("PUT", drop=True)
    await until(lambda: api.faults[-1].times == 0)
    puts = api.count("PUT")
    await until(lambda: api.count("PUT") > puts + 1)
    assert a.elector.is_leader()
    assert a.lost == []


async def test_stands_again_and_again_until_the_server_is_there(
    api: ApiServer, stand: Stand, until: Until
) -> None:
    await api.stop()
    a = stand("a")
    await asyncio.sleep(0.2)
    assert not a.elector.is_leader()
    await api.start()
    await until(lambda: a.acquired)


async def test_a_candidate_can_be_released(api: ApiServer, stand: Stand, until: Until) -> None:
    a = stand("a")
    await until(lambda: a.acquired)
    b = stand("b")
    await until(lambda: b.elector.holder == "a")
    await b.elector.release()
    assert api.leases[KEY]["spec"]["holderIdentity"] == "a"


async def test_one_that_was_never_started_can_be_released(kubeconfig: Path) -> None:
    elector = LeaderElector(CONFIG, kubeconfig=kubeconfig, on_acquired=lambda: None, on_lost=lambda why: None)
    await elector.release()
    assert not elector.is_leader()


async def test_an_election_that_breaks_down_is_a_lease_lost(tmp_path: Path, until: Until) -> None:
    a = Candidate(tmp_path / "nowhere", "a")
    await until(lambda: a.lost)
    assert "no kubeconfig at" in a.lost[0]
    await a.elector.release()


async def test_identities_are_unique(kubeconfig: Path) -> None:
    def identity() -> str:
        return LeaderElector(
            CONFIG, kubeconfig=kubeconfig, on_acquired=lambda: None, on_lost=lambda why: None
        ).identity

    assert identity() != identity()
