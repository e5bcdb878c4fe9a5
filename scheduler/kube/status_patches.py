"""Patches of pods' status: the newest of each pod, and none while the pod is being bound.

A patch that says `PodScheduled=False` or names a nominated node must not overtake, or be overtaken by,
the bind of its pod: a bind drops its pod's queued patch and waits for the one under way. No two
patches of a pod are under way at once.

**Nominations.** Before 1.35 an API server takes a nomination for a pod that is bound already (gate
ClearingNominatedNodeNameAfterBinding), and a patch whose answer was lost may be executed late. So a
nomination names the version of the pod that it is for. When it has to be repeated, the pod is read
first, which shows the version to name, or that the pod needs no node any more.
"""

import asyncio
from collections.abc import Callable

import msgspec

from scheduler.kube.besteffort import TIMEOUT_S, BestEffort, Job
from scheduler.kube.brief import decode_brief
from scheduler.kube.client import STRATEGIC_MERGE_PATCH, KubeClient
from scheduler.kube.payloads import StatusPatch, utc_now
from scheduler.kube.pool import Lane

Then = Callable[[], None]


class _Patch(Job[StatusPatch]):
    """Calls each of `then` once, when it is written or given up."""

    __slots__ = ("then",)

    def __init__(self, what: StatusPatch, then: tuple[Then, ...]) -> None:
        super().__init__(what)
        self.then = then

    def end(self) -> None:
        for call in self.then:
            call()


class StatusPatches:
    """`lane`, and `urgent` for patches that something waits for, are for a `WorkerPool`, whose `wake` is
    given here. `on_free(uid)` is called when a patch is no longer under way, and says whether the pod's bind
    waited for that: then the pod needs no more patches.
    """

    def __init__(
        self,
        client: KubeClient,
        best_effort: BestEffort,
        *,
        work: str,
        limit: int,
        queue_limit: int,
        wake: Callable[[], None],
        on_drop: Callable[[str, str], None],
        on_free: Callable[[str], bool],
    ) -> None:
        self._client, self._best_effort, self._work = client, best_effort, work
        self._queue_limit, self._wake = queue_limit, wake
        self._on_drop, self._on_free = on_drop, on_free
        # Of uids: what is sent is in _waiting.
        self.lane: Lane[str] = Lane(self._do, limit=limit)
        self.urgent: Lane[str] = Lane(self._do, limit=limit)
        self._waiting: dict[str, _Patch] = {}  # the newest of each pod, not yet sent
        self._under_way: set[str] = set()
        self._retries: dict[str, tuple[_Patch, asyncio.TimerHandle]] = {}
        self._closed = False

    def __len__(self) -> int:
        """Patches that are neither written nor given up."""
        return len(self._waiting) + len(self._under_way) + len(self._retries)

    def under_way(self, uid: str) -> bool:
        """Whether a request about the pod has been sent and not been answered."""
        return uid in self._under_way

    def put(self, patch: StatusPatch, then: Then | None = None) -> None:
        """Takes the place of the pod's waiting patch, and says what that said and this one does not."""
        thens: tuple[Then, ...] = () if then is None else (then,)
        older = self._waiting.get(patch.uid)
        if patch.uid in self._retries:
            older, timer = self._retries.pop(patch.uid)
            timer.cancel()
        if older is not None:
            patch, thens = patch.over(older.what), older.then + thens
        elif len(self._waiting) >= self._queue_limit:
            self._on_drop(self._work, "queue_full")
            _Patch(patch, thens).end()
            return
        self._queue(_Patch(patch, thens))

    def drop(self, uid: str) -> None:
        """Forget the pod's patch, if it is not under way."""
        dropped = self._waiting.pop(uid, None)
        if uid in self._retries:
            dropped, timer = self._retries.pop(uid)
            timer.cancel()
        if dropped is not None:
            dropped.end()

    def close(self) -> None:
        """Forget all that are not under way, and repeat none of these."""
        self._closed = True
        for uid in [*self._waiting, *self._retries]:
            self.drop(uid)

    def _queue(self, patch: _Patch) -> None:
        uid = patch.what.uid
        older = self._waiting.get(uid)
        self._waiting[uid] = patch
        if uid not in self._under_way and (older is None or (patch.then and not older.then)):
            self._line_up(uid)
            self._wake()

    def _line_up(self, uid: str) -> None:
        """Twice is no harm: what is queued is sent once."""
        lane = self.urgent if self._waiting[uid].then else self.lane
        lane.waiting.append(uid)

    async def _do(self, uid: str) -> None:
        patch = None if uid in self._under_way else self._waiting.pop(uid, None)
        if patch is None:
            return  # dropped, or queued once more when the one under way is done
        self._under_way.add(uid)
        try:
            retry_in_s = await self._best_effort.send(patch, self._work, lambda: self._attempt(patch))
        finally:
            self._under_way.discard(uid)
        newer = self._waiting.get(uid)
        if self._on_free(uid):
            patch.end()
        elif newer is not None:
            if retry_in_s is None:
                patch.end()
            else:
                newer.what, newer.then = newer.what.over(patch.what), patch.then + newer.then
            self._line_up(uid)
        elif retry_in_s is not None and not self._closed:
            timer = asyncio.get_running_loop().call_later(retry_in_s, self._retry, uid)
            self._retries[uid] = patch, timer
        else:
            patch.end()
        self._wake()

    def _retry(self, uid: str) -> None:
        patch, _ = self._retries.pop(uid)
        self._queue(patch)

    async def _attempt(self, patch: _Patch) -> None:
        if patch.attempts and patch.what.resource_version:
            answer = await self._client.request("GET", patch.what.pod_path, timeout_s=TIMEOUT_S)
            pod = decode_brief(answer.body)
            if pod.metadata.uid != patch.what.uid or pod.spec.node_name:
                return  # gone, or bound
            version = pod.metadata.resource_version
            patch.what = msgspec.structs.replace(patch.what, resource_version=version)
        await self._client.request(
            "PATCH",
            patch.what.path,
            body=patch.what.body(utc_now()),
            content_type=STRATEGIC_MERGE_PATCH,
            timeout_s=TIMEOUT_S,
        )
