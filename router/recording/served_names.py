"""Notes which models answered (F6), and what requests asked for by name."""

import threading
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Final

from harness.domain.canary.observation import AskedName
from harness.domain.evals.pins import MAX_SIGHTINGS, ServedModel, Sighting
from harness.ports import Clock

# A name that a target served a while ago is noted again: the newest is what counts.
NOTE_EVERY_S: Final = 30.0
LONGEST_NAME: Final = 200  # characters


class ServedNames:
    """Notes the model names in targets' answers: of each target at most as many as the store
    keeps; further names within NOTE_EVERY_S are not noted. Thread-safe.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # When each was noted, in monotonic seconds, by target and name.
        self._noted: dict[str, dict[str, float]] = {}
        self._new: dict[tuple[str, ServedModel], Sighting] = {}

    def note(self, target: str, model: str) -> None:
        """Notes the model that an answer names. target: an id."""
        now = self._clock.monotonic()
        names = self._noted.get(target)
        at = names.get(model[:LONGEST_NAME]) if names is not None else None
        if not model or (at is not None and now - at < NOTE_EVERY_S):
            return
        model = model[:LONGEST_NAME]
        moment = self._clock.now()
        with self._lock:
            if self._takes(target, model, now):
                self._put(Sighting(target, ServedModel(model), moment, moment))

    def merge(self, rows: Iterable[Sighting]) -> None:
        with self._lock:
            for row in rows:
                self._put(row)

    def take(self) -> list[Sighting]:
        with self._lock:
            taken, self._new = list(self._new.values()), {}
        return taken

    def _takes(self, target: str, model: str, now: float) -> bool:
        names = self._noted.setdefault(target, {})
        if model not in names and len(names) >= MAX_SIGHTINGS:
            names = {name: at for name, at in names.items() if now - at < NOTE_EVERY_S}
            self._noted[target] = names
            if len(names) >= MAX_SIGHTINGS:
                return False
        names[model] = now
        return True

    def _put(self, sighting: Sighting) -> None:
        key = sighting.target, sighting.served
        known = self._new.get(key)
        if known is None or known.last_at <= sighting.last_at:
            self._new[key] = sighting


class AskedNames:
    """Counts requests by what they asked for (`AskedName`), by route, name and UTC day. The
    caller bounds the names. Thread-safe.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, date, str]] = Counter()

    def note(self, name: str, route: str = "") -> None:
        day = self._clock.now().date()
        with self._lock:
            self._counts[name, day, route] += 1

    def merge(self, rows: Iterable[AskedName]) -> None:
        with self._lock:
            for row in rows:
                self._counts[row.name, row.day, row.route] += row.requests

    def take(self) -> list[AskedName]:
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return [AskedName(name, day, n, route) for (name, day, route), n in taken.items()]
