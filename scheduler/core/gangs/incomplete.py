"""Gangs of which too few members exist: what is missing is told to those that are there, after a while.

Members mostly come within moments of each other, and nobody wants a word about each of these moments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from scheduler.core.gangs.book import Gang, GangBook
from scheduler.core.gangs.ref import GangRef
from scheduler.core.queue import Place, QueuedPod, SchedulingQueue

TELL_AFTER_S = 5.0
"""What is still incomplete then is worth a word."""


class Incomplete:
    """`why` says what a gang lacks; empty when it lacks no members."""

    def __init__(
        self,
        book: GangBook,
        queue: SchedulingQueue,
        clock: Callable[[], float],
        why: Callable[[Gang], str],
    ) -> None:
        self._book, self._queue, self._clock, self._why = book, queue, clock, why
        self._since: dict[GangRef, float] = {}
        """Gangs whose members have not been told, the one that has waited longest first."""
        self._due: deque[tuple[str, str]] = deque()
        """Members that it is time to tell, and what."""

    def add(self, gang: Gang, queued: QueuedPod) -> None:
        """This member waits until its gang is complete."""
        self._queue.set_incomplete(queued)
        self._since.setdefault(gang.ref, self._clock())

    def forget(self, ref: GangRef) -> None:
        """The gang is complete, or gone."""
        self._since.pop(ref, None)

    def next_untold(self) -> tuple[QueuedPod, str] | None:
        """The next member whose gang has been incomplete for a while, each once, and why it is."""
        while self._due or self._since:
            while self._due:
                uid, why = self._due.popleft()
                queued = self._queue.get(uid)
                if queued is not None and queued.place is Place.INCOMPLETE:
                    return queued, why
            ref, since = next(iter(self._since.items()), (None, 0.0))
            if ref is None or since + TELL_AFTER_S > self._clock():
                return None
            del self._since[ref]
            gang = self._book.named(ref)
            why = self._why(gang) if gang is not None else ""
            if gang is not None and why:
                self._due += [(uid, why) for uid in gang.members]
        return None

    def next_due(self) -> float | None:
        """When `next_untold` may have something to say."""
        if self._due:
            return self._clock()
        return next((since + TELL_AFTER_S for since in self._since.values()), None)
