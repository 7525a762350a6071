"""Installs this version's triggers, and compares a database's triggers with them.

The other modules have the SQL of the triggers that refuse rows. This module adds the triggers
that count changes. On PostgreSQL, each trigger runs a function with a fixed `search_path`, so
that a role cannot put another table in its place.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Final

import sqlalchemy as sa

from harness.app.store.guards import (
    COUNTED,
    COUNTED_ROWS,
    KEPT,
    NEVER_EMPTIED,
    REFUSING,
    RefusingTrigger,
)
from harness.routing.records import traffic_tables

# The bits of pg_trigger.tgtype.
_TIME_BITS: Final = {"BEFORE": 2, "AFTER": 0}
_EVENT_BITS: Final = {
    "INSERT": 4,
    "DELETE": 8,
    "UPDATE": 16,
    "TRUNCATE": 32,
}
_ROW_BIT: Final = 1

_SPACES: Final = re.compile(r"[ \t\n\r]+")  # other spaces are part of a name in SQL


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as a database describes it; equal triggers do the same.

    text: the whole SQLite statement, or the source of the PostgreSQL function.
    """

    name: str
    table: str
    kind: int  # PostgreSQL's tgtype; 0 on SQLite
    columns: tuple[str, ...]
    function: str
    text: str = field(compare=False)
    settings: tuple[str, ...]  # the function's `SET` settings
    spelling: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spelling", _remove_layout(self.text))


def _remove_layout(text: str) -> str:
    """Removes line breaks and indentation, because the triggers of earlier databases have none.
    They mean nothing, because no trigger has a comment or literal with them.
    """
    return _SPACES.sub(" ", text).strip(" ").replace("( ", "(").replace(" )", ")")


def build_triggers(db: sa.Connection) -> Mapping[str, Trigger]:
    """Returns this version's triggers for the kind of database, by name."""
    triggers = (
        _build_for_sqlite()
        if db.dialect.name == "sqlite"
        else _build_for_postgres(_read_schema(db))
    )
    return {trigger.name: trigger for trigger in triggers}


def read_triggers(db: sa.Connection) -> Mapping[str, Trigger]:
    """Returns the database's triggers by name, including triggers that are not Swapproof's."""
    triggers = _read_from_sqlite(db) if db.dialect.name == "sqlite" else _read_from_postgres(db)
    return {trigger.name: trigger for trigger in triggers}


def list_differences(db: sa.Connection) -> list[str]:
    """Lists missing, changed and unknown triggers, one line each."""
    expected = build_triggers(db)
    actual = read_triggers(db)
    return [
        *(f"the trigger {name} is missing" for name in sorted(expected.keys() - actual.keys())),
        *(
            f"the trigger {name} is not this version's"
            for name in sorted(expected.keys() & actual.keys())
            if expected[name] != actual[name]
        ),
        *(
            f"the trigger {name} of {actual[name].table} is not Swapproof's"
            for name in sorted(actual.keys() - expected.keys())
        ),
    ]


def are_installed(db: sa.Connection) -> bool:
    """Returns whether the database has each trigger of this version, unchanged. Ignores other
    triggers.
    """
    return build_triggers(db).items() <= read_triggers(db).items()


def install(db: sa.Connection) -> None:
    """Creates missing triggers, and replaces changed triggers. Does not touch unknown
    triggers.
    """
    actual = read_triggers(db)
    for name, trigger in build_triggers(db).items():
        if actual.get(name) == trigger:
            continue
        if db.dialect.name == "sqlite":
            _install_on_sqlite(db, trigger)
        else:
            _install_on_postgres(db, _read_schema(db), trigger)


def _build_for_sqlite() -> Iterator[Trigger]:
    for refusing_trigger in REFUSING:
        when = f"BEFORE {_format_event(refusing_trigger)}"
        yield _build_sqlite_trigger(
            refusing_trigger.name,
            refusing_trigger.table,
            when,
            cleandoc(refusing_trigger.sqlite),
        )
    for table, keys in KEPT.items():
        exists = " OR ".join(f"EXISTS (SELECT 1 FROM {table} t WHERE {key})" for key in keys)  # noqa: S608 - constants
        body = f"SELECT RAISE(IGNORE) WHERE {exists};"
        yield _build_sqlite_trigger(f"{table}_guard", table, "BEFORE INSERT", body)
    for table, events in COUNTED.items():
        for event in events:
            name = f"{table}_changed_{event.lower()}"
            rows = f" WHERE {COUNTED_ROWS[table]}" if table in COUNTED_ROWS else ""
            body = f"UPDATE meta SET changes = changes + 1{rows};"  # noqa: S608 - constants
            yield _build_sqlite_trigger(name, table, f"AFTER {event}", body)
    for event, body in traffic_tables.write_trigger_bodies(postgres=False).items():
        name = f"{traffic_tables.SUMMED_TABLE}_summed_{event.lower()}"
        yield _build_sqlite_trigger(name, traffic_tables.SUMMED_TABLE, f"AFTER {event}", body)


def _build_sqlite_trigger(
    name: str,
    table: str,
    when: str,
    body: str,
) -> Trigger:
    text = f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW BEGIN\n{body}\nEND"
    return Trigger(name, table, 0, (), "", text, ())


def _format_event(refusing_trigger: RefusingTrigger) -> str:
    column_list = (
        f" OF {', '.join(refusing_trigger.columns)}" if refusing_trigger.columns else ""
    )
    return f"{refusing_trigger.event}{column_list}"


