"""Two lines that take turns."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from scheduler.kube.turns import Turns


def queue(jobs: Iterable[int]) -> Turns[int]:
    """Those below 100 in the first line."""
    turns: Turns[int] = Turns(lambda job: job >= 100)
    turns.extend(jobs)
    return turns


def taken(turns: Turns[int]) -> list[int]:
    return [turns.popleft() for _ in range(len(turns))]


def test_the_lines_take_turns_and_each_keeps_its_order() -> None:
    assert taken(queue([100, 101, 102, 103, 1, 2])) == [1, 100, 2, 101, 102, 103]


def test_one_line_alone_is_a_queue() -> None:
    assert taken(queue([1, 2, 3])) == [1, 2, 3]
    assert taken(queue([101, 102])) == [101, 102]


def test_what_comes_later_does_not_wait_for_all_of_the_other_line() -> None:
    turns = queue(range(100, 200))
    assert [turns.popleft() for _ in range(5)] == [100, 101, 102, 103, 104]
    turns.append(1)
    assert 1 in [turns.popleft(), turns.popleft()]


def test_a_job_may_be_put_back_first() -> None:
    turns = queue([100, 1])
    turns.appendleft(101)
    turns.appendleft(2)
    assert list(turns) == [2, 1, 101, 100]
    assert len(turns) == 4
    turns.clear()
    assert not turns
    with pytest.raises(IndexError):
        turns.popleft()
