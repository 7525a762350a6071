"""A map of the latest entries: at least `least`, at most a sixteenth more."""

from collections.abc import ValuesView
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    def __init__(self, least: int) -> None:
        # It removes several entries at once, because deleted entries slow a dict's iteration.
        self._surplus = least // 16 + 1
        self._most = least + self._surplus
        self._entries: dict[K, V] = {}

    def put(self, key: K, value: V) -> None:
        entries = self._entries
        if len(entries) >= self._most:
            for oldest in list(islice(entries, self._surplus)):
                del entries[oldest]
        entries.pop(key, None)
        entries[key] = value

    def get(self, key: K) -> V | None:
        return self._entries.get(key)

    def values(self) -> ValuesView[V]:
        return self._entries.values()

    def __len__(self) -> int:
        return len(self._entries)