def _build_for_postgres(schema: str) -> Iterator[Trigger]:
    settings = (f"search_path=pg_catalog, {schema}, pg_temp",)
    for refusing_trigger in REFUSING:
        # The texts name the schema, because a TEMP table could have the name of a table.
        rules = cleandoc(refusing_trigger.postgres).replace("public.", f"{schema}.")
        returned_row = "OLD" if refusing_trigger.event == "DELETE" else "NEW"
        yield Trigger(
            refusing_trigger.name,
            refusing_trigger.table,
            _ROW_BIT | _TIME_BITS["BEFORE"] | _EVENT_BITS[refusing_trigger.event],
            refusing_trigger.columns,
            refusing_trigger.name,
            f"\nBEGIN\n{rules}\nRETURN {returned_row};\nEND\n",
            settings,
        )
    truncate = (
        " BEGIN RAISE EXCEPTION 'append_only: % is never emptied', TG_TABLE_NAME"
        " USING ERRCODE = 'integrity_constraint_violation'; END "
    )
    for table in NEVER_EMPTIED:
        kind = _TIME_BITS["BEFORE"] | _EVENT_BITS["TRUNCATE"]
        name = f"{table}_no_truncate"
        yield Trigger(name, table, kind, (), "no_truncate", truncate, settings)
    notify = (
        "PERFORM pg_catalog.pg_notify('swapproof_changed', TG_TABLE_NAME); RETURN NULL; END "
    )
    count_change = f" BEGIN UPDATE {schema}.meta SET changes = changes + 1"  # noqa: S608 - constants
    for table, events in COUNTED.items():
        kind = sum(_EVENT_BITS[event] for event in events)
        name = f"{table}_changed"
        if rows := COUNTED_ROWS.get(table):
            body = f"{count_change} WHERE {rows}; {notify}"
            yield Trigger(name, table, kind | _ROW_BIT, (), name, body, settings)
        else:
            yield Trigger(
                name,
                table,
                kind,
                (),
                "serving_changed",
                f"{count_change}; {notify}",
                settings,
            )
    kind = sum(_EVENT_BITS[event] for event in ("INSERT", "UPDATE", "DELETE"))
    yield Trigger(
        "route_version_changed",
        "route_version",
        kind,
        (),
        "routing_changed",
        f" BEGIN {notify}",
        settings,
    )
    for event, statements in traffic_tables.write_trigger_bodies(
        postgres=True, schema=f"{schema}."
    ).items():
        name = f"{traffic_tables.SUMMED_TABLE}_summed_{event.lower()}"
        kind = _ROW_BIT | _TIME_BITS["AFTER"] | _EVENT_BITS[event]
        body = f" BEGIN {statements} RETURN NULL; END "
        yield Trigger(name, traffic_tables.SUMMED_TABLE, kind, (), name, body, settings)


def _read_schema(db: sa.Connection) -> str:
    return str(db.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one())


def _read_from_sqlite(db: sa.Connection) -> Iterator[Trigger]:
    query = sa.text("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'")
    for name, table, text in db.execute(query):
        yield Trigger(name, table, 0, (), "", text, ())


_STORED_TRIGGERS: Final = sa.text(
    "SELECT t.tgname, c.relname, t.tgtype, p.proname, p.prosrc, p.proconfig, l.lanname,"
    " p.prosecdef, t.tgqual IS NOT NULL OR t.tgnargs > 0 OR n.nspname <> current_schema()"
    " AS odd, ARRAY(SELECT a.attname"
    " FROM unnest(t.tgattr::int2[]) WITH ORDINALITY k(num, place)"
    " JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = k.num ORDER BY k.place)"
    " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
    " JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang"
    " JOIN pg_namespace n ON n.oid = p.pronamespace"
    " WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')"
    " AND c.relnamespace = quote_ident(current_schema())::regnamespace"
)


def _read_from_postgres(db: sa.Connection) -> Iterator[Trigger]:
    """Reads the enabled triggers. Changes the function's name of a trigger with a condition,
    arguments or another language, so that it never equals a trigger of this version.
    """
    for (
        name,
        table,
        kind,
        function,
        body,
        config,
        language,
        definer,
        has_conditions,
        columns,
    ) in db.execute(_STORED_TRIGGERS):
        is_comparable = language == "plpgsql" and not definer and not has_conditions
        yield Trigger(
            name,
            table,
            kind,
            tuple(columns),
            function if is_comparable else f"{function} (in {language}, or with conditions)",
            body,
            tuple(config or ()),
        )


def _install_on_sqlite(db: sa.Connection, trigger: Trigger) -> None:
    db.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger.name}")
    db.exec_driver_sql(trigger.text)


def _install_on_postgres(
    db: sa.Connection,
    schema: str,
    trigger: Trigger,
) -> None:
    function = f"{schema}.{trigger.function}()"
    db.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql"
        f" SET search_path = pg_catalog, {schema}, pg_temp"
        f" AS $guard${trigger.text.replace('%', '%%')}$guard$"
    )
    is_before = trigger.kind & _TIME_BITS["BEFORE"]
    events = [event for event, bit in _EVENT_BITS.items() if trigger.kind & bit]
    column_list = f" OF {', '.join(trigger.columns)}" if trigger.columns else ""
    level = "ROW" if trigger.kind & _ROW_BIT else "STATEMENT"
    table = f"{schema}.{trigger.table}"
    db.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger.name} ON {table}")
    db.exec_driver_sql(
        f"CREATE TRIGGER {trigger.name} {'BEFORE' if is_before else 'AFTER'} "
        f"{' OR '.join(events)}{column_list} ON {table} FOR EACH {level} EXECUTE FUNCTION "
        f"{function}"
    )
