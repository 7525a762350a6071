"""Appends to the audit log and reads it (`AuditLog`): events are numbered without gaps, each
chained to the one before.

Reads a page of selected audit events (`read_events`). The log has few actors and actions and
many events. So a search for a part of a name first finds the matching names in an index, then
reads the events of each from the index's newest end. A search for a part of the subject reads
the log itself.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from harness.domain.content_hash import canonical_json
from harness.domain.operations.access import Actor
from harness.domain.operations.audit import (
    GENESIS,
    AuditEvent,
    AuditFilter,
    AuditPosition,
    event_mac,
    find_chain_break,
)
from harness.domain.pagination import PageRequest
from harness.ports import Clock
from harness.store.schema.columns import storable
from harness.store.schema.operations import (
    AUDIT_EVENT,
    audit_event,
)
from harness.store.sql.pages import Order, Rows, read_page
from harness.store.sql.records import Records
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


class AuditLog(Records[AuditEvent]):
    record = AUDIT_EVENT

    def __init__(self, unit: Unit, secret: bytes, clock: Clock) -> None:
        super().__init__(unit)
        self._secret, self._clock = secret, clock

    def append(
        self, actor: Actor, action: str, subject: str, details: Mapping[str, object]
    ) -> AuditEvent:
        """Appends an event: who did what to which subject."""
        self._unit.serialize()
        last = self._unit.read(LAST.limit(1)).first()
        event = chained(
            AuditEvent(
                number=last.number + 1 if last is not None else 1,
                at=self._clock.now(),
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
        self.add(event)
        return event

    def tail(self, limit: int = 50) -> Sequence[AuditEvent]:
        return self._all(NEWEST.limit(limit))

    def all(self) -> Iterator[AuditEvent]:
        """Yields all events, read page by page: the log of years need not fit into memory."""
        after = 0
        while page := self._unit.read(NEXT_PAGE, {"after": after}).all():
            yield from self._verified(page)
            after = page[-1].number

    def find(self, number: int) -> AuditEvent | None:
        return self._first(NEWEST.where(audit_event.c.number == number))

    def for_subject(
        self, subject: str, *, since: datetime, limit: int, actions: Collection[str] = ()
    ) -> Sequence[AuditEvent]:
        """Lists the events about a subject, newest first. actions: empty for all."""
        query = NEWEST.where(audit_event.c.subject == subject, audit_event.c.at >= since)
        if actions:
            query = query.where(audit_event.c.action.in_(sorted(actions)))
        return self._all(query.limit(limit))

    def after(self, number: int, limit: int = EVENTS_PER_PAGE) -> Sequence[AuditEvent]:
        return self._all(NEXT_PAGE.limit(limit), {"after": number})

    def break_after(self, mark: AuditPosition, events: Sequence[AuditEvent]) -> int | None:
        """Finds the first of the events that follow `mark` at which the chain breaks; None when
        it holds.
        """
        return find_chain_break(events, self._secret, mark.number, mark.mac)

    def first_break(self) -> int | None:
        """The number of the first event that does not fit the chain; None when it is whole."""
        return find_chain_break(self.all(), self._secret)


def chained(event: AuditEvent, secret: bytes) -> AuditEvent:
    """Returns the event as a reader will load it, with the mac of that form."""
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
# A part that more names have is looked for in the log itself: it ends soon, as most events have
# it.
MOST_NAMES: Final = 50
Condition = sa.ColumnElement[bool]


def _names_in(column: sa.Column[str]) -> sa.Select[Any]:
    """Builds the query of a column's different values, from one to the next in its index."""
    first = sa.select(sa.func.min(column).label("name")).cte("name_of", recursive=True)
    following = sa.select(sa.func.min(column)).where(column > first.c.name).scalar_subquery()
    names = first.union_all(sa.select(following).where(first.c.name.is_not(None)))
    return sa.select(names.c.name).where(names.c.name.is_not(None))


_NAMES: Final = {name: _names_in(audit_event.c[name]) for name in ("actor", "action")}
_OF_KEY: Final = (
    sa.select(audit_event.c.number).where(audit_event.c.key == sa.bindparam("of")).limit(1)
)


def read_events(unit: Unit, selection: AuditFilter, page_request: PageRequest) -> Rows:
    """Reads a page of the events that a filter selects, newest first."""
    column, text = (
        ("actor", selection.actor) if selection.actor else ("action", selection.action)
    )
    # Events since a moment have an index of their own, and are fewer than all of one actor.
    sources = None if selection.since is not None or not text else _sources(unit, column, text)
    if sources is None:
        query = sa.select(audit_event).where(*_selected(selection))
        return read_page(unit, query, EVENTS, page_request)
    if not sources:
        return Rows([], 0, None)
    rest = replace(selection, actor="") if selection.actor else replace(selection, action="")
    others = _selected(rest)
    return _read_page(unit, sources, others, page_request)


def _sources(unit: Unit, column: str, text: str) -> Sequence[Condition] | None:
    """Returns a condition for each name that has the text, which its index answers; None where
    there are too many.
    """
    part = text.casefold()
    names = [name for name in unit.read(_NAMES[column]).scalars() if part in name.casefold()]
    if len(names) > MOST_NAMES:
        return None
    sources: list[Condition] = [audit_event.c[column] == name for name in names]
    if column == "actor" and unit.read(_OF_KEY, {"of": text}).first() is not None:
        sources.append(audit_event.c.key == text)
    return sources


def _read_page(
    unit: Unit,
    sources: Sequence[Condition],
    others: Sequence[Condition],
    page_request: PageRequest,
) -> Rows:
    """Reads the newest events of each source, then keeps the newest of all."""
    number, limit = audit_event.c.number, page_request.limit
    count = sa.select(sa.func.count()).select_from(audit_event).where(sa.or_(*sources), *others)
    total = int(unit.read(count).scalar_one())
    if page_request.after is not None:
        others = [*others, EVENTS.behind(unit, page_request.after)]
    # As many of each, as all of the page may be of one.
    parts = [
        sa.select(
            sa.select(number)
            .where(source, *others)
            .order_by(number.desc())
            .limit(limit + 1)
            .subquery()
            .c.number
        )
        for source in sources
    ]
    query = (
        sa.select(audit_event)
        .where(number.in_(sa.union_all(*parts)))
        .order_by(*EVENTS.clauses)
        .limit(limit + 1)
    )
    found = unit.read(query).all()
    rows = found[:limit]
    return Rows(rows, total, EVENTS.cursor(rows[-1]) if len(found) > limit else None)


def _selected(selection: AuditFilter) -> list[Condition]:
    """Builds the conditions that a filter of audit events sets."""
    event = audit_event.c
    wanted: list[Condition] = []
    if selection.actor:
        name = event.actor.icontains(selection.actor, autoescape=True)
        wanted.append(sa.or_(name, event.key == selection.actor))
    if selection.action:
        wanted.append(event.action.icontains(selection.action, autoescape=True))
    if selection.subject:
        wanted.append(event.subject.icontains(selection.subject, autoescape=True))
    if selection.since is not None:
        wanted.append(event.at >= selection.since)
    if selection.until is not None:
        wanted.append(event.at < selection.until)
    return wanted
