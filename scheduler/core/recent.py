"""A map of bounded size: what was used last stays."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from scheduler.core.profile import Key

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps the `limit` entries used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[Key, T] = OrderedDict()

    def get(self, key: Key) -> T | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, entry: T) -> T:
        self._entries[key] = entry
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return entry
