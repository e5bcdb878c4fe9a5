"""Deletes what is left of gangs that have lost members and want to start anew as a whole.

A gang that lacks members may have lost them, or they may have finished: finished pods are not watched, so
the watch shows both alike. And nothing that one process remembers would help the next. So what is done
follows from one complete list of the gang's namespace: too few members are bound or have succeeded, one of
the bound ones shows that the gang was complete, hence those that are left go. Done twice, or half by a
leader that dies, it comes to the same.

Members go as in a compensation: with a condition that says why, by their uid; those that no controller
would create again stay and say so, unless the gang has agreed.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from scheduler.api import Pod
from scheduler.core.gangs.commit import is_bound, shows_complete
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.actions import Member
from scheduler.kube.gangs.lists import list_pods
from scheduler.kube.gangs.pods import PodWrites
from scheduler.kube.gangs.recovery import member_of
from scheduler.kube.payloads import PodEvent

log = structlog.get_logger(__name__)

LOST_MEMBERS = "GangLostMembers"
"""Reason of the condition of members that are deleted, and of the event of those that stay."""
LOOK_AFTER_S = 0.5
"""Members are mostly lost, or finish, within moments of each other."""
_LISTS_AT_ONCE = 2
"""When a zone fails, many gangs have lost members."""


class Restart(msgspec.Struct, frozen=True):
    """A gang that seems to have lost members, by its name of `gang_of`, and what it has agreed to."""

    gang: str
    namespace: str
    min_count: int
    delete_uncontrolled: bool


class Owner(Protocol):
    """Who asks for restarts."""

    def on_leaving(self, gang: str, member: Member, /) -> None:
        """The member will be deleted now."""

    def on_kept(self, gang: str, member: Member, /) -> None:
        """The member will say now that it stays."""

    def on_settled(self, gang: str, deleted: int, /) -> None:
        """All is done; nothing had to be if no member was `deleted`."""


class EventWriter(Protocol):
    """What is used of `writer.Writer`."""

    def post_event(self, event: PodEvent, /) -> None: ...


class Restarts:
    """`ask` for them; `run` must be going on. `leads` is asked before anything is deleted."""

    def __init__(
        self,
        client: KubeClient,
        events: EventWriter,
        owner: Owner,
        *,
        scheduler_name: str,
        gang_of: Callable[[Pod], str | None],
        leads: Callable[[], bool] = lambda: True,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._events, self._owner = client, events, owner
        self._scheduler_name, self._gang_of, self._leads = scheduler_name, gang_of, leads
        self._rng = rng or random.Random()
        self._writes = PodWrites(client, rng=self._rng, clock=clock)
        self._asked: asyncio.Queue[Restart] = asyncio.Queue()
        self._places = asyncio.Semaphore(_LISTS_AT_ONCE)
        self._next_lists: dict[str, asyncio.Task[Mapping[str | None, Sequence[Pod]]]] = {}
        """By namespace; not begun."""

    def ask(self, restart: Restart) -> None:
        """See whether the gang has lost members, and delete the others if so."""
        self._asked.put_nowait(restart)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._carry_out(await self._asked.get()))

    async def _carry_out(self, restart: Restart) -> None:
        await asyncio.sleep(LOOK_AFTER_S)
        members = (await self._pods_by_gang(restart.namespace)).get(restart.gang, ())
        left = what_is_left(members, restart.min_count)
        goes = {m.uid for m in left if m.has_controller or restart.delete_uncontrolled}
        if not self._leads():
            self.ask(restart)  # who does will find the same; should it be us again, so do we
            return
        if left:
            log.warning("a gang starts anew", gang=restart.gang, left=len(left), deleted=len(goes))
        for member in left:
            (self._owner.on_leaving if member.uid in goes else self._owner.on_kept)(restart.gang, member)
        async with asyncio.TaskGroup() as group:
            for member in left:
                group.create_task(self._delete(member) if member.uid in goes else self._keep(member))
        self._owner.on_settled(restart.gang, len(goes))

    async def _pods_by_gang(self, namespace: str) -> Mapping[str | None, Sequence[Pod]]:
        """By a list that begins after this was called. All who ask before it begins share it."""
        if namespace not in self._next_lists:
            self._next_lists[namespace] = asyncio.create_task(self._list(namespace))
        return await self._next_lists[namespace]

    async def _list(self, namespace: str) -> Mapping[str | None, Sequence[Pod]]:
        by_gang: defaultdict[str | None, list[Pod]] = defaultdict(list)
        async with self._places:
            del self._next_lists[namespace]
            for pod in await list_pods(self._client, namespace, rng=self._rng):
                by_gang[self._gang_of(pod)].append(pod)
        return by_gang

    async def _delete(self, member: Member) -> None:
        message = f"{self._scheduler_name}: its gang has lost members and starts anew"
        await self._writes.delete(member, reason=LOST_MEMBERS, message=message)

    async def _keep(self, member: Member) -> None:
        note = (
            f"Its gang has lost members and starts anew, but the pod stays on {member.node}: it has no "
            "controller that would create it again"
        )
        self._events.post_event(
            member.warning(
                reason=LOST_MEMBERS,
                action="Restarting",
                note=note,
                scheduler_name=self._scheduler_name,
            )
        )
        await self._writes.keep(member, reason=LOST_MEMBERS, message=note)


def what_is_left(members: Iterable[Pod], min_count: int) -> list[Member]:
    """Of all members of a gang that exist, in whatever phase: those that have to go for it to start anew;
    none if it has lost none that it needs."""
    members = list(members)
    finished = [pod for pod in members if pod.status.phase == "Succeeded"]
    bound = [pod for pod in members if is_bound(pod) and pod.status.phase not in ("Succeeded", "Failed")]
    if len(bound) + len(finished) >= min_count or not any(shows_complete(pod) for pod in bound):
        return []
    return [member_of(pod) for pod in bound]
