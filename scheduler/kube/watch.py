"""Reflector: keeps a handler's copy of one resource equal to the API server's, for ever.

**List, then watch.** The first picture must not be older than what the previous leader wrote, or
room that it gave away is given away twice. So we never ask for `resourceVersion=0` (any state the
server's cache happens to have, as client-go's first list does) but for the most recent one. Since
Kubernetes 1.31 this is served from the watch cache too (KEP-2340), once it has caught up.

**Streaming list** (KEP-3157, `sendInitialEvents`) where it is served: the same guarantee, but the
server need not build the whole list in memory. The stream that brought the picture goes on as the
watch. A server without it refuses with 422 or 400, and we list in pages.

**Resume.** A cut watch goes on from the last resourceVersion, which bookmarks keep recent. 410
(as an answer or as an ERROR event) means that history is gone: list again.

**In sync** means: a complete picture, and a watch that is connected or was lost less than
`grace_s` ago. A short cut must not stop scheduling (bookings of our own are assumed anyway), but
a long one makes every decision a guess.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Never, Protocol

import structlog

from scheduler.kube.backoff import Backoff
from scheduler.kube.client import ByteStream, KubeClient
from scheduler.kube.decode import (
    INITIAL_EVENTS_END,
    Decoder,
    ErrorEvent,
    Garbled,
    LineSplitter,
    T,
    Undecodable,
)
from scheduler.kube.errors import ApiError, ErrorKind, OutcomeUnknown, Unreachable, error_from_status

log = structlog.get_logger(__name__)

PAGE_ITEMS = 5000
# Bookmarks come about once a minute (apiserver: cacher.defaultBookmarkFrequency); a watch that brings
# nothing for so long is dead, or its server sends none and a new one costs it little.
_IDLE_TIMEOUT_S = 150.0
_WATCH_TIMEOUT_S = (300, 600)  # asked of the server, drawn at random so that watches don't end together
_STABLE_AFTER_S = 1.0
_REFUSALS_TO_RELIST = 5  # a position that a server keeps refusing, e.g. after etcd was restored
# A connection that is refused or breaks costs the server little, and as long as we see nothing, nothing
# is scheduled: the sooner we are back the better (with the jitter, within 5 s).
_RECONNECT_CAP_S = 2.5
_BACKOFF_CAP_S = 30.0  # of a server that answers, and with an error, or has us list again and again
_EVENTS_PER_TURN = 256


class Handler(Protocol[T]):
    """What a reflector drives. All calls are synchronous, in the event loop, in order."""

    def replace(self, items: list[T], /) -> None:
        """The complete picture: forget everything that is not in it."""

    def upsert(self, item: T, /) -> None:
        """Added or modified; may repeat what is known."""

    def delete(self, item: T, /) -> None:
        """Gone. The last state, or of an object that did not parse only its metadata."""

    def on_sync_changed(self, synced: bool, /) -> None:
        """`synced` has changed."""


class _ListAgain(Exception):
    """The watch cannot be resumed."""


class Reflector(Generic[T]):
    """List and watch of one collection, e.g. `path="/api/v1/pods"`.

    `resource` is its name in logs. `on_undecodable(raw, error)` is told of each object that was
    skipped; by default it is logged.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        resource: str,
        path: str,
        item_type: type[T],
        handler: Handler[T],
        field_selector: str = "",
        label_selector: str = "",
        grace_s: float = 10.0,
        on_undecodable: Callable[[bytes, Exception], None] | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.resource = resource
        self._client = client
        self._path = path
        self._handler = handler
        self._decoder = Decoder(item_type)
        selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
        self._selectors = {name: value for name, value in selectors.items() if value}
        self._grace_s = grace_s
        self._on_undecodable = on_undecodable or self._log_undecodable
        self._rng = rng or random.Random()
        self._clock = clock
        self._sleep = sleep
        # Two, since pauses that grew while no server was there say nothing of the one that is back. It has
        # forgotten its history and will have us list again, and that must not wait for a minute.
        self._reconnect = Backoff(0.8, _RECONNECT_CAP_S, rng=self._rng)
        self._backoff = Backoff(0.8, _BACKOFF_CAP_S, rng=self._rng)
        self._streaming_list = True
        self._resource_version = ""  # "": a list is needed
        self._refusals = 0
        self._picture: dict[tuple[str, str], T] | None = None  # the streaming list, while it arrives
        self._stream: ByteStream | None = None
        self._relist_wanted = False
        self._complete = False
        self._connected_at: float | None = None
        self._lost_at = 0.0
        self._told_synced = False
        self._grace_timer: asyncio.TimerHandle | None = None
        self._failing = False

    @property
    def synced(self) -> bool:
        """Whether decisions may be built on the handler's copy (see the module's text)."""
        if not self._complete or self._relist_wanted:
            return False
        return self._connected_at is not None or self._clock() - self._lost_at < self._grace_s

    def relist(self) -> None:
        """Take a new, most recent picture now; out of sync until it is there. For a new leader."""
        self._relist_wanted = True
        if self._stream is not None:
            self._stream.close()
        self._tell_sync()

    async def run(self) -> Never:
        """Until cancelled. Only what the handler raises gets out."""
        while True:
            delay_s = await self._attempt()
            if delay_s > 0 and not self._relist_wanted:
                await self._sleep(delay_s)

    async def _attempt(self) -> float:
        """List if need be, then watch until that ends. Returns the seconds to wait before the next."""
        if self._relist_wanted:
            self._relist_wanted = False
            self._list_again()
        at_least_s, lived_s, backoff = 0.0, 0.0, self._backoff
        try:
            if not self._resource_version and not self._streaming_list:
                await self._list()
            await self._watch()
        except _ListAgain as error:
            self._list_again()
            log.info("watch cannot be resumed, listing again", resource=self.resource, reason=str(error))
        except ApiError as error:
            if error.kind is ErrorKind.INVALID and not self._resource_version and self._streaming_list:
                self._streaming_list = False
                log.info("no streaming lists on this server, listing in pages", resource=self.resource)
                return 0.0
            self._refusals += 1
            if error.kind in (ErrorKind.GONE, ErrorKind.INVALID) or self._refusals >= _REFUSALS_TO_RELIST:
                self._list_again()
            at_least_s = error.retry_after_s or 0.0
            self._report(error)
        except (Unreachable, OutcomeUnknown) as error:
            backoff = self._reconnect
            self._report(error)
        except Garbled as error:
            self._list_again()
            self._report(error)
        finally:
            lived_s = self._disconnected()
        if lived_s >= _STABLE_AFTER_S:
            self._reconnect.reset()
            self._backoff.reset()
            if self._resource_version and not at_least_s:
                return 0.0
        return max(at_least_s, backoff.next())

    async def _list(self) -> None:
        """The whole collection in pages, all of the state of the first page's moment."""
        query = self._selectors | {"limit": str(PAGE_ITEMS)}
        items: list[T] = []
        while True:
            try:
                answer = await self._client.request("GET", self._path, query=query, timeout_s=60.0)
            except ApiError as error:
                if error.kind is not ErrorKind.GONE or "continue" not in query:
                    raise
                # Compaction overtook us between two pages: once more, in a single piece.
                query, items = dict(self._selectors), []
                continue
            page = self._decoder.page(answer.body)
            items += page.items
            for bad in page.bad:
                self._on_undecodable(bad.raw, bad)
            if not page.next_page:
                break
            query["continue"] = page.next_page
            await asyncio.sleep(0)
        self._resource_version = page.resource_version
        self._replace(items)

    async def _watch(self) -> None:
        """Watch, after a streaming list if there is no position to resume from, until the stream ends."""
        seconds = self._rng.randint(*_WATCH_TIMEOUT_S)
        query = self._selectors | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        if self._resource_version:
            query["resourceVersion"] = self._resource_version
        else:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            self._picture = {}
        async with self._client.stream(
            self._path, query=query, total_timeout_s=seconds + 30.0, idle_timeout_s=_IDLE_TIMEOUT_S
        ) as stream:
            self._stream = stream
            if self._picture is None:
                self._connected()
            splitter = LineSplitter()
            while not self._relist_wanted and (chunk := await stream.read()):
                lines = splitter.feed(chunk)
                for start in range(0, len(lines), _EVENTS_PER_TURN):
                    for line in lines[start : start + _EVENTS_PER_TURN]:
                        self._apply(line)
                    await asyncio.sleep(0)  # what is buffered is read without a pause: let others run
        if self._picture is not None:
            raise _ListAgain("the stream ended before the list was complete")

    def _apply(self, line: bytes) -> None:
        try:
            event = self._decoder.event(line)
        except Undecodable as bad:
            self._skip(bad)
            return
        except ErrorEvent as end:
            error = error_from_status(end.status, method="GET", path=f"{self._path}?watch=true")
            raise error if error.kind is ErrorKind.TOO_MANY_REQUESTS else _ListAgain(str(error)) from None
        item, metadata = event.object, event.object.metadata
        if self._picture is not None:
            match event.type:
                case "BOOKMARK":
                    if (metadata.annotations or {}).get(INITIAL_EVENTS_END) == "true":
                        items = list(self._picture.values())
                        self._picture = None
                        self._resource_version = metadata.resource_version
                        self._connected()
                        self._replace(items)
                case "DELETED":
                    self._picture.pop((metadata.namespace, metadata.name), None)
                case _:
                    self._picture[metadata.namespace, metadata.name] = item
            return
        match event.type:
            case "ADDED" | "MODIFIED":
                self._handler.upsert(item)
            case "DELETED":
                self._handler.delete(item)
        self._resource_version = metadata.resource_version

    def _skip(self, bad: Undecodable) -> None:
        """An object that does not parse: what was known of it stays, unless it is gone."""
        if bad.event_type == "BOOKMARK":
            raise Garbled(f"unreadable bookmark: {bad}")
        self._on_undecodable(bad.raw, bad)
        key = (bad.metadata.namespace, bad.metadata.name)
        if bad.event_type == "DELETED":
            if self._picture is not None:
                self._picture.pop(key, None)
            else:
                self._handler.delete(self._decoder.bare(bad.raw))
        if self._picture is None and bad.metadata.resource_version:
            self._resource_version = bad.metadata.resource_version

    def _replace(self, items: list[T]) -> None:
        self._handler.replace(items)
        self._complete = True
        if self._connected_at is None:
            self._start_grace()
        self._tell_sync()
        log.info("listed", resource=self.resource, items=len(items), resource_version=self._resource_version)

    def _list_again(self) -> None:
        self._resource_version = ""
        self._complete = False
        self._refusals = 0
        self._tell_sync()

    def _connected(self) -> None:
        self._connected_at = self._clock()
        self._refusals = 0
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        if self._failing:
            self._failing = False
            log.info("watch is back", resource=self.resource)
        self._tell_sync()

    def _disconnected(self) -> float:
        """Returns how long the watch was connected, in seconds."""
        self._stream = self._picture = None
        if self._connected_at is None:
            return 0.0
        lived_s = self._clock() - self._connected_at
        self._connected_at = None
        self._start_grace()
        self._tell_sync()
        return lived_s

    def _start_grace(self) -> None:
        self._lost_at = self._clock()
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        # A moment later than the grace, so that the two clocks may differ by their rounding.
        self._grace_timer = asyncio.get_running_loop().call_later(self._grace_s + 0.01, self._tell_sync)

    def _tell_sync(self) -> None:
        if self.synced != self._told_synced:
            self._told_synced = not self._told_synced
            log.info("in sync" if self._told_synced else "out of sync", resource=self.resource)
            self._handler.on_sync_changed(self._told_synced)

    def _report(self, error: Exception) -> None:
        """Warn once, not at every attempt, and not of what we cut ourselves."""
        if self._relist_wanted:
            return
        level = log.debug if self._failing else log.warning
        level("watch interrupted", resource=self.resource, error=str(error))
        self._failing = True

    def _log_undecodable(self, raw: bytes, error: Exception) -> None:
        name = ""
        if isinstance(error, Undecodable):
            name = f"{error.metadata.namespace}/{error.metadata.name}"
        log.error("object cannot be read, skipped", resource=self.resource, object=name, error=str(error))
