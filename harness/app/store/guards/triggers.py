"""Generates this version's triggers as SQL, installs them, and compares a database's triggers.

The rules themselves are in `routing` and `operations`. On PostgreSQL, each trigger runs a
function with a fixed `search_path`, so that a role cannot put another table in its place.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from harness.app.store.guards import COUNTED, COUNTED_ROWS, GUARDS, KEPT, NEVER_EMPTIED, Guard
from harness.app.store.tables import metadata
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

_POLICY: Final = re.compile(
    r"(ASKS|CHANGE|STEPS|WEIGHT|LENGTH)\[([A-Za-z._]+)(?:, ([^\]]+))?\]"
)
_TABLE: Final = re.compile(r"\b(FROM|JOIN|UPDATE) (\w+)\b")


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as a database describes it; equal triggers do the same."""

    name: str
    table: str
    kind: int  # PostgreSQL's tgtype; 0 on SQLite
    columns: tuple[str, ...]
    function: str
    body: str  # the whole SQLite statement, or the source of the PostgreSQL function
    settings: tuple[str, ...]  # the function's `SET` settings


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
    for guard in GUARDS:
        rules = " ".join(
            f"SELECT RAISE(ABORT, '{_quoted(message)}') WHERE {_for_sqlite(condition)};"
            for message, condition in guard.rules
        )
        yield _sqlite(guard.name, guard.table, f"BEFORE {_event(guard)}", rules)
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
    for event, body in traffic_tables.write_bodies(postgres=False).items():
        name = f"{traffic_tables.SUMMED}_summed_{event.lower()}"
        yield _sqlite(name, traffic_tables.SUMMED, f"AFTER {event}", body)


def _sqlite(
    name: str,
    table: str,
    when: str,
    body: str,
) -> Trigger:
    text = f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW BEGIN {body} END"
    return Trigger(name, table, 0, (), "", text, ())


def _event(guard: Guard) -> str:
    return guard.event + (f" OF {', '.join(guard.columns)}" if guard.columns else "")


def _for_sqlite(condition: str) -> str:
    """Replaces the macros of a condition by SQLite's JSON functions."""

    def word(found: re.Match[str]) -> str:
        kind, policy, step = found.groups()
        match kind:
            case "ASKS":
                return f"COALESCE(json_extract({policy}, '$.promotion'), '') <> 'automatic'"
            case "CHANGE":
                rule = f"json_extract({policy}, '$.change_reference')"
                return f"COALESCE({rule}, '') = 'required'"
            case "STEPS":
                return f"json_array_length({policy}, '$.canary.steps')"
            case "LENGTH":
                return f"json_array_length({policy})"
            case _:
                return (
                    f"json_extract({policy}, '$.canary.steps[' || ({step}) || '].weight_bps')"
                )

    # SQLite has IS DISTINCT FROM only since 3.39; IS NOT means the same in all versions.
    return _POLICY.sub(word, condition).replace("IS DISTINCT FROM", "IS NOT")


def _of_postgres(schema: str) -> Iterator[Trigger]:
    settings = (f"search_path=pg_catalog, {schema}, pg_temp",)
    for guard in GUARDS:
        rules = " ".join(
            f"IF {_for_postgres(condition, schema)} THEN RAISE EXCEPTION"
            f" '{_quoted(message)}' USING ERRCODE = 'integrity_constraint_violation'; END IF;"
            for message, condition in guard.rules
        )
        give = "OLD" if guard.event == "DELETE" else "NEW"
        body = f" BEGIN {rules} RETURN {give}; END "
        kind = _ROW | _TIMES["BEFORE"] | _EVENTS[guard.event]
        yield Trigger(
            guard.name,
            guard.table,
            kind,
            guard.columns,
            guard.name,
            body,
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
    for event, statements in traffic_tables.write_bodies(
        postgres=True, schema=f"{schema}."
    ).items():
        name = f"{traffic_tables.SUMMED}_summed_{event.lower()}"
        kind = _ROW | _TIMES["AFTER"] | _EVENTS[event]
        body = f" BEGIN {statements} RETURN NULL; END "
        yield Trigger(name, traffic_tables.SUMMED, kind, (), name, body, settings)


def _for_postgres(condition: str, schema: str) -> str:
    """Qualifies each table with the schema, because a TEMP table could have the same name."""

    def word(found: re.Match[str]) -> str:
        kind, policy, step = found.groups()
        steps = f"({policy})::json -> 'canary' -> 'steps'"
        match kind:
            case "ASKS":
                return f"COALESCE(({policy})::json ->> 'promotion', '') <> 'automatic'"
            case "CHANGE":
                return f"COALESCE(({policy})::json ->> 'change_reference', '') = 'required'"
            case "STEPS":
                return f"json_array_length({steps})"
            case "LENGTH":
                return f"json_array_length(({policy})::json)"
            case _:
                return f"({steps} -> ({step})::int ->> 'weight_bps')::bigint"

    def table(found: re.Match[str]) -> str:
        verb, name = found.groups()
        return f"{verb} {schema}.{name}" if name in metadata.tables else found[0]

    return _TABLE.sub(table, _POLICY.sub(word, condition))


def _quoted(message: str) -> str:
    return message.replace("'", "''")


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
    db.exec_driver_sql(trigger.body)


def _install_on_postgres(
    db: sa.Connection,
    schema: str,
    trigger: Trigger,
) -> None:
    function = f"{schema}.{trigger.function}()"
    db.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql"
        f" SET search_path = pg_catalog, {schema}, pg_temp"
        f" AS $guard${trigger.body.replace('%', '%%')}$guard$"
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
