"""Writes the triggers that keep the sums of traffic (`harness.store.schema.traffic_sums`): what
is added to a minute is added to its hour and its day in the same transaction, whoever adds it
and however late.

A row that is deleted from `traffic` stays in its day's sum.
"""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Mapping
from typing import Final

from harness.store.schema.columns import MICROSECOND
from harness.store.schema.traffic_sums import COUNTS, DAY, HOUR, SUM_KEY

SUMMED: Final = "traffic"
_SPANS: Final = {"traffic_hour": HOUR // MICROSECOND, "traffic_day": DAY // MICROSECOND}
_ADDED: Final = (*COUNTS, "cost_usd")
_LATENCY: Final = "latency_ms"
# A histogram is a JSON object: upper bound to count.
_SQLITE_MERGE: Final = (
    "(SELECT json_group_object(key, n) FROM (SELECT key, SUM(n) AS n FROM ({parts})"
    " GROUP BY key))"
)
_SQLITE_PART: Final = "SELECT key, {sign}value AS n FROM json_each({histogram})"
_POSTGRES_MERGE: Final = (
    "(SELECT COALESCE(json_object_agg(key, n)::text, '{{}}') FROM (SELECT key, SUM(n) AS n"
    " FROM ({parts}) part GROUP BY key) merged)"
)
_POSTGRES_PART: Final = (
    "SELECT key, {sign}value::bigint AS n FROM json_each_text(({histogram})::json)"
)


def write_bodies(*, postgres: bool, schema: str = "") -> Mapping[str, str]:
    """Returns the statements of the trigger for each event, INSERT and UPDATE. schema: of
    PostgreSQL's tables, with its dot.
    """
    return {
        "INSERT": " ".join(
            _on_insert(table, span, schema, postgres=postgres) for table, span in _SPANS.items()
        ),
        "UPDATE": " ".join(
            _on_update(table, span, schema, postgres=postgres) for table, span in _SPANS.items()
        ),
    }


def _on_insert(table: str, span: int, schema: str, *, postgres: bool) -> str:
    columns = ["first_minute", "last_minute", *_ADDED]
    values = ["NEW.minute", "NEW.minute", *(f"NEW.{name}" for name in _ADDED)]
    least, most = ("LEAST", "GREATEST") if postgres else ("MIN", "MAX")
    changes = [
        f"first_minute = {least}({table}.first_minute, excluded.first_minute)",
        f"last_minute = {most}({table}.last_minute, excluded.last_minute)",
        *(f"{name} = {table}.{name} + excluded.{name}" for name in _ADDED),
    ]
    if table == "traffic_hour":
        columns.append(_LATENCY)
        values.append(f"NEW.{_LATENCY}")
        merged = _merge(f"{table}.{_LATENCY}", f"excluded.{_LATENCY}", postgres=postgres)
        changes.append(f"{_LATENCY} = {merged}")
    key = "NEW.route, NEW.worker, NEW.arm, NEW.target"
    return (
        f"INSERT INTO {schema}{table} ({', '.join((*SUM_KEY, *columns))})"
        f" VALUES ({_begin(span)}, {key}, {', '.join(values)})"
        f" ON CONFLICT ({', '.join(SUM_KEY)}) DO UPDATE SET {', '.join(changes)};"
    )


def _on_update(table: str, span: int, schema: str, *, postgres: bool) -> str:
    changes = [f"{name} = {name} + (NEW.{name} - OLD.{name})" for name in _ADDED]
    if table == "traffic_hour":
        parts = (f"{table}.{_LATENCY}", f"NEW.{_LATENCY}")
        merged = _merge(*parts, less=f"OLD.{_LATENCY}", postgres=postgres)
        changes.append(f"{_LATENCY} = {merged}")
    same = " AND ".join(f"{name} = NEW.{name}" for name in SUM_KEY[1:])
    return (
        f"UPDATE {schema}{table} SET {', '.join(changes)}"
        f" WHERE begins_at = {_begin(span)} AND {same};"
    )


def _begin(span: int) -> str:
    return f"NEW.minute - NEW.minute % {span}"


def _merge(*histograms: str, less: str = "", postgres: bool) -> str:
    merge, part = (
        (_POSTGRES_MERGE, _POSTGRES_PART) if postgres else (_SQLITE_MERGE, _SQLITE_PART)
    )
    parts = [part.format(sign="", histogram=histogram) for histogram in histograms]
    if less:
        parts.append(part.format(sign="-", histogram=less))
    return merge.format(parts=" UNION ALL ".join(parts))
