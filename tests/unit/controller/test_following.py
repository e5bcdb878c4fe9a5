"""What of kopf's log reaches an operator, and what kopf is not to ask for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from scheduler.controller.following import Following, _Quiet
from scheduler.controller.shapes import GroupObject, Key
from scheduler.controller.workloads import Workload


class Silent:
    """A sink for what nobody needs."""

    def group_seen(self, group: GroupObject, /) -> None: ...

    def group_gone(self, key: Key, /) -> None: ...

    def workload_seen(self, owner: Workload, /) -> None: ...

    def workload_gone(self, kind: str, key: Key, /) -> None: ...


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    root, kept = logging.getLogger(), Kept()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [kept]
    root.setLevel(logging.INFO)
    try:
        yield kept
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def say(quiet: _Quiet, text: str, level: int = logging.WARNING) -> None:
    quiet.handle(logging.LogRecord("kopf.x", level, "file", 1, text, None, None))


def test_what_is_said(kept: Kept) -> None:
    quiet = _Quiet()
    for _ in range(3):
        say(quiet, "OS signals are ignored: running not in the main thread.")
        say(quiet, "Unresolved resources cannot be served (try creating their CRDs): jobsets")
        say(quiet, "Request attempt #1 failed; will retry: GET /x", logging.ERROR)
    say(quiet, "Not enough permissions to watch for resources")
    assert [(record.levelname, record.getMessage()[:12]) for record in kept.records] == [
        ("INFO", "Unresolved r"),
        ("WARNING", "Request atte"),
        ("WARNING", "Not enough p"),
    ]


def test_the_processs_level_counts(kept: Kept) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    say(_Quiet(), "a warning")
    assert kept.records == []


async def test_the_user_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an identity kopf asks for it, and in a container it is a number that /etc/passwd may not know.
    That it works there is shown by `make e2e`."""
    begun, given = threading.Event(), dict[str, object]()

    async def operator(*, stop_flag: asyncio.Event, **options: object) -> None:
        given.update(options)
        begun.set()
        await stop_flag.wait()

    monkeypatch.setattr("kopf.operator", operator)
    following = Following(None, Silent())
    following.start()
    assert await asyncio.to_thread(begun.wait, 20.0)
    await following.stop()
    assert given["identity"]
