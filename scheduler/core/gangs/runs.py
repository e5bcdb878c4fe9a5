"""Attempts under way: one that nobody else may be decided beside, and those that others are decided beside.

Of the latter the first is worked on until it ends, then the next. A member of a gang that comes while an
attempt of its gang is under way is kept for the next attempt.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from scheduler.core.gangs.attempt import Attempt
from scheduler.core.gangs.book import Gang
from scheduler.core.gangs.gang import Strategy
from scheduler.core.queue import QueuedPod


@dataclass(eq=False, slots=True)
class Run:
    """An attempt under way."""

    gang: Gang
    strategy: Strategy
    attempt: Attempt
    taken: dict[str, QueuedPod]
    """The members that it was given."""
    concerns: Container[str]
    """Uids of these, and of the members that had a place for the time being."""
    beside: bool
    late: dict[str, QueuedPod] = field(default_factory=dict)
    """Members that have come since."""


class Runs:
    """All that are under way."""

    def __init__(self) -> None:
        self._alone: Run | None = None
        self._beside: dict[Run, None] = {}

    @property
    def alone(self) -> Run | None:
        return self._alone

    @property
    def current(self) -> Run | None:
        """The one to go on with."""
        return self._alone or next(iter(self._beside), None)

    def __bool__(self) -> bool:
        return self.current is not None

    def of(self, gang: Gang) -> Run | None:
        return next((run for run in self._all() if run.gang is gang), None)

    def concerning(self, uid: str) -> Run | None:
        """Whose outcome a change of this member makes void."""
        return next((run for run in self._all() if uid in run.concerns), None)

    def add(self, run: Run) -> None:
        """Of `alone` there may be one, and it is added only when there is none."""
        if run.beside:
            self._beside[run] = None
        else:
            self._alone = run

    def turns(self, run: Run, *, beside: bool) -> None:
        """The current one goes on with or without others beside it."""
        if run.beside != beside:
            self.remove(run)
            run.beside = beside
            self.add(run)

    def remove(self, run: Run) -> None:
        if self._alone is run:
            self._alone = None
        self._beside.pop(run, None)

    def _all(self) -> Iterable[Run]:
        return (*self._beside, self._alone) if self._alone is not None else tuple(self._beside)
