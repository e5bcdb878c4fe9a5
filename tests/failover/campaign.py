"""The leader is taken away, time and again, in several ways, and then all replicas are updated.

Three replicas run as a Deployment's would: what has ended is started anew. Each has its own user and its own
way to the API server, which can be cut. After each fault the other replicas must go on; what held is told at
the end by the API server's audit log and by a watch (`audit.broken`, `stream.Witness`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import ControlPlane
from tests.failover.audit import Audit, Bind, broken
from tests.failover.stream import Stream, Witness, create_nodes
from tests.integration.harness import Scheduler, eventually
from tests.integration.proxy import Proxy

REPLICAS = 3
FAILOVER_TIMEOUT_S = 120.0
"""Far beyond what it takes."""
QUIET_BINDS = 40
"""Pods that a new leader binds before the next fault."""


class Way(Enum):
    SIGKILL = "SIGKILL"
    CUT = "network cut"
    SIGSTOP = "SIGSTOP past the lease, then SIGCONT"
    SIGTERM = "SIGTERM"


_SIGNALS = {Way.SIGKILL: signal.SIGKILL, Way.SIGSTOP: signal.SIGSTOP, Way.SIGTERM: signal.SIGTERM}


@dataclass(frozen=True)
class Settings:
    lease_duration_s: int = 15
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0
    rate: float = 15.0
    """Pods created a second."""

    def configuration(self) -> str:
        """The file; all but the lease and the request rate is the default."""
        return (
            "apiVersion: wholepod.io/v1alpha1\n"
            "kind: SchedulerConfiguration\n"
            f"leaderElection: {{leaseDuration: {self.lease_duration_s}s, "
            f"renewDeadline: {round(self.renew_deadline_s * 1000)}ms, "
            f"retryPeriod: {round(self.retry_period_s * 1000)}ms}}\n"
            "clientConnection: {qps: 500, burst: 1000}\n"
        )


@dataclass(frozen=True)
class Failover:
    """`failover_s`: from the fault to the answer to the first bind by another; `takeover_s`: from that one's
    lease to its first bind; `ended_s`: until the former leader's process had ended, since the fault or since
    it was let go on; `lists`: what the new leader listed after the fault; `warm`:
    whether it had been there before the fault."""

    way: Way
    failover_s: float
    takeover_s: float
    ended_s: float
    exit_code: int
    lists: tuple[str, ...]
    warm: bool


@dataclass(frozen=True)
class Update:
    """`pause_s`: the longest time without a bind; `seconds`: all of it."""

    replicas: int
    seconds: float
    pause_s: float
    binds: int


class Stage:
    """A context manager that starts the cluster, the replicas and the stream of pods."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self.settings = folder, settings
        self._users = [f"replica-{number}" for number in range(REPLICAS)]
        self.audit = Audit(folder, self._users)
        self.replicas: dict[str, Scheduler] = {}
        self.proxies: dict[str, Proxy] = {}
        self._stack = ExitStack()
        self._under_fault = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            plane = stack.enter_context(
                ControlPlane(
                    controller_manager=False,
                    kwok=True,
                    apiserver_flags=self.audit.flags,
                    users=dict.fromkeys(self._users, ("system:masters",)),
                )
            )
            create_nodes(plane)
            self.witness = stack.enter_context(Witness(plane))
            configuration = self._folder / "wholepod.yaml"
            configuration.write_text(self.settings.configuration())
            for user in self._users:
                proxy = self.proxies[user] = stack.enter_context(Proxy(plane))
                self.replicas[user] = stack.enter_context(
                    Scheduler(
                        f"--config={configuration}",
                        kubeconfig=proxy.kubeconfig(plane, f"{user}-proxied", user=user),
                        log=self._folder / f"{user}.log",
                    )
                )
            self.stream = stack.enter_context(Stream(plane, self.witness, rate=self.settings.rate))
            self.wait_for_binds()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.show_logs()
        self._stack.close()

    def show_logs(self) -> None:
        for replica in self.replicas.values():
            replica.show_log()

    def wait_for_binds(self) -> None:
        """Until some more pods are bound."""
        self.audit.read()
        before = len(self.audit.binds)

        def bound() -> bool:
            self._keep_running()
            self.audit.read()
            return len(self.audit.binds) >= before + QUIET_BINDS

        eventually(bound, "more pods are bound", timeout_s=FAILOVER_TIMEOUT_S)

    def _keep_running(self) -> None:
        """Who lost the lease on a machine too busy to renew it starts anew, too."""
        for user, replica in self.replicas.items():
            if not replica.running and user != self._under_fault:
                replica.wait()
                replica.launch()

    def fail(self, way: Way) -> Failover:
        """Take the leader away, wait until another binds, and start what has ended anew."""
        user = eventually(self.audit.leader, "somebody leads")
        replica, proxy = self.replicas[user], self.proxies[user]
        self._under_fault = user
        pids = {user: replica.pid for user, replica in self.replicas.items()}
        with ThreadPoolExecutor(1) as pool:
            end = pool.submit(lambda: (replica.wait(), time.time()))
            at = let_go_at = time.time()
            if way is Way.CUT:
                proxy.silence()
            else:
                replica.signal(_SIGNALS[way])
            first = self._wait_for_another(user, at)
            if way is Way.SIGSTOP:
                let_go_at = time.time()
                replica.resume()
            code, ended_at = end.result()
        proxy.heal()
        failover = Failover(
            way,
            failover_s=first.answered - at,
            takeover_s=first.answered - self.audit.led_since(first.user),
            ended_s=ended_at - let_go_at,
            exit_code=code,
            lists=self.audit.listed_by(first.user, at, first.received),
            warm=self.replicas[first.user].pid == pids[first.user],
        )
        replica.start()
        self._under_fault = ""
        self.wait_for_binds()
        return failover

    def _wait_for_another(self, former: str, at: float) -> Bind:
        def bound() -> Bind | None:
            self._keep_running()
            return self.audit.first_bind_by_another(former, at)

        eventually(bound, "another replica binds", timeout_s=FAILOVER_TIMEOUT_S)
        first = self.audit.first_bind_by_another(former, at)
        assert first is not None
        return first

    def update(self, users: Sequence[str]) -> Update:
        """One replica after the other is ended in good order and started anew, as a Deployment does that may
        miss one replica and add none."""
        started = time.time()
        for user in users:
            self.replicas[user].terminate()
            self.replicas[user].start()
        self.wait_for_binds()
        self.audit.read()
        times = sorted(bind.answered for bind in self.audit.binds if bind.answered > started)
        pauses = [later - earlier for earlier, later in zip([started, *times], times, strict=False)]
        return Update(len(users), time.time() - started, max(pauses), len(times))

    @property
    def users(self) -> list[str]:
        """The leader comes last, so that each of the others is new by then; then it is the one to go."""
        leader = eventually(self.audit.leader, "somebody leads")
        return [*(user for user in self._users if user != leader), leader]

    def verdict(self) -> list[str]:
        """End the stream, and tell what did not hold."""
        self.stream.finish(meanwhile=self._keep_running)
        problems = broken(self.audit, renew_deadline_s=self.settings.renew_deadline_s)
        for replica in self.replicas.values():
            replica.wait_ready()
            replica.check_cache()  # who waits for the lease follows the cluster, too
        for replica in self.replicas.values():
            if code := replica.terminate():
                problems.append(f"a replica ended with code {code} after SIGTERM")
        if self.audit.leader():
            problems.append("the lease was not released at the end")
        unseen = self.witness.ask(
            lambda pods: [pod["metadata"]["name"] for pod in pods.values() if not pod["spec"].get("nodeName")]
        )
        problems += [f"{name} was not bound" for name in unseen]
        return problems + self.witness.problems


def run(stage: Stage, ways: Sequence[Way]) -> Iterator[Failover]:
    """A result for each, as it is there."""
    for way in ways:
        yield stage.fail(way)
