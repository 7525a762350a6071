"""Converts alerts, deliveries of their messages, and failovers to column values and back."""

from datetime import datetime

from harness.domain.operations.alerts import AlertKind, AlertRecord, Notified
from harness.domain.operations.delivery import Delivery
from harness.domain.reliability.failover import Failover
from harness.store.rows import Row, Values


def alert_to_row(record: AlertRecord) -> Values:
    values: Values = {name: getattr(record, name) for name in record.__dataclass_fields__}
    sources = {who: at.isoformat() for who, at in record.sources.items()}
    told = record.told and record.told.value
    return values | {"kind": record.kind.value, "sources": sources, "told": told}


def alert_from_row(row: Row) -> AlertRecord:
    sources = {who: at for who, text in row.sources.items() if (at := _time_of_source(text))}
    told = Notified(row.told) if row.told else None
    values = row._asdict() | {"kind": AlertKind(row.kind), "sources": sources, "told": told}
    return AlertRecord(**values)


def _time_of_source(text: object) -> datetime | None:
    """None for what is no time: nobody signs alerts, and one must not hide the others."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def delivery_to_row(delivery: Delivery) -> Values:
    values: Values = {name: getattr(delivery, name) for name in delivery.__dataclass_fields__}
    return values | {"message": delivery.message.value}


def delivery_from_row(row: Row) -> Delivery:
    return Delivery(**(row._asdict() | {"message": Notified(row.message)}))


def failover_to_row(failover: Failover) -> Values:
    return {name: getattr(failover, name) for name in failover.__dataclass_fields__}


def failover_from_row(row: Row) -> Failover:
    return Failover(**row._asdict())
