"""Reads a worker's state for each scrape of `/metrics`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from harness.routing.reliability.breaker import BreakerState
from router.health.target_health import TargetHealth
from router.observers.health_checks import HealthChecks
from router.recording.event_log import EventLog
from router.recording.metrics import MetricReading, counter_names
from router.recording.port import Recording
from router.snapshot.holder import SnapshotHolder
from router.upstream.learned_repairs import LearnedFields

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
        serving, holder = self._holder.current, self._holder
        targets = sorted(serving.snapshot.table.targets) if serving else []
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
            breakers=self._worst((id_, GAUGE[self._health.state(id_)]) for id_ in targets),
            checks=self._worst(self._checks.results().items(), min),
            pauses=self._worst(
                (id_, left_s) for id_ in targets if (left_s := self._health.pause_s(id_)) > 0
            ),
            repairs=self._learned(),
        )

    def _worst(
        self, values: Iterable[tuple[str, Any]], worse: Callable[..., Any] = max
    ) -> dict[str, Any]:
        serving = self._holder.current
        found: dict[str, Any] = {}
        if serving is None:
            return found
        for id_, value in values:
            name = serving.snapshot.table.targets[id_].name
            found[name] = worse(value, found.get(name, value))
        return found
