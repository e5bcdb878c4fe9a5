"""Whether the API server serves a kind of object: some come later, or never."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError, ErrorKind, KubeError
from scheduler.kube.resources import Resource

log = structlog.get_logger(__name__)

POLL_S = 30.0


class _Name(msgspec.Struct):
    name: str = ""


class _ResourceList(msgspec.Struct):
    resources: list[_Name] = []


async def is_served(client: KubeClient, resource: Resource) -> bool:
    """Raises KubeError, or msgspec.DecodeError, when nobody says so or otherwise."""
    try:
        answer = await client.request("GET", resource.path.rpartition("/")[0], timeout_s=15.0)
    except ApiError as error:
        if error.kind is ErrorKind.NOT_FOUND:
            return False
        raise
    found = msgspec.json.decode(answer.body, type=_ResourceList).resources
    return any(item.name == resource.name for item in found)


async def until_served(
    client: KubeClient, resource: Resource, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Returns when it is. That it is not, or that nobody answers, is no error: it is asked again."""
    while True:
        try:
            if await is_served(client, resource):
                log.info(
                    "api is served", resource=f"{resource.name}.{resource.group}", version=resource.version
                )
                return
        except (KubeError, msgspec.DecodeError) as error:
            name = f"{resource.name}.{resource.group}"
            log.debug("it is not known whether an api is served", resource=name, why=str(error))
        await sleep(POLL_S)
