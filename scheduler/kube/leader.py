"""Leader election in a thread of its own.

The lease must be renewed every few seconds whatever the main thread does: a long cycle, a large
list, a debugger. So the election has its own thread, event loop and connection, and shares with
the rest one number: until when we lead. `is_leader` compares it with a clock that runs on while
the process is stopped or the machine sleeps, so a process that comes back late knows at once that
it is not the leader any more, before its own election thread has had a turn.

A lease that is lost stays lost: the process should exit and start anew, since what it assumes of
the cluster is another leader's business now.
"""

import asyncio
import contextlib
import random
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import structlog

from scheduler.kube.client import KubeClient, OnRequest
from scheduler.kube.lease import LeaseConfig, LeaseLock, boottime
from scheduler.kube.payloads import hostname

log = structlog.get_logger(__name__)


class LeaderElector:
    """`start` it in the main loop; both callbacks are called there.

    `on_acquired()` once; `on_lost(why)` at most once, also when the election itself breaks down.
    After `release` neither is called.
    """

    def __init__(
        self,
        config: LeaseConfig,
        *,
        kubeconfig: Path | None,
        on_acquired: Callable[[], None],
        on_lost: Callable[[str], None],
        identity: str | None = None,
        on_request: OnRequest | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.identity = identity or f"{hostname()}_{uuid.uuid4()}"
        self._config = config
        self._kubeconfig = kubeconfig
        self._on_acquired = on_acquired
        self._on_lost = on_lost
        self._on_request = on_request
        self._rng = rng or random.Random()
        self._clock = clock
        self._lock: LeaseLock | None = None
        self._released = False
        self._gives_up = True
        self._stop = asyncio.Event()  # belongs to the thread's loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def is_leader(self) -> bool:
        """Whether we may write. Any thread, any time; costs a look at the clock."""
        lock = self._lock
        return lock is not None and lock.leading and not self._released

    @property
    def holder(self) -> str:
        """Who holds the lease as far as we know, "" for nobody."""
        return "" if self._lock is None else self._lock.holder

    def start(self) -> None:
        """Begin to stand for election; call in the main event loop."""
        main_loop = asyncio.get_running_loop()

        def tell(callback: Callable[..., None], *args: str) -> None:
            if not self._released:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
                    main_loop.call_soon_threadsafe(callback, *args)

        self._thread = threading.Thread(
            target=self._run_thread, args=(tell,), name="leader-election", daemon=True
        )
        self._thread.start()

    async def release(self, timeout_s: float = 5.0, *, give_up: bool = True) -> None:
        """Stop, and give the lease up if it is ours, so that the next leader need not wait for it.

        Everything we write must be done before; with `give_up=False` the lease is left to expire instead.
        """
        self._gives_up = give_up
        self._released = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its thread has ended
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)

    def _run_thread(self, tell: Callable[..., None]) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._elect(tell))
        except Exception as error:
            log.exception("leader election broke down")
            tell(self._on_lost, f"leader election broke down: {error}")

    async def _elect(self, tell: Callable[..., None]) -> None:
        self._loop = asyncio.get_running_loop()
        async with KubeClient.from_config(
            self._kubeconfig,
            connections=2,
            user_agent="wholepod/leader-election",
            on_request=self._on_request,
        ) as client:
            lock = LeaseLock(client, self._config, identity=self.identity, clock=self._clock)
            self._lock = lock
            while not await lock.acquire_or_renew():
                if await self._stopped_within(lock.retry_delay_s(self._rng)):
                    return
            tell(self._on_acquired)
            lost = await self._keep(lock)
            if lost is None:
                if self._gives_up:
                    await lock.release()
            else:
                log.error("leadership lost", why=lost)
                tell(self._on_lost, lost)

    async def _keep(self, lock: LeaseLock) -> str | None:
        """Renew until told to stop (None) or until the lease is lost (why)."""
        while not await self._stopped_within(self._config.retry_period_s):
            if lock.leading:  # or else we were stopped past the deadline, and must not come back to life
                await lock.acquire_or_renew()
            if lock.holder != self.identity:
                return f"the lease is held by {lock.holder or 'nobody'}"
            if not lock.leading:
                return f"the lease was not renewed within {self._config.renew_deadline_s:g} s"
        return None

    async def _stopped_within(self, seconds: float) -> bool:
        if not self._released:
            try:
                await asyncio.wait_for(self._stop.wait(), seconds)
            except TimeoutError:
                return False
        return True
