"""Bytes of lists and watches → typed objects, with room for the one object that does not parse.

The quick path decodes a whole list page, or a watch event with its object, in one call and skips
every field that the type does not name. Only when that fails is the input taken apart, to find
out which object it was: one bad pod must cost one log line, not the cache.
"""

from typing import Generic, Protocol, TypeVar, cast

import msgspec

from scheduler.api import ObjectMeta
from scheduler.kube.errors import Status

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Item(Protocol):
    """Any of our API structs."""

    @property
    def metadata(self) -> ObjectMeta: ...


T = TypeVar("T", bound=Item)
S = TypeVar("S", bound=msgspec.Struct)


class Undecodable(Exception):
    """An object that does not fit its type; `metadata` is all that could be read of it."""

    def __init__(self, raw: bytes, cause: Exception, *, metadata: ObjectMeta, event_type: str) -> None:
        super().__init__(str(cause))
        self.raw = raw
        self.cause = cause
        self.metadata = metadata
        self.event_type = event_type


class Garbled(Exception):
    """Not what the API promises, or not even JSON: nothing after this can be trusted."""


class Page(msgspec.Struct, Generic[T], gc=False):
    """A page of a list; `bad` holds the objects that did not parse."""

    items: list[T]
    resource_version: str
    next_page: str
    bad: list[Undecodable]


class WatchEvent(msgspec.Struct, Generic[T], gc=False):
    """One line of a watch. Of a BOOKMARK only the object's metadata mean something."""

    type: str
    object: T


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct, Generic[T]):
    metadata: _ListMeta
    items: list[T] | None = None


class _RawList(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _RawEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _MetaOnly(msgspec.Struct):
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


class _RawMetaOnly(msgspec.Struct):
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


class ErrorEvent(Exception):
    """An ERROR event: the API server ends this watch, and says why."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class Decoder(Generic[T]):
    """For one type of object."""

    def __init__(self, item_type: type[T]) -> None:
        self._item = msgspec.json.Decoder(item_type)
        # A type that is known at run time only: mypy cannot follow the subscripts.
        self._event = msgspec.json.Decoder(cast("type[WatchEvent[T]]", WatchEvent[item_type]))  # type: ignore[valid-type]
        self._list = msgspec.json.Decoder(cast("type[_List[T]]", _List[item_type]))  # type: ignore[valid-type]

    def event(self, line: bytes) -> WatchEvent[T]:
        """One line of a watch. Raises `ErrorEvent`, `Undecodable` or `Garbled`."""
        try:
            event = self._event.decode(line)
        except msgspec.ValidationError as error:
            raw = _decoded(line, _RawEvent)
            if raw.type != "ERROR":
                raise Undecodable(
                    bytes(raw.object), error, metadata=_metadata(raw.object), event_type=raw.type
                ) from error
        except msgspec.DecodeError as error:
            raise Garbled(str(error)) from error
        else:
            if event.type != "ERROR":
                return event
            raw = _decoded(line, _RawEvent)
        raise ErrorEvent(_decoded(raw.object, Status))

    def page(self, body: bytes) -> Page[T]:
        """One page of a list. Raises `Garbled`."""
        bad: list[Undecodable] = []
        try:
            whole = self._list.decode(body)
            return Page(whole.items or [], whole.metadata.resource_version, whole.metadata.next_page, bad)
        except msgspec.ValidationError:
            pass
        except msgspec.DecodeError as error:
            raise Garbled(str(error)) from error
        items: list[T] = []
        raw_list = _decoded(body, _RawList)
        for raw in raw_list.items or []:
            try:
                items.append(self._item.decode(raw))
            except msgspec.ValidationError as error:
                bad.append(Undecodable(bytes(raw), error, metadata=_metadata(raw), event_type="ADDED"))
        return Page(items, raw_list.metadata.resource_version, raw_list.metadata.next_page, bad)

    def bare(self, raw: bytes) -> T:
        """The object reduced to its metadata, to say which one was deleted. Raises `Garbled`."""
        metadata = _decoded(raw, _RawMetaOnly).metadata
        try:
            return self._item.decode(b'{"metadata":%b}' % bytes(metadata))
        except msgspec.DecodeError as error:
            raise Garbled(f"which object? {error}") from error


def _decoded(data: bytes | msgspec.Raw, type_: type[S]) -> S:
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.DecodeError as error:
        raise Garbled(str(error)) from error


def _metadata(raw: msgspec.Raw) -> ObjectMeta:
    try:
        return msgspec.json.decode(raw, type=_MetaOnly).metadata
    except msgspec.DecodeError:
        return ObjectMeta()


class LineSplitter:
    """Chunks of bytes → complete lines, each byte copied a fixed number of times.

    A line may be longer than a chunk (a pod can have 1.5 MB) and there is no limit on it; the
    start of an unfinished line is kept as a list of chunks, joined once when its end arrives.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete now, without their line ends; empty ones left out."""
        lines = chunk.split(b"\n")
        tail = lines.pop()
        if not lines:
            self._pending.append(tail)
            return lines
        if self._pending:
            self._pending.append(lines[0])
            lines[0] = b"".join(self._pending)
            self._pending.clear()
        if tail:
            self._pending.append(tail)
        return [line for line in lines if line]
