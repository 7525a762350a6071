"""Digests of rows for the audit log: which tables it covers (`AUDITED`), what a digest is over
(`digest_of`), and a row's name in the log (`key_of`).

A digest leaves out what is at its column's zero (NULL, "", 0, {}): a migration that adds a
column leaves every digest as it was.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

import sqlalchemy as sa

from harness.domain.content_hash import digest
from harness.store.rules import ENDED
from harness.store.schema import (
    agents,
    evals,
    interventions,
    proposals,
    providers,
    routing,
    shadow,
)
from harness.store.schema.operations import api_key, person_link

AUDITED: Final[Mapping[str, sa.Table]] = {
    table.name: table
    for table in (
        evals.target,
        evals.suite,
        evals.eval_run,
        proposals.proposal,
        proposals.verdict,
        proposals.approval,
        proposals.rollout,
        providers.provider,
        routing.waiver,
        routing.evidence,
        routing.route_version,
        routing.route_fallback,
        api_key,
        person_link,
        providers.credential,
        interventions.switch,
        interventions.freeze,
        interventions.break_glass,
        shadow.shadow,
        agents.agent_switch,
        agents.agent_grant,
    )
}
# Verifies itself, and is renewed with the keys.
_UNSIGNED: Final = frozenset({"signature"})
# What workers change as they work.
_WORKING: Final = frozenset(
    {"lease_owner", "lease_until", "failures", "message", "wanted", "state"}
)
_LENGTH: Final = 32
_SCORES: Final = tuple(
    column
    for column in evals.sample.c
    if column.name not in {"answer", "prompt", "error_text", *_UNSIGNED}
)
SCORES_OF: Final = (
    sa.select(*_SCORES)
    .where(evals.sample.c.run == sa.bindparam("run"))
    .order_by(evals.sample.c.position, evals.sample.c.item, evals.sample.c.epoch)
)
_ENDED: Final = frozenset(state.value for state in ENDED)


def columns(table: sa.Table) -> list[sa.Column[Any]]:
    """Lists the columns of a table's primary key, in order."""
    return list(table.primary_key.columns)


def key_of(table: sa.Table, values: Mapping[str, Any]) -> str:
    """Writes a row's name in the audit log, such as `route_version:default/chat/3`."""
    parts = (quote(str(values[column.name]), safe=" ") for column in columns(table))
    return f"{table.name}:{'/'.join(parts)}"


def is_row(key: str) -> sa.ColumnElement[bool]:
    """The condition that finds the row of a key."""
    name, _, parts = key.partition(":")
    own = columns(AUDITED[name])
    return sa.and_(
        *(column == value for column, value in zip(own, _values(own, parts), strict=True))
    )


def is_any_row(keys: Sequence[str]) -> sa.ColumnElement[bool]:
    """The condition that finds the rows of keys, all of one table."""
    own = columns(AUDITED[keys[0].partition(":")[0]])
    values = [_values(own, key.partition(":")[2]) for key in keys]
    if len(own) == 1:
        return own[0].in_([only for (only,) in values])
    return sa.tuple_(*own).in_(values)


def _values(own: Sequence[sa.Column[Any]], parts: str) -> tuple[object, ...]:
    """The values of the columns of a primary key, as a row's name has them."""
    given = zip(own, parts.split("/"), strict=True)
    return tuple(column.type.python_type(unquote(part)) for column, part in given)


def digest_of(table: sa.Table, row: Mapping[str, Any], scores: Sequence[object] = ()) -> str:
    """Computes the digest of a row, as audit events note it. scores: of an eval run that has
    ended, its samples without their texts.
    """
    left_out = _UNSIGNED
    values: dict[str, object] = {}
    if table is evals.eval_run:
        left_out |= _WORKING
        if row["state"] in _ENDED:
            values = {"ended": row["state"], "scores": scores}
    for column in table.columns:
        value = row[column.name]
        if column.name not in left_out and not _is_zero(value):
            values[column.name] = _plain(value)
    return digest(values)[:_LENGTH]


def has_scores(table: sa.Table, row: Mapping[str, Any]) -> bool:
    return table is evals.eval_run and row["state"] in _ENDED


def plain_rows(rows: Iterable[sa.Row[Any]]) -> list[list[object]]:
    return [[_plain(value) for value in row] for row in rows]


def _is_zero(value: object) -> bool:
    return value is None or value in ("", 0, [], {})


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, dt.date) else value
