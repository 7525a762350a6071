"""The views for people who analyse the database; docs/reference/database.md describes them.

`canary_exposures` has a row for each exposure of a canary. Swapproof itself does not read it.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from harness.gate.online.exposures import SEGMENTS_FROM, EventKind
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.observation import SEGMENTS, Segment
from harness.gate.online.outcome import READINGS, JudgeOutcome, OutcomeKind, Reading
from harness.gate.online.rollout import FIRST_CALLERS
from harness.providers.models.capabilities import Endpoint
from harness.routing.records.exposures import exposure, exposure_event
from harness.routing.records.proposals import rollout

CANARY_EXPOSURES: Final = "canary_exposures"

Column = sa.ColumnElement[Any]

_KEY: Final = ("rollout", "worker", "ticket")
_RESULTS: Final = (
    "outcome",
    "reason",
    "failure",
    "served",
    "cost_usd",
    "latency_s",
    "output_tokens",
)
_FAILURES: Final = sorted(
    kind for kind in OutcomeKind if READINGS[Guardrail.ERRORS][kind] is Reading.BAD
)


class _TimeText(FunctionElement[str]):
    """Writes a column of `UtcTime` as ISO 8601 with microseconds, in UTC."""

    name = "time_text"
    type = sa.Text()
    inherit_cache = True


@compiles(_TimeText, "sqlite")
def _compile_for_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    time_us = compiler.process(element.clauses, **options)
    fraction_us = f"{time_us}%1000000"
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {time_us} / 1000000, 'unixepoch')"
        f" || printf('.%06dZ', {fraction_us})"
    )


@compiles(_TimeText, "postgresql")
def _compile_for_postgres(element: Any, compiler: Any, **options: Any) -> str:
    time_us = compiler.process(element.clauses, **options)
    return (
        f"to_char(to_timestamp({time_us} / 1000000) AT TIME ZONE 'UTC',"
        f" 'YYYY-MM-DD\"T\"HH24:MI:SS')"
        f" || '.' || lpad(CAST(mod({time_us}, 1000000) AS TEXT), 6, '0') || 'Z'"
    )


def _has_segment(traits: Column, segment: Segment) -> Column:
    bit = 1 << SEGMENTS_FROM + SEGMENTS.index(segment)
    return traits.bitwise_and(bit) != 0


def _choose_segment(traits: Column, yes: Segment, no: Segment) -> Column:
    """Returns whether a request has one segment; NULL if it has neither."""
    return sa.case(
        (_has_segment(traits, yes), sa.true()),
        (_has_segment(traits, no), sa.false()),
    )


def _count_if(condition: Column) -> Column:
    return sa.func.count(sa.case((condition, 1)))


def _group_rows() -> sa.Subquery:
    """Groups each exposure with its events. `first` is the exposure's number, NULL for events
    without an exposure, and `end` that of the end of its own request.
    """
    values = [exposure_event.c[name] for name in ("kind", "outcome", "bad", "verdict")]
    rows = sa.union_all(
        sa.select(
            *(exposure.c[name] for name in _KEY),
            exposure.c.number.label("first"),
            sa.literal(None, sa.BigInteger()).label("number"),
            *(sa.literal(None, value.type).label(value.name) for value in values),
        ),
        sa.select(
            *(exposure_event.c[name] for name in _KEY),
            sa.literal(None, sa.BigInteger()),
            exposure_event.c.number,
            *values,
        ),
    ).subquery("stored")
    row = rows.c
    is_end = row.kind == EventKind.ENDED.value
    is_turn = row.kind == EventKind.TURN.value
    key = [row[name] for name in _KEY]
    return (
        sa.select(
            *key,
            sa.func.min(row.first).label("first"),
            sa.func.min(sa.case((is_end, row.number))).label("end"),
            _count_if(is_turn).label("later_turns"),
            _count_if(sa.and_(is_turn, row.outcome.in_(_FAILURES))).label("later_failures"),
            _count_if(row.bad.is_(sa.true())).label("bad"),
            _count_if(row.bad.is_not(None)).label("opinions"),
            # A verdict replaces an earlier call of the judge without one.
            sa.func.min(row.verdict).label("verdict"),
        )
        .group_by(*key)
        .subquery("grouped")
    )


def _join_first() -> sa.Subquery:
    """Joins each group with its exposure, and its `place` among those of a caller's period."""
    # Joins of a group with a key only: SQLite joins two groups in quadratic time.
    grouped = _group_rows()
    is_first = sa.and_(
        exposure.c.rollout == grouped.c.rollout, exposure.c.number == grouped.c.first
    )
    columns = exposure.c
    place = sa.func.row_number().over(
        partition_by=(columns.rollout, columns.period, columns.caller),
        order_by=(columns.admitted_at, columns.number),
    )
    sums = [column for column in grouped.c if column.name not in _KEY]
    return (
        sa.select(exposure, *sums, place.label("place"))
        .select_from(grouped.join(exposure, is_first))
        .subquery("first")
    )


