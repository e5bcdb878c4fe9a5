"""Lists of what the watches don't show: pods that have finished, and groups before their watch has begun.

Most recent states (no resourceVersion is named, so these are quorum reads), repeated until they succeed.
"""

import random
from asyncio import sleep
from collections.abc import Iterable

import structlog

from scheduler.api import Pod
from scheduler.api_objects import ClusterObject
from scheduler.core.gangs.ref import GROUPS, GangRef
from scheduler.kube.backoff import Backoff
from scheduler.kube.client import KubeClient
from scheduler.kube.decode import Decoder, Garbled, T
from scheduler.kube.errors import ApiError, ErrorKind, KubeError
from scheduler.kube.journal_format import Entry
from scheduler.kube.resources import RESOURCES

log = structlog.get_logger(__name__)

PAGE_ITEMS = 500
_TIMEOUT_S = 30.0


async def list_pods(
    client: KubeClient, namespace: str, *, field_selector: str = "", rng: random.Random
) -> list[Pod]:
    """All pods of a namespace, finished ones too."""
    return await _list(client, f"/api/v1/namespaces/{namespace}/pods", Pod, field_selector, rng)


async def finished_pods(client: KubeClient, entries: Iterable[Entry], rng: random.Random) -> list[Pod]:
    """Those that have succeeded, of the namespaces of these gangs."""
    refs = [GangRef.parse(entry.gang) for entry in entries]
    namespaces = sorted({ref.namespace for ref in refs if ref is not None})
    pods: list[Pod] = []
    for namespace in namespaces:
        pods += await list_pods(client, namespace, field_selector="status.phase=Succeeded", rng=rng)
    return pods


async def groups_of(client: KubeClient, entries: Iterable[Entry], rng: random.Random) -> list[ClusterObject]:
    """The objects that describe these gangs."""
    groups: list[ClusterObject] = []
    for ref in {ref for entry in entries if (ref := GangRef.parse(entry.gang)) is not None}:
        for kind, source in GROUPS.items():
            if ref.source is source:
                root, _, name = RESOURCES[kind].path.rpartition("/")
                path = f"{root}/namespaces/{ref.namespace}/{name}"
                groups += await _list(client, path, kind, f"metadata.name={ref.name}", rng)
    return groups


async def _list(
    client: KubeClient, path: str, kind: type[T], field_selector: str, rng: random.Random
) -> list[T]:
    """What can't be read is left out; nothing if no such objects are served."""
    backoff, decoder = Backoff(0.1, 5.0, rng=rng), Decoder(kind)
    first = {"limit": str(PAGE_ITEMS)} | ({"fieldSelector": field_selector} if field_selector else {})
    while True:
        items: list[T] = []
        query = dict(first)
        try:
            while True:
                answer = await client.request("GET", path, query=query, timeout_s=_TIMEOUT_S)
                page = decoder.page(answer.body)
                items += page.items
                if not page.next_page:
                    return items
                query["continue"] = page.next_page
        except (KubeError, Garbled) as error:
            if isinstance(error, ApiError) and error.kind is ErrorKind.NOT_FOUND:
                return []
            log.warning("not listed, it is tried again", path=path, error=str(error))
            await sleep(backoff.next())
