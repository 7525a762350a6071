"""Stores and reads the audit log. A search for a substring scans the log; a million events take
a third of a second.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from harness.frame.pagination import PageRequest
from harness.frame.people.access import Actor
from harness.frame.plain_data import canonical_json
from harness.frame.records.columns import at_least, storable
from harness.frame.records.record import record
from harness.frame.records.repository import Order, Records, Rows, read_page
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import (
    GENESIS,
    AuditEvent,
    AuditFilter,
    AuditPosition,
    event_mac,
    find_chain_break,
)

# Triggers keep the table append-only and without gaps.
AUDIT_EVENT: Final = record(
    AuditEvent,
    "audit_event",
    sa.Column("number", sa.BigInteger, autoincrement=False),
    at_least("number", 1),
    sa.Index("ix_audit_event_subject", "subject", "number"),
    sa.Index("ix_audit_event_at", "at", "number"),
    key="number",
)

audit_event = AUDIT_EVENT.table

EVENTS_PER_PAGE: Final = 500

NEXT_PAGE = (
    sa.select(audit_event)
    .where(audit_event.c.number > sa.bindparam("after"))
    .order_by(audit_event.c.number)
    .limit(EVENTS_PER_PAGE)
)


class AuditLog(Records[AuditEvent]):
    record = AUDIT_EVENT
    order = (audit_event.c.number.desc(),)

    def append(
        self,
        actor: Actor,
        action: str,
        subject: str,
        details: Mapping[str, object],
    ) -> AuditEvent:
        self._tx.serialize()
        last = self._first(self._select().limit(1))
        event = with_mac(
            AuditEvent(
                number=last.number + 1 if last is not None else 1,
                at=self._tx.now(),
                actor=actor.name,
                action=action,
                subject=subject,
                details=details,
                previous=last.mac if last is not None else GENESIS,
                mac="",
                principal=actor.principal,
                key=actor.key,
            ),
            self._tx.secret,
        )
        self.add(event)
        return event

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        """Returns the newest events, at most `limit`."""
        return self._all(self._select().limit(limit))

    def all(self) -> Iterator[AuditEvent]:  # type: ignore[override]  # many
        """Yields all events. Reads page by page, because a long log may not fit into memory."""
        last_number = 0
        while page := self._tx.read(NEXT_PAGE, {"after": last_number}).all():
            yield from self._verified(page)
            last_number = page[-1].number

    def find(self, number: int) -> AuditEvent | None:
        return self._first(self._select(audit_event.c.number == number))

    def for_subject(
        self,
        subject: str,
        *,
        since: datetime,
        limit: int,
        actions: Collection[str] = (),
    ) -> Sequence[AuditEvent]:
        is_selected = audit_event.c.action.in_(sorted(actions)) if actions else None
        conditions = (audit_event.c.subject == subject, audit_event.c.at >= since)
        return self._all(self._select(*conditions, is_selected).limit(limit))

    def after(self, number: int, limit: int = EVENTS_PER_PAGE) -> Sequence[AuditEvent]:
        return self._all(NEXT_PAGE.limit(limit), {"after": number})

    def break_after(self, mark: AuditPosition, events: Sequence[AuditEvent]) -> int | None:
        """Finds the first of `events` at which the chain breaks.

        Args:
            mark: the event before them.
        """
        return find_chain_break(events, self._tx.secret, mark.number, mark.mac)

    def first_break(self) -> int | None:
        """Returns the number of the first event that breaks the chain; None if no
        event does.
        """
        return find_chain_break(self.all(), self._tx.secret)


def with_mac(event: AuditEvent, secret: bytes) -> AuditEvent:
    """Returns the event in its stored form, with the mac of that form."""
    stored = replace(
        event,
        at=event.at.astimezone(UTC),
        actor=storable(event.actor),
        action=storable(event.action),
        subject=storable(event.subject),
        details=json.loads(canonical_json(event.details)),
    )
    return replace(stored, mac=event_mac(stored, secret))


EVENTS: Final = Order((audit_event.c.number,), frozenset({audit_event.c.number}))


def read_events(
    tx: Transaction,
    selection: AuditFilter,
    page_request: PageRequest,
) -> Rows:
    query = sa.select(audit_event).where(*_build_conditions(selection))
    return read_page(tx, query, EVENTS, page_request)


def _build_conditions(selection: AuditFilter) -> list[sa.ColumnElement[bool]]:
    event = audit_event.c
    conditions: list[sa.ColumnElement[bool]] = []
    if selection.actor:
        name = event.actor.icontains(selection.actor, autoescape=True)
        conditions.append(sa.or_(name, event.key == selection.actor))
    for column, text in (
        (event.action, selection.action),
        (event.subject, selection.subject),
    ):
        if text:
            conditions.append(column.icontains(text, autoescape=True))
    if selection.since is not None:
        conditions.append(event.at >= selection.since)
    if selection.until is not None:
        conditions.append(event.at < selection.until)
    return conditions
