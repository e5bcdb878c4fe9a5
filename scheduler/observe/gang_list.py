"""The answer of `/debug/gangs`: all gangs, looked at a few at a time, since there may be thousands.

So it is no picture of one moment: a gang that changes meanwhile is shown as it was when it was looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from datetime import UTC, datetime

from scheduler.core.engine import Engine
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.view import GangList, GangView, views

MEMBERS_AT_ONCE = 1000
"""Some milliseconds of work."""


async def list_gangs(
    engine: Engine, committing: Callable[[], Container[GangRef]], *, leads: Callable[[], bool]
) -> GangList:
    """By namespace and name. `committing` as for `views`."""
    found: list[GangView] = []
    chunk: list[GangRef] = []
    members = 0
    refs = sorted((gang.ref for gang in engine.gangs.book), key=lambda ref: (ref.namespace, ref.name))
    for ref in refs:
        gang = engine.gangs.book.named(ref)
        members += len(gang.members) if gang is not None else 0
        chunk.append(ref)
        if members >= MEMBERS_AT_ONCE:
            found += views(engine, chunk, committing())
            chunk, members = [], 0
            await asyncio.sleep(0)
    found += views(engine, chunk, committing())
    return GangList(datetime.now(UTC).isoformat(timespec="milliseconds"), leads(), tuple(found))
