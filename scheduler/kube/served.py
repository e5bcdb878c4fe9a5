"""Whether the API server serves a kind of object: some come later, or never."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from scheduler.kube.client import KubeClient
from scheduler.kube.errors import KubeError
from scheduler.kube.resources import Resource

log = structlog.get_logger(__name__)

POLL_S = 30.0


class _Name(msgspec.Struct):
    name: str = ""


class _ResourceList(msgspec.Struct):
    resources: list[_Name] = []


async def until_served(
    client: KubeClient, resource: Resource, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Returns when it is. That it is not, or that nobody answers, is no error: it is asked again."""
    root = resource.path.rpartition("/")[0]
    while True:
        try:
            answer = await client.request("GET", root, timeout_s=15.0)
            found = msgspec.json.decode(answer.body, type=_ResourceList).resources
            if any(item.name == resource.name for item in found):
                log.info(
                    "api is served", resource=f"{resource.name}.{resource.group}", version=resource.version
                )
                return
        except (KubeError, msgspec.DecodeError) as error:
            log.debug("api is not served", resource=f"{resource.name}.{resource.group}", why=str(error))
        await sleep(POLL_S)
