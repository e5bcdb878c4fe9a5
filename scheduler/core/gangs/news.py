"""What there is to tell about gangs beside the decisions for their members.

It is picked up, after decisions, by who talks to the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.gang import OPTIONS
from scheduler.core.gangs.ref import GangRef, Source
from scheduler.core.pod_info import PodInfo


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """A gang all of whose members exist was tried, and has not what it needs."""

    ref: GangRef
    reason: Literal["Unschedulable", "SchedulerError"]
    message: str


@dataclass(frozen=True, slots=True)
class Differs:
    """A member's annotations are others than those that count."""

    pod: PodInfo
    message: str


class GangNews:
    """Each is handed out once. What nobody picks up is not more than the members that there are."""

    def __init__(self) -> None:
        self._not_placed: dict[GangRef, NotPlaced] = {}
        self._differ: dict[str, Differs] = {}
        self._told: set[str] = set()

    def not_placed(self, news: NotPlaced) -> None:
        self._not_placed[news.ref] = news

    def compare(self, gang: Gang, info: PodInfo) -> None:
        """Looks whether a member says something else than the oldest one, which counts."""
        if gang.ref.source is not Source.ANNOTATIONS or info.uid in self._told:
            return
        oldest = gang.oldest
        if oldest is info:
            for other in gang.members.values():
                if other is not info:
                    self.compare(gang, other)
            return
        for key in OPTIONS:
            mine, its = info.annotations.get(key), oldest.annotations.get(key)
            if mine != its:
                self._told.add(info.uid)
                self._differ[info.uid] = Differs(
                    info,
                    f"annotation {key} is {_text(mine)}, but {_text(its)} of {oldest.name} counts, the "
                    f"oldest member of gang {gang.ref}: give all members the same",
                )
                return

    def forget(self, uid: str) -> None:
        """The member is gone."""
        self._told.discard(uid)
        self._differ.pop(uid, None)

    def __iter__(self) -> Iterator[NotPlaced | Differs]:
        """Takes out all that there is."""
        while self._not_placed:
            yield self._not_placed.pop(next(iter(self._not_placed)))
        while self._differ:
            yield self._differ.pop(next(iter(self._differ)))


def _text(value: str | None) -> str:
    return "not set" if value is None else repr(value)
