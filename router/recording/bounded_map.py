"""A bounded map keeps the latest entries: at least `least` of them, at most twice as many.
Adding costs no search for the oldest.
"""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    """Keeps at least the latest `least` entries, at most twice as many."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def put(self, key: K, value: V) -> None:
        if len(self._new) >= self._least:
            self._old, self._new = self._new, {}
        self._new[key] = value

    def get(self, key: K) -> V | None:
        found = self._new.get(key)
        return self._old.get(key) if found is None else found
