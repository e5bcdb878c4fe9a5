"""kopf, as far as it is used: it follows PodGroups and workloads, as they are and as they come to be served.

Handlers of raw events only: those of kopf that are about creation, change and deletion write annotations and
finalizers to users' objects, and a controller that is gone would then keep these from being deleted.

kopf has a thread and an event loop of its own. It counts every task of its loop as its own when it ends,
takes over the process's signals, and ends as a whole when one watch meets what it does not expect: here it is
then simply started again, and the webhook and what is under way don't notice.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import kopf
import msgspec
import structlog
from kopf._cogs.structs.references import Insights  # types of public parameters, not exported
from kopf._core.engines.peering import Identity

from scheduler.controller.kinds import POD_GROUPS, WORKLOADS
from scheduler.controller.shapes import GroupObject, Key
from scheduler.controller.workloads import Workload, workload
from scheduler.kube.credentials import Access, load_access
from scheduler.kube.errors import ConfigError
from scheduler.kube.resources import Resource

log = structlog.get_logger(__name__)

_RESTART_S = 5.0
_REFRESH_S = 60.0
_REPEAT_S = 60.0
_WATCH_TIMEOUT_S = 300


class Sink(Protocol):
    """Who is told. All calls come in the event loop that `Following` was made for, those about one object in
    order."""

    def group_seen(self, group: GroupObject, /) -> None: ...

    def group_gone(self, key: Key, /) -> None: ...

    def workload_seen(self, owner: Workload, /) -> None: ...

    def workload_gone(self, kind: str, key: Key, /) -> None: ...


class Following:
    """A thread that follows until it is told to stop. Use it within the event loop that `sink` belongs to."""

    def __init__(self, kubeconfig: Path | None, sink: Sink) -> None:
        self._kubeconfig, self._sink = kubeconfig, sink
        self._main = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._stop_run: Callable[[], object] = lambda: None
        """Has the run that there is end."""
        self._insights: Insights | None = None
        """Of the run that there is; kopf's thread writes to it."""
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self.restarts = 0

    def start(self) -> None:
        _quiet_logs()
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def followed(self) -> frozenset[Resource] | None:
        """The kinds that kopf watches now; None as long as it has not found out."""
        insights = self._insights
        if insights is None or not insights.ready_resources.is_set():
            return None
        # A list first: in one step, as kopf's thread may change the set.
        found = list(insights.watched_resources)
        return frozenset(Resource(each.plural, each.group, each.version) for each in found)

    def start_anew(self) -> None:
        """Ends the run that there is; the next one begins a few seconds later."""
        self._insights = None
        with suppress(RuntimeError):  # it has just ended by itself
            self._stop_run()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Returns when it has ended, or has not in time: it writes nothing, so nothing is lost."""
        self._stopping.set()
        self._stop_run()
        await asyncio.to_thread(self._thread.join, timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._follow())
            except Exception as error:
                log.warning("following is started again", why=f"{type(error).__name__}: {error}")
            if not self._stopping.wait(_RESTART_S):
                self.restarts += 1

    async def _follow(self) -> None:
        """Until told to stop, or kopf gives up."""
        # Not the event of the threads: kopf would wait for it in a thread that nothing else can end.
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        self._stop_run = lambda: loop.call_soon_threadsafe(stop.set) if not loop.is_closed() else None
        if self._stopping.is_set():
            return
        registry, insights = kopf.OperatorRegistry(), Insights()
        refresher: list[asyncio.Task[None]] = []

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            access = await load_access(self._kubeconfig)
            session = _session(access)
            for task in refresher:
                task.cancel()
            refresher[:] = [asyncio.create_task(_keep_fresh(access, session, stop))]
            return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

        @kopf.on.event(POD_GROUPS.group, POD_GROUPS.version, POD_GROUPS.name, registry=registry)
        async def group(event: kopf.RawEvent, **_: Any) -> None:
            self._on_group(event)

        for kind, each in WORKLOADS.items():

            @kopf.on.event(each.group, each.version, each.name, registry=registry, id=kind, param=kind)
            async def owner(event: kopf.RawEvent, param: Any = None, **_: Any) -> None:
                self._on_workload(param, event)

        self._insights = insights
        try:
            await kopf.operator(
                registry=registry,
                insights=insights,
                # Of no use when standalone; without one kopf asks for the user's name, and in a container
                # the user may have none.
                identity=Identity("wholepod-controller"),
                settings=_settings(),
                standalone=True,
                clusterwide=True,
                stop_flag=stop,
            )
        finally:
            self._insights = None

    def _on_group(self, event: kopf.RawEvent) -> None:
        item = event["object"]
        if event["type"] == "DELETED":
            self._tell(self._sink.group_gone, _key(item))
            return
        try:
            self._tell(self._sink.group_seen, msgspec.convert(item, GroupObject))
        except msgspec.ValidationError as error:
            log.error(
                "object cannot be read, skipped",
                resource="podgroups",
                object=str(_key(item)),
                error=str(error),
            )

    def _on_workload(self, kind: str, event: kopf.RawEvent) -> None:
        item = event["object"]
        if event["type"] == "DELETED":
            self._tell(self._sink.workload_gone, kind, _key(item))
            return
        try:
            self._tell(self._sink.workload_seen, workload(kind, item))
        except msgspec.ValidationError as error:
            log.error(
                "object cannot be read, skipped", resource=kind, object=str(_key(item)), error=str(error)
            )

    def _tell(self, method: Callable[..., None], *values: Any) -> None:
        if not self._main.is_closed():
            self._main.call_soon_threadsafe(method, *values)


def _key(item: Any) -> Key:
    metadata = item.get("metadata", {})
    return Key(metadata.get("namespace", ""), metadata.get("name", ""))


class _ForEver:
    """Delays in seconds, without end: an API server that is away for long is no reason to give up. kopf
    begins anew for each request."""

    def __iter__(self) -> Iterator[float]:
        yield from (1.0, 2.0, 4.0, 8.0)
        while True:
            yield 15.0


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None
    settings.networking.error_backoffs = _ForEver()
    settings.networking.request_timeout = 60.0
    settings.networking.connect_timeout = 10.0
    # A watch that nothing ends is one whose end nobody notices.
    settings.watching.server_timeout = _WATCH_TIMEOUT_S
    settings.watching.client_timeout = _WATCH_TIMEOUT_S + 30
    settings.watching.chunk_size = 500
    return settings


def _session(access: Access) -> aiohttp.ClientSession:
    """Raises ConfigError."""
    if access.server_hostname:
        raise ConfigError(
            "kubeconfig: tls-server-name can't be used with the controller; name the server by it"
        )
    headers = {"User-Agent": "wholepod-controller"}
    if access.authorization:
        headers["Authorization"] = access.authorization
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=access.ssl_context, limit=0),
        headers=headers,
        proxy=access.proxy,
        trust_env=False,
    )


async def _keep_fresh(access: Access, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
    """Tokens are rotated; kopf would only ask for a new one after a refusal."""
    while not stop.is_set() and not session.closed:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _REFRESH_S)
        await access.refresh()
        if access.authorization:
            session.headers["Authorization"] = access.authorization


_NOISE = ("OS signals are ignored",)
_UNRESOLVED = "Unresolved resources cannot be served"
_RETRY = "Request attempt"


class _Quiet(logging.Handler):
    """Passes on to the process's own handlers what is worth an operator's attention.

    Kinds that are not served are normal, and said once; a request that fails is tried again every few
    seconds, by each watch, and is said once a minute.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()
        self._retry_said_at = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_NOISE) or text in self._said:
            return
        record.exc_info = record.exc_text = None  # of each task that ends with the first: `_run` says why
        if text.startswith(_UNRESOLVED):
            self._said.add(text)
            record.levelno, record.levelname = logging.INFO, "INFO"
        elif text.startswith(_RETRY):
            now = time.monotonic()
            if now - self._retry_said_at < _REPEAT_S:
                return
            self._retry_said_at = now
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        root = logging.getLogger()
        if record.levelno >= root.level:
            for handler in root.handlers:
                handler.handle(record)


def _quiet_logs() -> None:
    logger = logging.getLogger("kopf")
    logger.handlers[:] = [_Quiet()]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
