"""Installs this version's triggers, and compares a database's triggers with them.

The other modules hold the SQL of the triggers that refuse rows; this one adds the triggers that
count changes. On PostgreSQL, each trigger runs a function with a fixed `search_path`, so that
a role cannot put another table in its place.
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
_TIMES: Final = {"BEFORE": 2, "AFTER": 0}
_EVENTS: Final = {
    "INSERT": 4,
    "DELETE": 8,
    "UPDATE": 16,
    "TRUNCATE": 32,
}
_ROW: Final = 1

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
        object.__setattr__(self, "spelling", _without_layout(self.text))


def _without_layout(text: str) -> str:
    """Removes line breaks and indentation, which earlier databases do not have. No trigger has
    a comment or a literal in which they could mean something.
    """
    return _SPACES.sub(" ", text).strip(" ").replace("( ", "(").replace(" )", ")")


def shipped(db: sa.Connection) -> Mapping[str, Trigger]:
    """Returns this version's triggers for the kind of database, by name."""
    triggers = _of_sqlite() if db.dialect.name == "sqlite" else _of_postgres(_schema(db))
    return {trigger.name: trigger for trigger in triggers}


def present(db: sa.Connection) -> Mapping[str, Trigger]:
    """Returns the database's triggers by name, including triggers that are not Swapgate's."""
    found = _in_sqlite(db) if db.dialect.name == "sqlite" else _in_postgres(db)
    return {trigger.name: trigger for trigger in found}


def differences(db: sa.Connection) -> list[str]:
    """Lists missing, changed and unknown triggers, one line each."""
    ours = shipped(db)
    theirs = present(db)
    return [
        *(f"the trigger {name} is missing" for name in sorted(ours.keys() - theirs.keys())),
        *(
            f"the trigger {name} is not this version's"
            for name in sorted(ours.keys() & theirs.keys())
            if ours[name] != theirs[name]
        ),
        *(
            f"the trigger {name} of {theirs[name].table} is not Swapgate's"
            for name in sorted(theirs.keys() - ours.keys())
        ),
    ]


def are_installed(db: sa.Connection) -> bool:
    """Returns whether each trigger of this version is there unchanged. Other triggers do not
    matter.
    """
    return shipped(db).items() <= present(db).items()


def install(db: sa.Connection) -> None:
    """Creates missing triggers and replaces changed ones. Leaves unknown triggers alone."""
    theirs = present(db)
    for name, trigger in shipped(db).items():
        if theirs.get(name) == trigger:
            continue
        if db.dialect.name == "sqlite":
            _install_on_sqlite(db, trigger)
        else:
            _install_on_postgres(db, _schema(db), trigger)


def _of_sqlite() -> Iterator[Trigger]:
    for refusing in REFUSING:
        when = f"BEFORE {_event(refusing)}"
        yield _sqlite(refusing.name, refusing.table, when, cleandoc(refusing.sqlite))
    for table, keys in KEPT.items():
        exists = " OR ".join(f"EXISTS (SELECT 1 FROM {table} t WHERE {key})" for key in keys)  # noqa: S608 - constants
        body = f"SELECT RAISE(IGNORE) WHERE {exists};"
        yield _sqlite(f"{table}_guard", table, "BEFORE INSERT", body)
    for table, events in COUNTED.items():
        for event in events:
            name = f"{table}_changed_{event.lower()}"
            rows = f" WHERE {COUNTED_ROWS[table]}" if table in COUNTED_ROWS else ""
            body = f"UPDATE meta SET changes = changes + 1{rows};"  # noqa: S608 - constants
            yield _sqlite(name, table, f"AFTER {event}", body)
    for event, body in traffic_tables.write_trigger_bodies(postgres=False).items():
        name = f"{traffic_tables.SUMMED_TABLE}_summed_{event.lower()}"
        yield _sqlite(name, traffic_tables.SUMMED_TABLE, f"AFTER {event}", body)


