"""The audit log: numbered without gaps, each event chained to the one before."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.audit import GENESIS, AuditEvent, first_break
from harness.store.audit import chained
from harness.store.rows import operations as rows
from harness.store.sql.unit import Unit
from harness.store.tables.operations import audit_event

PAGE: Final = 500

NEWEST = sa.select(audit_event).order_by(audit_event.c.number.desc())
LAST = sa.select(audit_event.c.number, audit_event.c.mac).order_by(audit_event.c.number.desc())
NEXT_PAGE = (
    sa.select(audit_event)
    .where(audit_event.c.number > sa.bindparam("after"))
    .order_by(audit_event.c.number)
    .limit(PAGE)
)


class SqlAuditLog:
    def __init__(self, unit: Unit, secret: bytes) -> None:
        self._unit = unit
        self._secret = secret

    def append(
        self,
        *,
        at: datetime,
        actor: str,
        action: str,
        subject: str,
        details: Mapping[str, object],
    ) -> AuditEvent:
        self._unit.serialize()
        last = self._unit.read(LAST.limit(1)).first()
        event = chained(
            AuditEvent(
                number=last.number + 1 if last is not None else 1,
                at=at,
                actor=actor,
                action=action,
                subject=subject,
                details=details,
                previous=last.mac if last is not None else GENESIS,
                mac="",
            ),
            self._secret,
        )
        self._unit.write(sa.insert(audit_event), rows.of_event(event))
        return event

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        return [rows.event(row) for row in self._unit.read(NEWEST.limit(limit))]

    def all(self) -> Iterator[AuditEvent]:
        """Page by page: the log of years need not fit into memory."""
        after = 0
        while page := self._unit.read(NEXT_PAGE, {"after": after}).all():
            yield from (rows.event(row) for row in page)
            after = page[-1].number

    def first_break(self) -> int | None:
        return first_break(self.all(), self._secret)
