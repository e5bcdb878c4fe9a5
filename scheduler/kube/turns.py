"""A queue of two lines that take turns: binds of single pods, and of gangs' members.

In one line, a single pod that comes a moment after a gang of thousands would wait for all of its binds.
Members stay in line, gang after gang, so that no gang is partly bound for longer than it needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

J = TypeVar("J")


class Turns(Generic[J]):
    """As much of a deque as a lane of work needs. `is_second`: in which of the lines a job belongs."""

    def __init__(self, is_second: Callable[[J], bool]) -> None:
        self._is_second = is_second
        self._lines: tuple[deque[J], deque[J]] = (deque(), deque())
        self._turn = False
        """Whether it is the second line's."""

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __iter__(self) -> Iterator[J]:
        for line in self._lines:
            yield from line

    def append(self, job: J) -> None:
        self._lines[self._is_second(job)].append(job)

    def appendleft(self, job: J) -> None:
        self._lines[self._is_second(job)].appendleft(job)

    def extend(self, jobs: Iterable[J]) -> None:
        for job in jobs:
            self.append(job)

    def popleft(self) -> J:
        """Raises IndexError when both are empty."""
        line = self._lines[self._turn] or self._lines[not self._turn]
        self._turn = not self._turn
        return line.popleft()

    def clear(self) -> None:
        for line in self._lines:
            line.clear()
