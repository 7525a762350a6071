"""Reads the digests of the rows that the audit log covers, as they are stored now, so that they
can be compared with the log: page by page, by name, those that serve, or those that decide.
`take_over` records them all once, for a database from before the log had digests.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

import sqlalchemy as sa

from harness.domain.operations.access import SYSTEM
from harness.domain.operations.state_audit import ROWS_BASELINE
from harness.store.schema import proposals as decisions
from harness.store.schema import providers, routing
from harness.store.schema import shadow as shadows
from harness.store.schema.operations import api_key, audit_event
from harness.store.signing.row_digests import AUDITED, columns, key_of
from harness.store.sql.audit import SqlAuditLog
from harness.store.sql.proposals import BAKING, IS_LIVE, IS_OPEN
from harness.store.sql.routing import CURRENT, CURRENT_FALLBACKS
from harness.store.unit_of_work import Unit

ROWS_PER_PAGE: Final = 200
EVER_RECORDED: Final = sa.select(audit_event.c.number).where(audit_event.c.rows.is_not(None))
_SMALL: Final = (providers.provider, api_key, providers.credential, routing.switch)


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
        return {row: self._unit.row_digest(row) for row in rows}

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
        for table in _SMALL:
            found += self._rows(table, sa.select(table))
        return dict(found)

    def take_over(self, now: datetime) -> int:
        self._unit.serialize()
        if self._unit.read(EVER_RECORDED.limit(1)).first() is not None:
            return 0
        taken, after = 0, ""
        while page := self.page(after):
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
