"""What gangs lack that could be placed whole: for whoever keeps room for them, and told to their groups."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.core.gangs.attempt import MemberOutcome, Workspace
from scheduler.core.gangs.book import Gang, GangBook
from scheduler.core.gangs.gang import GangError, GangOptions
from scheduler.core.gangs.news import GangNews, NotPlaced
from scheduler.core.gangs.ref import GangRef
from scheduler.core.gangs.reservation import Wanting
from scheduler.core.queue import SchedulingQueue


class Lacking:
    """Of gangs whose members exist, and of which fewer have a node than are needed."""

    def __init__(self, book: GangBook, queue: SchedulingQueue, workspace: Workspace) -> None:
        self._book, self._queue, self._workspace = book, queue, workspace

    def wanting(self, ref: GangRef) -> Wanting | None:
        """What the gang by this name wants; None if it lacks nothing, or lacks members."""
        gang = self._book.named(ref)
        lacks = self._lacks(gang) if gang is not None else None
        if gang is None or lacks is None:
            return None
        queued = [pod for pod in map(self._queue.get, gang.members) if pod is not None]
        placed = self._workspace.state.pods
        members = [self._workspace.member(pod) for pod in queued if pod.info.uid not in placed]
        return Wanting(gang, lacks[0], members, lacks[1])

    def tell(self, gang: Gang, outcomes: Iterable[MemberOutcome], news: GangNews) -> None:
        """That it was tried in vain, if it lacks nothing but room. The words are those of PlacementFeasible
        (pkg/scheduler/framework/plugins/gangscheduling), but that all members were tried."""
        refused = [o for o in outcomes if o.placement.node is None and not (o.retry or o.again)]
        lacks = self._lacks(gang) if refused else None
        if lacks is None:
            return
        message, refusal = refused[0].placement.message, refused[0].refusal
        if refusal is not None:
            counts = f"{refusal.reached} scheduled, 0 remaining"
            message = f"minCount ({lacks[0].min_count}) cannot be satisfied: {counts}, {refusal.why}"
        news.not_placed(NotPlaced(gang.ref, "Unschedulable", message))

    def _lacks(self, gang: Gang) -> tuple[GangOptions, int] | None:
        """And for how many more members it needs nodes."""
        if not gang.members:
            return None
        try:
            options = self._book.options_to_plan(gang)
        except GangError:
            return None
        if gang.existing < options.min_count:
            return None
        lacking = options.min_count - len(self._workspace.nodes_of(gang))
        return (options, lacking) if lacking > 0 else None