def select_canary_exposures() -> sa.Select[Any]:
    """Selects each caller's earliest exposure of a period, with what followed it."""
    first = _join_first()
    ended = exposure_event.alias("ended")
    is_end = sa.and_(ended.c.rollout == first.c.rollout, ended.c.number == first.c.end)
    of = sa.func.replace(first.c.rollout, FIRST_CALLERS, "")
    rows = first.outerjoin(rollout, rollout.c.id == of).outerjoin(ended, is_end)
    traits = first.c.traits
    endpoints = [
        (_has_segment(traits, Segment(endpoint.value)), endpoint.value) for endpoint in Endpoint
    ]
    return (
        sa.select(
            first.c.rollout,
            rollout.c.route,
            sa.case((first.c.canary, "candidate"), else_="incumbent").label("arm"),
            first.c.period,
            _TimeText(first.c.admitted_at).label("admitted_at"),
            first.c.weight_bps,
            first.c.client.label("client_key"),
            sa.case(*endpoints).label("endpoint"),
            _choose_segment(traits, Segment.STREAM, Segment.WHOLE).label("is_stream"),
            _choose_segment(traits, Segment.TOOLS, Segment.NO_TOOLS).label("has_tools"),
            *(ended.c[name] for name in _RESULTS if name != "served"),
            ended.c.served.label("served_model"),
            first.c.later_turns,
            first.c.later_failures,
            sa.case((first.c.bad > 0, "bad"), (first.c.opinions > 0, "good")).label("feedback"),
            sa.case(
                *((first.c.verdict == one.value, one.name.lower()) for one in JudgeOutcome)
            ).label("verdict"),
        )
        .select_from(rows)
        .where(first.c.place == 1)
    )


def install(db: sa.Connection) -> None:
    """Creates a missing view, and replaces a changed one. Keeps a view that the role cannot
    compare.
    """
    if _read_definition(db) is None or (can_compare(db) and list_differences(db)):
        db.exec_driver_sql(f"DROP VIEW IF EXISTS {CANARY_EXPOSURES}")
        db.exec_driver_sql(_write_statement(db))


def list_differences(db: sa.Connection) -> list[str]:
    """Lists missing and changed views, one line each."""
    stored = _read_definition(db)
    if stored is None:
        return [f"the view {CANARY_EXPOSURES} is missing"]
    if stored != _build_definition(db):
        return [f"the view {CANARY_EXPOSURES} is not this version's"]
    return []


def can_compare(db: sa.Connection) -> bool:
    """Returns whether the role may create temporary objects. PostgreSQL spells a definition in
    its own way only when it stores it.
    """
    has_right = "SELECT has_database_privilege(current_database(), 'TEMPORARY')"
    return db.dialect.name == "sqlite" or bool(db.execute(sa.text(has_right)).scalar_one())


def _write_statement(db: sa.Connection, *, temporary: bool = False) -> str:
    compiled = select_canary_exposures().compile(
        dialect=db.dialect, compile_kwargs={"literal_binds": True}
    )
    return f"CREATE {'TEMPORARY ' * temporary}VIEW {CANARY_EXPOSURES} AS {compiled}"


_SQLITE_DEFINITION: Final = sa.text(
    "SELECT sql FROM sqlite_master WHERE type = 'view' AND name = :name"
)
_POSTGRES_DEFINITION: Final = sa.text(
    "SELECT pg_get_viewdef(c.oid) FROM pg_class c WHERE c.relkind = 'v' AND c.relname = :name"
    " AND c.relnamespace = quote_ident(current_schema())::regnamespace"
)
_TEMPORARY_DEFINITION: Final = sa.text(
    f"SELECT pg_get_viewdef('pg_temp.{CANARY_EXPOSURES}'::regclass)"
)


def _read_definition(db: sa.Connection) -> str | None:
    """Reads the stored view in the database's own spelling; None without the view."""
    is_sqlite = db.dialect.name == "sqlite"
    query = _SQLITE_DEFINITION if is_sqlite else _POSTGRES_DEFINITION
    stored: str | None = db.execute(query, {"name": CANARY_EXPOSURES}).scalar()
    return stored


def _build_definition(db: sa.Connection) -> str:
    """Returns this version's view as this database spells it."""
    if db.dialect.name == "sqlite":
        return _write_statement(db)
    savepoint = db.begin_nested()
    try:
        db.exec_driver_sql(_write_statement(db, temporary=True))
        return str(db.execute(_TEMPORARY_DEFINITION).scalar_one())
    finally:
        savepoint.rollback()
