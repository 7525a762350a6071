"""Appends to the audit log and reads it (`SqlAuditLog`): events are numbered without gaps, each
chained to the one before, and each records the digests of the rows its unit of work wrote.
`SqlAuditedRows` reads the digests of those rows as they are stored now, so that they can be
compared with the log: page by page, by name, those that serve, or those that decide; its
`take_over` records them all once, for a database from before the log had digests.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import sqlalchemy as sa

from harness.domain.content_hash import canonical_json
from harness.domain.operations.access import SYSTEM, Actor
from harness.domain.operations.audit import (
    GENESIS,
    AuditEvent,
    AuditPosition,
    RowDigests,
    event_mac,
    find_chain_break,
)
from harness.domain.operations.projects import DEFAULT_PROJECT
from harness.domain.operations.state_audit import ROWS_BASELINE, ROWS_WRITTEN
from harness.store.schema import agents, interventions, providers, routing
from harness.store.schema import proposals as decisions
from harness.store.schema import shadow as shadows
from harness.store.schema.columns import PROJECT, storable
from harness.store.schema.operations import (
    api_key,
    audit_event,
    event_from_row,
    event_to_row,
)
from harness.store.signing.row_digests import AUDITED, columns, is_any_row, key_of
from harness.store.sql.owners import find_project
from harness.store.sql.proposals import BAKING, IS_LIVE, IS_OPEN
from harness.store.sql.routing import CURRENT, CURRENT_FALLBACKS
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
ROWS_PER_PAGE: Final = 200
EVER_RECORDED: Final = sa.select(audit_event.c.number).where(audit_event.c.rows.is_not(None))
_SMALL: Final = (
    providers.provider,
    api_key,
    providers.credential,
    interventions.switch,
    interventions.freeze,
    interventions.break_glass,
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
        project = actor.project
        if project == DEFAULT_PROJECT:
            project = find_project(self._unit, event.subject)
        values = {**event_to_row(event), PROJECT: project}
        self._unit.write(sa.insert(audit_event), values)
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


class SqlAuditedRows:
    def __init__(self, unit: Unit, audit: SqlAuditLog) -> None:
        self._unit = unit
        self._audit = audit

    def page(self, after: str = "", limit: int = ROWS_PER_PAGE) -> Sequence[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        names = list(AUDITED)
        name, _, parts = after.partition(":")
        for place in range(names.index(name) if name else 0, len(names)):
            table = AUDITED[names[place]]
            query = sa.select(table).order_by(*columns(table)).limit(limit - len(found))
            if names[place] == name:
                query = query.where(_behind(table, parts))
            found += self._rows(table, query)
            if len(found) >= limit:
                break
        return found

    def digests(self, rows: Collection[str]) -> Mapping[str, str | None]:
        by_table: dict[str, list[str]] = {}
        for row in rows:
            by_table.setdefault(row.partition(":")[0], []).append(row)
        found: dict[str, str | None] = dict.fromkeys(rows)
        for name, keys in by_table.items():
            table = AUDITED[name]
            there = self._rows(table, sa.select(table).where(is_any_row(keys)))
            found |= {key: digest for key, digest in there if key in found}
        return found

    def deciding(self) -> Mapping[str, str]:
        proposals = sa.select(decisions.proposal).where(IS_OPEN)
        live = sa.select(decisions.rollout).where(IS_LIVE)
        rollouts = [*self._unit.read(live), *self._unit.read(BAKING)]
        proofs = sorted({row.verdict for row in rollouts})
        open_ = sorted(row.id for row in self._unit.read(proposals))
        verdict, approval = decisions.verdict, decisions.approval
        return dict(
            [
                *self._rows(decisions.proposal, proposals),
                *self._rows(decisions.rollout, live),
                *self._rows(decisions.rollout, BAKING),
                *self._rows(verdict, sa.select(verdict).where(verdict.c.id.in_(proofs))),
                *self._rows(
                    approval, sa.select(approval).where(approval.c.proposal.in_(open_))
                ),
            ]
        )

    def serving(self) -> Mapping[str, str]:
        current = self._unit.read(CURRENT).all()
        chain = self._unit.read(CURRENT_FALLBACKS).all()
        reasons = {row.incumbent_evidence for row in current}
        reasons |= {row.canary_evidence for row in current if row.canary_evidence}
        reasons |= {row.evidence for row in chain}
        evidence, shadow = routing.evidence, shadows.shadow
        why = sa.select(evidence).where(evidence.c.id.in_(sorted(reasons)))
        found = [
            *self._rows(routing.route_version, CURRENT),
            *self._rows(routing.route_fallback, CURRENT_FALLBACKS),
            *self._rows(evidence, why),
            *self._rows(shadow, sa.select(shadow).where(shadow.c.ended_at.is_(None))),
        ]
        granted = sa.select(agents.agent_grant).where(agents.agent_grant.c.revoked_at.is_(None))
        found += self._rows(agents.agent_grant, granted)
        for table in _SMALL:
            found += self._rows(table, sa.select(table))
        return dict(found)

    def take_over(self, now: datetime) -> int:
        self._unit.serialize()
        if self._unit.read(EVER_RECORDED.limit(1)).first() is not None:
            return 0
        taken, after = 0, ""
        while page := self.page(after):
            # Not by `control.audit.record`: only the store knows the rows that an event vouches
            # for, and it stands below the control plane's context.
            self._audit.append(
                at=now,
                actor=SYSTEM,
                action=ROWS_BASELINE,
                subject="database",
                details={"rows": len(page)},
                written={row: (None, digest) for row, digest in page},
            )
            taken, after = taken + len(page), page[-1][0]
        return taken

    def _rows(self, table: sa.Table, query: sa.Select[Any]) -> Iterator[tuple[str, str]]:
        for row in self._unit.read(query).mappings().all():
            yield key_of(table, dict(row)), self._unit.digest(table, row)


def _behind(table: sa.Table, parts: str) -> sa.ColumnElement[bool]:
    key = columns(table)
    values = [
        sa.literal(column.type.python_type(unquote(part)), column.type)
        for column, part in zip(key, parts.split("/"), strict=True)
    ]
    return sa.tuple_(*key) > sa.tuple_(*values)
