"""Interned columns: small integers for strings, and no more strings than needed."""

import numpy as np
import pytest

from scheduler.core.labels import InternedColumn, lookup


def column_of(*values: str | None) -> InternedColumn[str | None]:
    column: InternedColumn[str | None] = InternedColumn(None, max(len(values), 1))
    for row, value in enumerate(values):
        column.set(row, value)
    return column


def values_of(column: InternedColumn[str | None], n: int) -> list[str | None]:
    return [column.values[i] for i in column.ids[:n]]


def test_equal_values_share_an_id() -> None:
    column = column_of("a", "b", "a", None)
    assert list(column.ids) == [1, 2, 1, 0]
    assert values_of(column, 4) == ["a", "b", "a", None]


def test_growing_keeps_the_rows_and_gives_new_ones_the_default() -> None:
    column = column_of("a", "b")
    column.grow(4)
    assert values_of(column, 4) == ["a", "b", None, None]


def test_values_without_rows_are_forgotten_once_they_are_many() -> None:
    column = column_of("a", "b")
    for i in range(1000):
        column.set(0, str(i))
    column.compact(2)
    assert len(column.values) == 1003, "not before it pays"
    for i in range(1000, 1100):
        column.set(0, str(i))
    column.compact(2)
    assert column.values == [None, "1099", "b"]
    assert values_of(column, 2) == ["1099", "b"]
    column.set(1, "1099")
    assert values_of(column, 2) == ["1099", "1099"]


def test_many_values_in_use_are_all_kept() -> None:
    column = column_of(*map(str, range(3000)))
    column.compact(3000)
    assert values_of(column, 3000) == [str(i) for i in range(3000)]


@pytest.mark.parametrize("rows", [[], [1], [0, 1, 2], [2, 2, 0], [3], [0, 0, 0, 3, 1, 2]])
def test_a_rule_is_asked_once_per_distinct_value(rows: list[int]) -> None:
    column = column_of("a", "b", "a", None)
    asked: list[str | None] = []

    def is_a(value: str | None) -> bool:
        asked.append(value)
        return value == "a"

    answer = lookup(column, column.ids[np.array(rows, np.intp)], is_a)
    assert answer.dtype == np.bool_
    assert list(answer) == [("a", "b", "a", None)[row] == "a" for row in rows]
    assert len(asked) == len(set(asked))
