"""Stores alerts, and the deliveries of their messages."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.alerts.alert import ALERT_RULES, Alert, AlertKind
from harness.frame.alerts.alert_record import (
    AlertRecord,
    Delivery,
    Notified,
    apply_alerts,
)
from harness.frame.records.columns import Row, at_least, one_of, unique_where
from harness.frame.records.record import record, record_of
from harness.frame.records.repository import (
    Records,
    given,
    newest_key,
    rows_key,
)


def alert_from_row(row: Row) -> AlertRecord:
    sources = {
        source: at for source, text in row.sources.items() if (at := _parse_source_time(text))
    }
    return record_of(AlertRecord, row, alert, sources=sources)


def _parse_source_time(text: object) -> datetime | None:
    """Returns None for a malformed time. Alerts are not signed, and a malformed row must not
    hide other rows.
    """
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


ALERT: Final = record(
    AlertRecord,
    "alert",
    one_of("notified", Notified),
    at_least("count", 1),
    sa.CheckConstraint("last_seen >= first_seen", name="seen_in_order"),
    sa.CheckConstraint(
        "(notified IS NULL) = (notified_at IS NULL)"
        " AND (notified IS NULL) = (messages = 0) AND messages >= 0",
        name="notified_when",
    ),
    sa.Index("ix_alert_key", "key", "first_seen"),
    sa.Index("ix_alert_last_seen", "last_seen"),
    sa.Index("ix_alert_resolved_at", "resolved_at"),
    sa.Index("ix_alert_notified", "notified", "kind"),
    # A key has at most one open alert.
    unique_where("uq_alert_open", sa.text("resolved_at IS NULL"), "key"),
    read=alert_from_row,
)

alert = ALERT.table

DELIVERY: Final = record(
    Delivery,
    "delivery",
    sa.Column(
        "alert",
        sa.Text,
        sa.ForeignKey("alert.id", ondelete="CASCADE"),
        nullable=False,
    ),
    one_of("message", Notified),
    at_least("number", 1),
    at_least("attempts", 0),
    # Exactly one state: waiting, delivered or given up.
    sa.CheckConstraint(
        "(next_attempt_at IS NOT NULL AND delivered_at IS NULL AND gave_up_at IS NULL)"
        " OR (next_attempt_at IS NULL AND delivered_at IS NOT NULL AND gave_up_at IS NULL)"
        " OR (next_attempt_at IS NULL AND delivered_at IS NULL AND gave_up_at IS NOT NULL)",
        name="one_state",
    ),
    sa.CheckConstraint("delivered_at IS NULL OR attempts > 0", name="delivered_by_attempt"),
    sa.Index("ix_delivery_next_attempt_at", "next_attempt_at"),
    key="alert number sink",
)

delivery = DELIVERY.table

_EVENTS = [kind.value for kind, rule in ALERT_RULES.items() if not rule.lasting]

# The query lists these names, because an index cannot serve NOT IN.
_LASTING = [kind.value for kind, rule in ALERT_RULES.items() if rule.lasting]

IS_UNSETTLED = sa.or_(
    alert.c.resolved_at.is_(None),
    sa.and_(alert.c.notified == Notified.RAISED.value, alert.c.kind.in_(_LASTING)),
    sa.and_(alert.c.kind.in_(_EVENTS), alert.c.notified.is_(None)),
)

_earlier = delivery.alias("earlier")

# A sink gets the message about an alert's end after the message about its start.
FOLLOWS_ANOTHER = sa.exists().where(
    _earlier.c.alert == delivery.c.alert,
    _earlier.c.sink == delivery.c.sink,
    _earlier.c.number < delivery.c.number,
    _earlier.c.next_attempt_at.is_not(None),
)


class Alerts(Records[AlertRecord]):
    record = ALERT
    order = (alert.c.last_seen.desc(), alert.c.id)
    missing = "there is no alert {}; `swapproof alert list` shows them"

    def fold(self, alerts: Iterable[Alert]) -> None:
        """Combines alerts with the records of their keys (`apply_alerts`), and stores them."""
        alerts = list(alerts)
        # All writers lock the keys in this order, so no two writers wait for each other.
        keys = sorted({alert.key for alert in alerts})
        known_records = {key: found for key in keys if (found := self.newest(key)) is not None}
        stored_ids = {record.id for record in known_records.values()}
        for changed in apply_alerts(known_records, alerts).values():
            if changed.id in stored_ids:
                self.save(changed)
            else:
                self.add(changed)

    def newest(self, key: str) -> AlertRecord | None:
        """Finds the newest alert with this key. A `write()` locks the key until its end."""
        self._tx.serialize_by(f"alert {key}")
        query = sa.select(alert).where(alert.c.key == key).limit(1)
        query = query.order_by(alert.c.first_seen.desc(), alert.c.id)
        row = self._tx.once(newest_key(alert, key), lambda: self._tx.read(query).first())
        return None if row is None else self.record.read(row)

    def save(self, record: AlertRecord) -> None:
        if self._change(self._is(record.id), **self.record.write(record)) != 1:
            raise self._missing(record.id)

    def list(
        self,
        *,
        open_only: bool = False,
        kind: AlertKind | None = None,
        limit: int = 100,
    ) -> Sequence[AlertRecord]:
        open_ = alert.c.resolved_at.is_(None) if open_only else None
        return self._all(self._select(open_, given(alert.c.kind, kind)).limit(limit))

    def unsettled(self) -> Sequence[AlertRecord]:
        """Lists the alerts that are open or may still need a message."""
        return self._all(self._select(IS_UNSETTLED))

    def forget(self, before: datetime) -> int:
        return self._delete(alert.c.resolved_at < before)


class Deliveries(Records[Delivery]):
    record = DELIVERY

    def add(self, new: Delivery) -> None:
        """Adds a message, unless another process has already added it."""
        self._tx.write_new(delivery, self.record.write(new))

    def due(self, now: datetime, *, limit: int = 100) -> Sequence[Delivery]:
        row = delivery.c
        query = self._select(row.next_attempt_at <= now, ~FOLLOWS_ANOTHER)
        query = query.order_by(row.created_at, row.alert, row.number, row.sink)
        return self._all(query.limit(limit))

    def replace(self, before: Delivery, after: Delivery) -> bool:
        """Stores `after`. Returns False if another process has changed the row meanwhile."""
        is_unchanged = (
            delivery.c.alert == before.alert,
            delivery.c.number == before.number,
            delivery.c.sink == before.sink,
            delivery.c.attempts == before.attempts,
            delivery.c.next_attempt_at.is_not_distinct_from(before.next_attempt_at),
        )
        return self._change(*is_unchanged, **self.record.write(after)) > 0

    def waiting_resolutions(self, key: str) -> Sequence[Delivery]:
        """Lists the "resolved" messages of the key's alerts that sinks have not
        accepted yet.
        """
        row = delivery.c
        of_key = row.alert.in_(sa.select(alert.c.id).where(alert.c.key == key))
        is_end = row.message == Notified.RESOLVED.value
        query = self._select(of_key, is_end, row.next_attempt_at.is_not(None))
        return self._all(query.order_by(row.alert, row.number, row.sink))

    def for_alert(self, alert: str) -> Sequence[Delivery]:
        query = self._select(delivery.c.alert == alert)
        query = query.order_by(delivery.c.number, delivery.c.sink)
        rows = self._tx.once(rows_key(delivery, alert), lambda: self._tx.read(query).all())
        return [self.record.read(row) for row in rows]
