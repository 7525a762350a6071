"""Alerts, their outbox and the failover log in memory."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from harness.domain.operations.alerts import (
    ALERT_RULES,
    Alert,
    AlertKind,
    AlertRecord,
    Notified,
    apply_alerts,
)
from harness.domain.operations.delivery import Delivery
from harness.domain.reliability.failover import Failover
from harness.store.memory.state import Unit
from harness.store.rules import check_failover, no_such_alert


class MemoryAlerts:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def tell(self, alerts: Iterable[Alert]) -> None:
        told = list(alerts)
        keys = {each.key for each in told}
        known = {key: found for key in keys if (found := self.newest(key)) is not None}
        self._unit.writing.alerts.update(apply_alerts(known, told))

    def get(self, id_: str) -> AlertRecord:
        stored = self._unit.state.alerts
        if id_ not in stored:
            raise no_such_alert(id_)
        return stored[id_]

    def newest(self, key: str) -> AlertRecord | None:
        of_key = [each for each in self._unit.state.alerts.values() if each.key == key]
        return min(
            of_key, key=lambda each: (-each.first_seen.timestamp(), each.id), default=None
        )

    def save(self, record: AlertRecord) -> None:
        stored = self._unit.writing.alerts
        if record.id not in stored:
            raise no_such_alert(record.id)
        stored[record.id] = record

    def list(
        self, *, open_only: bool = False, kind: AlertKind | None = None, limit: int = 100
    ) -> Sequence[AlertRecord]:
        found = (each for each in self._latest() if each.open or not open_only)
        return [each for each in found if kind in (None, each.kind)][:limit]

    def unsettled(self) -> Sequence[AlertRecord]:
        return [each for each in self._latest() if each.open or _has_news(each)]

    def forget(self, before: datetime) -> int:
        state = self._unit.writing
        old = {
            each.id
            for each in state.alerts.values()
            if each.resolved_at is not None and each.resolved_at < before
        }
        for id_ in old:
            del state.alerts[id_]
        for key in [key for key in state.deliveries if key[0] in old]:
            del state.deliveries[key]
        return len(old)

    def _latest(self) -> Sequence[AlertRecord]:
        stored = self._unit.state.alerts.values()
        return sorted(stored, key=lambda each: (-each.last_seen.timestamp(), each.id))


def _has_news(record: AlertRecord) -> bool:
    if ALERT_RULES[record.kind].lasting:
        return record.told is Notified.RAISED
    return record.told is None


class MemoryDeliveries:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def add(self, delivery: Delivery) -> None:
        self._unit.writing.deliveries[_key(delivery)] = delivery

    def due(self, now: datetime, *, limit: int = 100) -> Sequence[Delivery]:
        stored = self._unit.state.deliveries.values()
        waiting = {_key(each) for each in stored if each.next_attempt_at}
        found = [
            each
            for each in stored
            if each.next_attempt_at
            and each.next_attempt_at <= now
            and not any(
                (alert, sink) == (each.alert, each.sink) and number < each.number
                for alert, number, sink in waiting
            )
        ]
        return sorted(found, key=lambda each: (each.created_at, *_key(each)))[:limit]

    def save(self, delivery: Delivery) -> None:
        self.add(delivery)

    def of(self, alert: str) -> Sequence[Delivery]:
        stored = self._unit.state.deliveries
        return [stored[key] for key in sorted(stored) if key[0] == alert]


def _key(delivery: Delivery) -> tuple[str, int, str]:
    return (delivery.alert, delivery.number, delivery.sink)


class MemoryFailovers:
    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def append(self, rows: Iterable[Failover]) -> None:
        for each in rows:
            check_failover(each)
            self._unit.writing.failovers.setdefault((each.worker, each.number), each)

    def forget(self, before: datetime) -> int:
        stored = self._unit.writing.failovers
        old = [key for key, each in stored.items() if each.at < before]
        for key in old:
            del stored[key]
        return len(old)
