"""Appends to the audit log and reads it (`SqlAuditLog`): events are numbered without gaps, each
chained to the one before.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from harness.domain.content_hash import canonical_json
from harness.domain.operations.access import Actor
from harness.domain.operations.audit import (
    GENESIS,
    AuditEvent,
    AuditPosition,
    event_mac,
    find_chain_break,
)
from harness.store.schema.columns import storable
from harness.store.schema.operations import (
    audit_event,
    event_from_row,
    event_to_row,
)
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
            ),
            self._secret,
        )
        self._unit.write(sa.insert(audit_event), event_to_row(event))
        return event

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        return [event_from_row(row) for row in self._unit.read(NEWEST.limit(limit))]

    def all(self) -> Iterator[AuditEvent]:
        """Yields all events, read page by page: the log of years need not fit into memory."""
        after = 0
        while page := self._unit.read(NEXT_PAGE, {"after": after}).all():
            yield from (event_from_row(row) for row in page)
            after = page[-1].number

    def get(self, number: int) -> AuditEvent | None:
        row = self._unit.read(NEWEST.where(audit_event.c.number == number)).first()
        return None if row is None else event_from_row(row)

    def for_subject(
        self, subject: str, *, since: datetime, limit: int, actions: Collection[str] = ()
    ) -> Sequence[AuditEvent]:
        query = NEWEST.where(audit_event.c.subject == subject, audit_event.c.at >= since)
        if actions:
            query = query.where(audit_event.c.action.in_(sorted(actions)))
        return [event_from_row(row) for row in self._unit.read(query.limit(limit))]

    def after(self, number: int, limit: int = EVENTS_PER_PAGE) -> Sequence[AuditEvent]:
        query = NEXT_PAGE.limit(limit)
        return [event_from_row(row) for row in self._unit.read(query, {"after": number})]

    def break_after(self, mark: AuditPosition, events: Sequence[AuditEvent]) -> int | None:
        return find_chain_break(events, self._secret, mark.number, mark.mac)

    def first_break(self) -> int | None:
        return find_chain_break(self.all(), self._secret)


def chained(event: AuditEvent, secret: bytes) -> AuditEvent:
    """The event as it will be read back, with its mac: what is signed is what is stored."""
    stored = replace(
        event,
        at=event.at.astimezone(UTC),
        actor=storable(event.actor),
        action=storable(event.action),
        subject=storable(event.subject),
        details=json.loads(canonical_json(event.details)),
    )
    return replace(stored, mac=event_mac(stored, secret))
