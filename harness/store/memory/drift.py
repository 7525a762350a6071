"""Drift watches and their checks in memory."""

from collections.abc import Sequence
from dataclasses import replace

from harness.domain.drift.watch import DriftCheck, DriftCheckState, DriftWatch
from harness.ports import MOST_LISTED
from harness.store.memory.state import Unit, need


class MemoryDrift:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def open(self, watch: DriftWatch) -> bool:
        state = self._unit.writing
        need(state.targets, "target", watch.target)
        of = (watch.target, watch.suite)
        taken = any((each.target, each.suite) == of for each in self.watches(open_only=True))
        if taken or watch.id in state.drift_watches:
            return False
        state.drift_watches[watch.id] = watch
        return True

    def save(self, watch: DriftWatch) -> bool:
        stored = self._unit.state.drift_watches.get(watch.id)
        if stored is None or stored.closed_at is not None:
            return False
        changed = replace(stored, state=watch.state, closed_at=watch.closed_at)
        self._unit.writing.drift_watches[watch.id] = changed
        return True

    def watches(
        self, *, open_only: bool = False, limit: int = MOST_LISTED
    ) -> Sequence[DriftWatch]:
        known = self._unit.state.drift_watches.values()
        found = [each for each in known if not open_only or each.closed_at is None]
        by_id = sorted(found, key=lambda each: each.id)
        return sorted(by_id, key=lambda each: each.opened_at, reverse=True)[:limit]

    def start(self, check: DriftCheck) -> bool:
        state = self._unit.writing
        need(state.drift_watches, "watch", check.watch)
        need(state.runs, "run", check.run)
        others = self.checks(check.watch)
        running = any(each.state is DriftCheckState.RUNNING for each in others)
        if running or any(each.number == check.number for each in others):
            return False
        state.drift_checks[check.watch, check.number] = check
        return True

    def end(self, check: DriftCheck) -> bool:
        key = (check.watch, check.number)
        stored = self._unit.state.drift_checks.get(key)
        if stored is None or stored.state is not DriftCheckState.RUNNING:
            return False
        self._unit.writing.drift_checks[key] = replace(
            check, run=stored.run, started_at=stored.started_at
        )
        return True

    def checks(self, watch: str) -> Sequence[DriftCheck]:
        known = self._unit.state.drift_checks.values()
        return sorted(
            (each for each in known if each.watch == watch), key=lambda each: each.number
        )
