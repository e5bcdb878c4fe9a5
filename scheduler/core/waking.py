"""Waking: which sleeping pods has what happened helped?

A waiting pod is woken only when something happened that one of the plugins that rejected the pod names in
`wakes_on`, and the pod's filters now pass: on the very nodes where it happened, or, for plugins that look
beyond a node (affinity, spreading, volumes), on any. Of objects beside nodes and pods, the plugins are
asked first whether they can help the pod. This is checked once per group of pods that get the same
answer, not per pod, and no more often than the checks' own cost allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.api_objects import ClusterObject
from scheduler.core.objects import WAKES, ObjectChanges
from scheduler.core.plugin import ObjectChange, Wake
from scheduler.core.pod_info import PodInfo
from scheduler.core.profile import Profile
from scheduler.core.queue import Kind, Place, QueuedPod, SchedulingQueue
from scheduler.core.second_look import SecondLook

WAKE_SHARE = 4
"""Wake checks may take one part in so many of the loop's time when events and kinds are plenty."""
WAKE_SLICE_S = 0.01
"""And so long at a time: a change of all nodes, looked at for a thousand kinds, takes seconds."""


class Waking:
    """What has happened since the last check, and the check under way."""

    def __init__(
        self,
        profiles: Sequence[Profile],
        queue: SchedulingQueue,
        second_looks: Mapping[str, SecondLook],
        *,
        row_of: Mapping[str, int],
        clock: Callable[[], float],
    ) -> None:
        """`second_looks` by scheduler name; `row_of` is the node table's own map from names to rows."""
        self._queue, self._second_looks, self._row_of, self._clock = queue, second_looks, row_of, clock
        self._filters = {p.scheduler_name: {f.name: f for f in p.filters} for p in profiles}
        self._anywhere = {
            p.scheduler_name: frozenset(f.name for f in p.filters if not f.row_local) for p in profiles
        }
        """Plugins of a profile that events on one node may turn around on others."""
        self._helpful: dict[str, Wake] = {}
        """Node name → what has happened to it since the last check began."""
        self._happened = Wake.NOTHING
        """All of that together, and what happened to other things."""
        self._objects_happened = ObjectChanges()
        self._changed: dict[str, Wake] = {}
        self._changes = Wake.NOTHING
        self._objects_changed = ObjectChanges()
        """The same three for the check under way."""
        self._check: Iterator[int] | None = None
        """Goes on with the check where it was left."""
        self._rows_helped: dict[Wake, NDArray[np.intp]] = {}
        """Rows that any of some events happened to, while they can't move."""
        self._awaited = Wake.NOTHING
        """What the plugins that rejected sleeping pods wait for; maybe more, never less."""
        self._awaited_by_unchecked = Wake.NOTHING
        """The same of the kinds that the check under way may not have come to."""
        self._next_check = clock()
        self._remembered: dict[str, Wake] | None = None
        """What has happened to nodes, and under the empty name elsewhere, while pods were planned for."""

    # ---- what happens

    def note(self, node: str, event: Wake) -> None:
        """Something happened to a node or the pods on it."""
        self._remember(node, event)
        event = self._if_awaited(event)
        if event and node in self._row_of:
            self._helpful[node] = self._helpful.get(node, Wake.NOTHING) | event
            self._happened |= event

    def note_anywhere(self, event: Wake) -> None:
        """Something happened that is on no node."""
        self._remember("", event)
        self._happened |= self._if_awaited(event)

    def note_object(self, kind: type[ClusterObject], change: ObjectChange | None = None) -> None:
        """`change` is None when many may have changed."""
        self._remember("", WAKES.get(kind, Wake.NOTHING))
        event = self._if_awaited(WAKES.get(kind, Wake.NOTHING))
        if event:
            self._happened |= event
            self._objects_happened.note(kind, change)

    def remember(self) -> None:
        """Pods are planned for beside others' decisions: what happens from now on may help them, too, though
        they are not asleep yet when it is looked at for others."""
        if self._remembered is None:
            self._remembered = {}

    def recall(self, *, go_on: bool) -> None:
        """They may have fallen asleep: what has happened since is looked at once more, and no longer
        remembered unless planning goes on."""
        remembered, self._remembered = self._remembered or {}, None
        for node, event in remembered.items():
            if node:
                self.note(node, event)
            else:
                self.note_anywhere(event)
        for kind, event in WAKES.items():
            if event & remembered.get("", Wake.NOTHING):
                self.note_object(kind)
        self._remembered = remembered if go_on else None

    def forget_node(self, name: str) -> None:
        """The node is gone."""
        self._helpful.pop(name, None)

    def wait_for_help(self, name: str, rejected_by: Iterable[str]) -> None:
        """A pod of this profile falls asleep, rejected by these plugins."""
        self._awaited |= self._wanted(name, rejected_by)

    # ---- the check

    @property
    def due(self) -> float | None:
        """The clock's time of the next slice; None when there is nothing to look at."""
        return self._next_check if self._check or self._happened else None

    def wake_helped(self) -> int:
        """Wakes pods that what happened has helped; returns how many.

        Goes through the sleeping pods for at most `WAKE_SLICE_S` and takes up the rest next time.
        """
        start = self._clock()
        if start < self._next_check or not (self._check or self._happened):
            return 0
        if self._check is None:
            self._changed, self._helpful = self._helpful, {}
            self._changes, self._happened = self._happened, Wake.NOTHING
            self._objects_changed, self._objects_happened = self._objects_happened, ObjectChanges()
            self._awaited_by_unchecked, self._awaited = self._awaited, Wake.NOTHING
            self._check = self._check_kinds(self._queue.unschedulable_kinds())
        self._rows_helped.clear()  # rows may have moved since the last slice
        woken, end = 0, start
        while end - start <= WAKE_SLICE_S:
            step = next(self._check, None)
            if step is None:
                self._check, self._awaited_by_unchecked = None, Wake.NOTHING
                break
            woken += step
            end = self._clock()
        self._next_check = end + (end - start) * (WAKE_SHARE - 1)
        return woken

    # ---- internals

    def _check_kinds(self, kinds: Iterable[Kind]) -> Iterator[int]:
        """Wakes pods of these kinds that are helped, and says how many, a group of alike ones at a time.
        The cluster may change between any two steps."""
        for kind in kinds:
            asleep = self._queue.asleep(kind)
            if asleep is None:
                continue  # woken otherwise in the meantime
            pods, rejected_by = asleep
            name, wanted = kind[0], self._wanted(kind[0], rejected_by)
            everywhere = rejected_by & self._anywhere[name]
            anywhere = self._changes & self._wanted(name, everywhere, new=Wake.NOTHING)
            rows = self._rows_that_saw(wanted)
            if not (len(rows) or anywhere):
                self._awaited |= wanted
                yield 0
                continue
            by_objects = not anywhere & ~Wake.OBJECT_ANY
            for group in list(self._second_looks[name].groups(pods, rows if by_objects else None)):
                alike = [pod for pod in group if pod.place is Place.UNSCHEDULABLE and pod.kind == kind]
                if alike:
                    self._awaited |= wanted
                    yield self._wake_if_helped(alike, rejected_by, anywhere)

    def _wake_if_helped(self, alike: Sequence[QueuedPod], rejected_by: frozenset[str], anywhere: Wake) -> int:
        """`anywhere`: what has happened that may help on any node."""
        (name, key), info = alike[0].kind, alike[0].info
        rows = self._rows_that_saw(self._wanted(name, rejected_by))
        where: NDArray[np.intp] | None = None
        if not anywhere & ~Wake.OBJECT_ANY and not (
            anywhere and self._objects_may_help(name, rejected_by, info)
        ):
            where = rows
            if not len(where):
                return 0
        second_look = self._second_looks[name]
        still = second_look.rejected_by(info, key, where)
        if still is None or second_look.might_be_helped(info, key, rows):
            return self._queue.wake(alike, "NodeChange")
        # One reason has gone and another has shown: from now on it is that which must go.
        self._queue.note_rejections(alike[0].kind, still)
        self._awaited |= self._wanted(name, still)
        return 0

    def _rows_that_saw(self, events: Wake) -> NDArray[np.intp]:
        """Rows of the nodes to which any of the events happened."""
        rows = self._rows_helped.get(events)
        if rows is None:
            row_of = self._row_of
            helped = [row_of[n] for n, event in self._changed.items() if event & events and n in row_of]
            rows = self._rows_helped[events] = np.array(helped, np.intp)
        return rows

    def _objects_may_help(self, name: str, rejected_by: Iterable[str], info: PodInfo) -> bool:
        """Whether any of the objects that have changed may turn any of these rejections around."""
        filters = self._filters[name]
        return any(self._objects_changed.may_help(filters[plugin], info) for plugin in rejected_by)

    def _wanted(self, name: str, plugins: Iterable[str], *, new: Wake = Wake.NODE_ADD) -> Wake:
        """What may turn these plugins' rejections around; nobody has rejected a `new` node yet."""
        filters, wanted = self._filters[name], new
        for plugin in plugins:
            wanted |= filters[plugin].wakes_on
        return wanted

    def _remember(self, node: str, event: Wake) -> None:
        if self._remembered is not None and event:
            self._remembered[node] = self._remembered.get(node, Wake.NOTHING) | event

    def _if_awaited(self, event: Wake) -> Wake:
        return event & (self._awaited | self._awaited_by_unchecked)