def _sqlite(
    name: str,
    table: str,
    when: str,
    body: str,
) -> Trigger:
    text = f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW BEGIN\n{body}\nEND"
    return Trigger(name, table, 0, (), "", text, ())


def _event(refusing: RefusingTrigger) -> str:
    of = f" OF {', '.join(refusing.columns)}" if refusing.columns else ""
    return f"{refusing.event}{of}"


def _of_postgres(schema: str) -> Iterator[Trigger]:
    settings = (f"search_path=pg_catalog, {schema}, pg_temp",)
    for refusing in REFUSING:
        # A TEMP table could have the name of a table, so the texts name the schema, too.
        rules = cleandoc(refusing.postgres).replace("public.", f"{schema}.")
        give = "OLD" if refusing.event == "DELETE" else "NEW"
        yield Trigger(
            refusing.name,
            refusing.table,
            _ROW | _TIMES["BEFORE"] | _EVENTS[refusing.event],
            refusing.columns,
            refusing.name,
            f"\nBEGIN\n{rules}\nRETURN {give};\nEND\n",
            settings,
        )
    truncate = (
        " BEGIN RAISE EXCEPTION 'append_only: % is never emptied', TG_TABLE_NAME"
        " USING ERRCODE = 'integrity_constraint_violation'; END "
    )
    for table in NEVER_EMPTIED:
        kind = _TIMES["BEFORE"] | _EVENTS["TRUNCATE"]
        name = f"{table}_no_truncate"
        yield Trigger(name, table, kind, (), "no_truncate", truncate, settings)
    notify = (
        "PERFORM pg_catalog.pg_notify('swapgate_changed', TG_TABLE_NAME); RETURN NULL; END "
    )
    count = f" BEGIN UPDATE {schema}.meta SET changes = changes + 1"  # noqa: S608 - constants
    for table, events in COUNTED.items():
        kind = sum(_EVENTS[event] for event in events)
        name = f"{table}_changed"
        if rows := COUNTED_ROWS.get(table):
            body = f"{count} WHERE {rows}; {notify}"
            yield Trigger(name, table, kind | _ROW, (), name, body, settings)
        else:
            yield Trigger(
                name,
                table,
                kind,
                (),
                "serving_changed",
                f"{count}; {notify}",
                settings,
            )
    kind = sum(_EVENTS[event] for event in ("INSERT", "UPDATE", "DELETE"))
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
        kind = _ROW | _TIMES["AFTER"] | _EVENTS[event]
        body = f" BEGIN {statements} RETURN NULL; END "
        yield Trigger(name, traffic_tables.SUMMED_TABLE, kind, (), name, body, settings)


def _schema(db: sa.Connection) -> str:
    return str(db.execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one())


def _in_sqlite(db: sa.Connection) -> Iterator[Trigger]:
    found = sa.text("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'")
    for name, table, text in db.execute(found):
        yield Trigger(name, table, 0, (), "", text, ())


_PRESENT: Final = sa.text(
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


def _in_postgres(db: sa.Connection) -> Iterator[Trigger]:
    """Reads the enabled triggers. A trigger with its own condition, arguments or another
    language gets another function's name, so that it never equals a trigger of this version.
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
        odd,
        columns,
    ) in db.execute(_PRESENT):
        plain = language == "plpgsql" and not definer and not odd
        yield Trigger(
            name,
            table,
            kind,
            tuple(columns),
            function if plain else f"{function} (in {language}, or with conditions)",
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
    before = trigger.kind & _TIMES["BEFORE"]
    events = [event for event, bit in _EVENTS.items() if trigger.kind & bit]
    of = f" OF {', '.join(trigger.columns)}" if trigger.columns else ""
    level = "ROW" if trigger.kind & _ROW else "STATEMENT"
    table = f"{schema}.{trigger.table}"
    db.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger.name} ON {table}")
    db.exec_driver_sql(
        f"CREATE TRIGGER {trigger.name} {'BEFORE' if before else 'AFTER'}"
        f" {' OR '.join(events)}{of} ON {table} FOR EACH {level} EXECUTE FUNCTION {function}"
    )
