"""State metrics read a worker's state for each scrape of `/metrics`: revision and age of its
snapshot, circuit breakers, health checks, pauses and repairs of targets, counters.
"""

from collections.abc import Mapping
from typing import Final

from harness.domain.reliability.breaker import BreakerState
from router.conversation.learned_repairs import LearnedFields
from router.health.checks import HealthChecks
from router.health.target_health import TargetHealth
from router.recording.metrics import MetricReading, TargetCheck, counter_names
from router.recording.port import Recording
from router.server.event_log import EventLog
from router.snapshot.compiled import CompiledSnapshot
from router.snapshot.holder import SnapshotHolder

GAUGE: Final[Mapping[BreakerState, int]] = {
    BreakerState.CLOSED: 0,
    BreakerState.HALF_OPEN: 1,
    BreakerState.OPEN: 2,
}


class StateMetrics:
    def __init__(
        self,
        holder: SnapshotHolder,
        recorder: Recording,
        events: EventLog,
        health: TargetHealth,
        checks: HealthChecks,
        learned: LearnedFields,
    ) -> None:
        self._holder = holder
        self._recorder = recorder
        self._events = events
        self._health = health
        self._checks = checks
        self._learned = learned

    def reading(self, gauges: Mapping[str, float]) -> MetricReading:
        """Reads what a scrape shows of snapshot, breakers, checks and pauses. gauges: the front
        door's own.
        """
        serving, holder = self._holder.current, self._holder
        return MetricReading(
            gauges={
                "routing_revision": serving.revision if serving else 0,
                "snapshot_age_seconds": holder.age_s,
                "router_stale": int(holder.stale),
                "router_revision_refused": int(bool(holder.refused)),
                **gauges,
            },
            counters={
                **counter_names(self._recorder.counters),
                "router_log_events_dropped": self._events.dropped,
            },
            breakers=self._breakers(serving) if serving else {},
            checks=self._checked(serving) if serving else {},
            pauses=self._pauses(serving) if serving else {},
            repairs=self._learned(),
        )

    def _checked(self, serving: CompiledSnapshot) -> dict[str, TargetCheck]:
        """By target name; of targets that share one, the worst."""
        targets = serving.snapshot.table.targets
        found: dict[str, TargetCheck] = {}
        for id_, result in self._checks.results().items():
            name = targets[id_].name
            found[name] = min(result, found.get(name, result))
        return found

    def _pauses(self, serving: CompiledSnapshot) -> dict[str, float]:
        """As `_checked`."""
        left: dict[str, float] = {}
        for target_id, target in serving.snapshot.table.targets.items():
            left_s = self._health.pause_s(target_id)
            if left_s > 0:
                left[target.name] = max(left_s, left.get(target.name, 0.0))
        return left

    def _breakers(self, serving: CompiledSnapshot) -> dict[str, int]:
        """As `_checked`."""
        states: dict[str, int] = {}
        for target_id, target in sorted(serving.snapshot.table.targets.items()):
            state = GAUGE[self._health.state(target_id)]
            states[target.name] = max(state, states.get(target.name, 0))
        return states
