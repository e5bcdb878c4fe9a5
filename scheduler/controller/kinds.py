"""The kinds that are followed, and whether all of them are that the API server serves.

kopf asks what is served when a CRD changes, and not again. The API server may come to serve the kind only
after the CRD's last change, the more so under load: the kind would then never be followed. So what is served
is compared with what is followed, every now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec
import structlog

from scheduler.api_objects import CoschedulingPodGroup
from scheduler.controller.workloads import API_VERSIONS
from scheduler.kube.client import KubeClient
from scheduler.kube.errors import KubeError
from scheduler.kube.resources import RESOURCES, Resource
from scheduler.kube.served import is_served

log = structlog.get_logger(__name__)

POD_GROUPS = RESOURCES[CoschedulingPodGroup]
WORKLOADS = {
    kind: Resource(f"{kind.lower()}s", *api_version.split("/")) for kind, api_version in API_VERSIONS.items()
}
KINDS = frozenset({POD_GROUPS, *WORKLOADS.values()})

PERIOD_S = 15.0
_ROUNDS = 2
"""A difference must last for so many: kopf notices most changes itself, a moment later."""
_MOST_ROUNDS = 40


async def keep_up(
    client: KubeClient,
    *,
    followed: Callable[[], frozenset[Resource] | None],
    start_anew: Callable[[], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Calls `start_anew` when what is served and what is `followed` (None: not known yet) go on to differ.

    If that doesn't help, it is done ever more rarely. While the API server doesn't say what it serves,
    nothing is done.
    """
    differed, enough = 0, _ROUNDS
    while True:
        await sleep(PERIOD_S)
        try:
            served = frozenset([kind for kind in KINDS if await is_served(client, kind)])
        except (KubeError, msgspec.DecodeError) as error:
            log.debug("what is served is not known", why=str(error))
            continue
        now = followed()
        if now is None:
            continue
        if served == now:
            differed, enough = 0, _ROUNDS
            continue
        differed += 1
        if differed >= enough:
            missing, gone = _names(served - now), _names(now - served)
            log.info("following is started anew", not_followed=missing, not_served=gone)
            start_anew()
            differed, enough = 0, min(2 * enough, _MOST_ROUNDS)


def _names(kinds: frozenset[Resource]) -> list[str]:
    return sorted(f"{kind.name}.{kind.group}" for kind in kinds)
