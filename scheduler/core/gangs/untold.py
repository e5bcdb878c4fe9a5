"""Members that wait for their gang to be complete, and have not been told what it lacks.

Members mostly come within moments of each other. What is still missing after a while is worth a word to
each that waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from scheduler.core.gangs.book import Gang, GangBook
from scheduler.core.gangs.ref import GangRef
from scheduler.core.queue import Place, QueuedPod, SchedulingQueue

TELL_AFTER_S = 5.0


class Untold:
    """`why(gang)`: what it lacks; empty when it lacks nothing."""

    def __init__(
        self,
        book: GangBook,
        queue: SchedulingQueue,
        clock: Callable[[], float],
        why: Callable[[Gang], str],
    ) -> None:
        self._book, self._queue, self._clock, self._why = book, queue, clock, why
        self._since: dict[GangRef, float] = {}
        """Gangs that lack something → since when."""
        self._due: deque[tuple[str, str]] = deque()
        """Members that it is time to tell, and what."""

    def lacks(self, ref: GangRef) -> None:
        """Some member of the gang waits for it to be complete."""
        self._since.setdefault(ref, self._clock())

    def lacks_nothing(self, ref: GangRef) -> None:
        """It is complete, or gone."""
        self._since.pop(ref, None)

    def next(self) -> tuple[QueuedPod, str] | None:
        """The next member that it is time to tell, each once, and what."""
        while self._due or self._find():
            uid, why = self._due.popleft()
            queued = self._queue.get(uid)
            if queued is not None and queued.place is Place.INCOMPLETE:
                return queued, why
        return None

    def next_due(self) -> float | None:
        """When `next` may find somebody."""
        if self._due:
            return self._clock()
        return next((since + TELL_AFTER_S for since in self._since.values()), None)

    # ---- internals

    def _find(self) -> bool:
        """Whether there was somebody to tell."""
        for ref, since in list(islice(self._since.items(), 1)):
            if since + TELL_AFTER_S <= self._clock():
                del self._since[ref]
                gang = self._book.named(ref)
                why = self._why(gang) if gang is not None else ""
                if gang is not None and why:
                    self._due += [(uid, why) for uid in gang.members]
                return bool(self._due) or self._find()
        return False
