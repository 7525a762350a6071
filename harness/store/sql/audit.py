"""Appends to the audit log and reads it (`SqlAuditLog`): events are numbered without gaps, each
chained to the one before, and each records the digests of the rows its unit of work wrote.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.operations.access import SYSTEM, Actor
from harness.domain.operations.audit import (
    GENESIS,
    AuditEvent,
    AuditPosition,
    RowDigests,
    find_chain_break,
)
from harness.domain.operations.state_audit import ROWS_WRITTEN
from harness.store.audit import chained
from harness.store.schema.operations import audit_event, event_from_row, event_to_row
from harness.store.unit_of_work import Unit

EVENTS_PER_PAGE: Final = 500

NEWEST = sa.select(audit_event).order_by(audit_event.c.number.desc())
LAST = sa.select(audit_event.c.number, audit_event.c.mac).order_by(audit_event.c.number.desc())
NEXT_PAGE = (
    sa.select(audit_event)
    .where(audit_event.c.number > sa.bindparam("after"))
    .order_by(audit_event.c.number)
    .limit(EVENTS_PER_PAGE)
)


class SqlAuditLog:
    def __init__(self, unit: Unit, secret: bytes) -> None:
        self._unit = unit
        self._secret = secret

    def append(
        self,
        *,
        at: datetime,
        actor: Actor,
        action: str,
        subject: str,
        details: Mapping[str, object],
        written: RowDigests | None = None,
    ) -> AuditEvent:
        self._unit.serialize()
        last = self._unit.read(LAST.limit(1)).first()
        event = chained(
            AuditEvent(
                number=last.number + 1 if last is not None else 1,
                at=at,
                actor=actor.name,
                action=action,
                subject=subject,
                details=details,
                previous=last.mac if last is not None else GENESIS,
                mac="",
                principal=actor.principal,
                key=actor.key,
                rows=self._unit.written_rows() if written is None else written,
            ),
            self._secret,
        )
        self._unit.write(sa.insert(audit_event), event_to_row(event))
        return event

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        return [event_from_row(row) for row in self._unit.read(NEWEST.limit(limit))]

    def all(self) -> Iterator[AuditEvent]:
        """Page by page: the log of years need not fit into memory."""
        after = 0
        while page := self._unit.read(NEXT_PAGE, {"after": after}).all():
            yield from (event_from_row(row) for row in page)
            after = page[-1].number

    def get(self, number: int) -> AuditEvent | None:
        row = self._unit.read(NEWEST.where(audit_event.c.number == number)).first()
        return None if row is None else event_from_row(row)

    def of(self, subject: str, *, since: datetime, limit: int) -> Sequence[AuditEvent]:
        query = NEWEST.where(audit_event.c.subject == subject, audit_event.c.at >= since)
        return [event_from_row(row) for row in self._unit.read(query.limit(limit))]

    def after(self, number: int, limit: int = EVENTS_PER_PAGE) -> Sequence[AuditEvent]:
        query = NEXT_PAGE.limit(limit)
        return [event_from_row(row) for row in self._unit.read(query, {"after": number})]

    def break_after(self, mark: AuditPosition, events: Sequence[AuditEvent]) -> int | None:
        return find_chain_break(events, self._secret, mark.number, mark.mac)

    def record_rows(self, now: datetime) -> None:
        """Write an event for the rows that no other event of this unit of work has recorded."""
        written = self._unit.written_rows()
        if written:
            self.append(
                at=now,
                actor=SYSTEM,
                action=ROWS_WRITTEN,
                subject=next(iter(written)).replace(":", " ", 1),
                details={},
                written=written,
            )

    def first_break(self) -> int | None:
        return find_chain_break(self.all(), self._secret)
