"""Fills the database: lives of proposals by `lives.py`, and in SQL what there is most of. Every
signature is valid but those of samples, which are the template's: only samples of the proposals
that are read (`SHOWN`) are signed. The audit log's events have a whole chain, and name no rows.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.scale.house import House
from benchmarks.scale.lives import Copies, Values, read_lives
from benchmarks.scale.request_rows import request_rows
from benchmarks.scale.sizes import Size
from harness.domain.operations.access import ApiKey
from harness.domain.operations.audit import AuditEvent, event_mac
from harness.runtime.clock import SystemClock
from harness.store import engine
from harness.store.guards import triggers
from harness.store.schema import metadata
from harness.store.schema.columns import MICROSECOND
from harness.store.schema.operations import event_to_row, key_to_row
from harness.store.schema.traffic_sums import COUNTS, DAY, HOUR, SUM_KEY
from harness.store.signing.row_signatures import RowSignatures
from harness.store.unit_of_work import Unit
from tests.support.control.control_plane import SECRET
from tests.support.site.signing_keys import CONTROL, WORKER

ROWS_AT_ONCE: Final = 5_000
SHOWN: Final = 10  # routes whose newest proposals' samples are signed
NOW: Final = SystemClock().now().replace(second=0, microsecond=0)
TABLES: Final = metadata.tables


def fill(house: House, size: Size, *, text_chars: int) -> dict[str, int]:
    """Fills the database; returns how many rows each table has then."""
    made = engine.make(engine.parse(house.url), pool_timeout=60)
    writing, _ = engine.OPTIONS[made.dialect.name]
    db_engine = made.execution_options(**writing)
    with _unguarded(db_engine) as db:
        installation = db.execute(sa.text("SELECT installation FROM meta")).scalar_one()
        signatures = RowSignatures(CONTROL, lambda: installation)
        _step("routes and proposals", lambda: _fill_lives(db, house, size, signatures))
        _step("samples", lambda: _fill_samples(db, size, text_chars))
        _step("signatures of samples", lambda: _sign_samples(db, size, installation))
        _step("keys", lambda: _fill_keys(db, size, signatures))
        _step("what requests leave", lambda: _fill_requests(db, size))
        _step("sums of traffic", lambda: _sum_up_traffic(db))
        _step("audit log", lambda: _fill_audit(db, size))
        unit = Unit(db, signatures, writable=True)
        unit.write_manifest(NOW)
    with db_engine.connect() as db:
        # PostgreSQL does it by itself, a minute later.
        _step("statistics", lambda: db.execute(sa.text("ANALYZE")) if _is_pg(db) else None)
        db.commit()
        return {
            name: db.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for name, table in TABLES.items()
        }


def _step(name: str, do: Any) -> None:
    began = time.perf_counter()
    do()
    print(f"  filled: {name}, {time.perf_counter() - began:.0f} s", flush=True)


def _is_pg(db: sa.Connection) -> bool:
    return db.dialect.name == "postgresql"


@contextmanager
def _unguarded(db_engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yields a connection without triggers and foreign keys; they are back at the end."""
    with db_engine.connect() as db:
        if _is_pg(db):
            db.execute(sa.text("SET session_replication_role = replica"))
            db.execute(sa.text("SET synchronous_commit = off"))
        else:
            db.commit()
            raw: Any = db.connection.driver_connection
            raw.execute("PRAGMA foreign_keys = OFF")
            raw.execute("PRAGMA synchronous = OFF")
            found = raw.execute("SELECT name FROM sqlite_master WHERE type='trigger'")
            for (name,) in found.fetchall():
                raw.execute(f'DROP TRIGGER "{name}"')
        db.commit()
        yield db
        db.commit()
        if not _is_pg(db):
            triggers.install(db)
            db.commit()


def _fill_lives(db: sa.Connection, house: House, size: Size, signatures: RowSignatures) -> None:
    promoted, rejected, baseline, models = read_lives(db, house)
    revision = db.execute(sa.text("SELECT max(revision) FROM route_version")).scalar_one()
    copies = Copies(NOW, signatures, promoted, rejected, baseline, models, revision)
    db.execute(sa.text("CREATE TABLE scale_run (run TEXT PRIMARY KEY, template TEXT)"))
    waiting: dict[str, list[Values]] = {}
    for number in range(size.routes):
        for table, values in copies.of_route(number, size.proposals_of_route):
            waiting.setdefault(table, []).append(values)
        if sum(map(len, waiting.values())) > ROWS_AT_ONCE:
            _write(db, waiting)
    _write(db, waiting)


def _write(db: sa.Connection, waiting: dict[str, list[Values]]) -> None:
    for table, rows in waiting.items():
        db.execute(sa.insert(TABLES[table]), rows)
        if table == "eval_run":
            runs = [
                {"run": row["id"], "template": "_".join(row["id"].split("-")[:1])}
                for row in rows
            ]
            db.execute(sa.text("INSERT INTO scale_run VALUES (:run, :template)"), runs)
    db.commit()
    waiting.clear()


def _fill_samples(db: sa.Connection, size: Size, chars: int) -> None:
    text = f"repeat('word ', {chars // 5})" if _is_pg(db) else f"hex(zeroblob({chars // 2}))"
    columns = [column.name for column in TABLES["sample"].columns]
    changed = {"run": "r.run", "answer": f"s.answer || {text}", "prompt": f"s.prompt || {text}"}
    values = ", ".join(changed.get(name, f"s.{name}") for name in columns)
    db.execute(
        sa.text(
            f"INSERT INTO sample ({', '.join(columns)}) SELECT {values} FROM scale_run r"  # noqa: S608 - names of our columns
            " JOIN sample s ON s.run = r.template WHERE s.position < :wanted"
        ),
        {"wanted": size.samples_of_run},
    )
    db.execute(sa.text("DROP TABLE scale_run"))
    db.commit()


def shown_runs(db: sa.Connection, size: Size) -> list[str]:
    """The runs of the newest proposals of some routes."""
    proposal = TABLES["proposal"]
    found = []
    for number in range(min(SHOWN, size.routes)):
        query = sa.select(proposal.c.runs).where(proposal.c.route == f"route-{number:04}")
        query = query.order_by(proposal.c.created_at.desc()).limit(2)
        for runs in db.execute(query).scalars():
            found += [run for pair in runs.values() for run in pair.values()]
    return found


def _sign_samples(db: sa.Connection, size: Size, installation: str) -> None:
    signatures, sample = RowSignatures(WORKER, lambda: installation), TABLES["sample"]
    from harness.store.schema.evals import text_digests  # noqa: PLC0415

    for run in shown_runs(db, size):
        for row in db.execute(sa.select(sample).where(sample.c.run == run)).mappings().all():
            values = dict(row) | text_digests(row["answer"], row["prompt"])
            changes = {name: values[name] for name in ("answer_sha256", "prompt_sha256")}
            changes["signature"] = signatures.sign(sample, values)
            same = [column == values[column.name] for column in sample.primary_key.columns]
            db.execute(sa.update(sample).where(*same).values(changes))
    db.commit()


def _fill_keys(db: sa.Connection, size: Size, signatures: RowSignatures) -> None:
    key = TABLES["api_key"]

    def rows() -> Iterator[Values]:
        for number in range(size.keys):
            made = ApiKey(
                id=f"k_{number:08}",
                name=f"client {number}",
                hash=f"{number:064x}",
                hint=f"{number:04}"[-4:],
                role=None,
                routes=frozenset(),
                created_at=NOW - timedelta(days=90, seconds=-number),
            )
            values = {**key_to_row(made), "project": "default"}
            yield {**values, "signature": signatures.sign(key, values)}

    _insert(db, "api_key", rows())


def _insert(db: sa.Connection, table: str, rows: Iterable[Values]) -> None:
    part: list[Values] = []
    for row in rows:
        part.append(row)
        if len(part) == ROWS_AT_ONCE:
            db.execute(sa.insert(TABLES[table]), part)
            part.clear()
    if part:
        db.execute(sa.insert(TABLES[table]), part)
    db.commit()


def _fill_requests(db: sa.Connection, size: Size) -> None:
    """Traffic, spend, failovers, captures, each by one statement, and alerts."""
    models = db.execute(sa.text("SELECT DISTINCT incumbent, candidate FROM rollout")).all()
    given = {
        "at": int(NOW.timestamp()) * 1_000_000,
        "one": models[0][0],
        "other": models[0][1],
        "routes": size.routes,
        "no": False if _is_pg(db) else 0,
        "rules": "0" * 64,
    }
    for statement in request_rows(size, postgres=_is_pg(db)):
        used = {name: value for name, value in given.items() if f":{name}" in statement}
        db.execute(sa.text(statement), used)
        db.commit()
    [alert] = [dict(row) for row in db.execute(sa.select(TABLES["alert"]).limit(1)).mappings()]
    _insert(
        db,
        "alert",
        (
            alert
            | {
                "id": f"a_{number:08}",
                "key": f"key {number}",
                "first_seen": NOW - timedelta(minutes=number + 5),
                "last_seen": NOW - timedelta(minutes=number),
                "resolved_at": None if number % 100 == 0 else NOW - timedelta(minutes=number),
            }
            for number in range(size.alerts)
        ),
    )


def _sum_up_traffic(db: sa.Connection) -> None:
    """There are no triggers that would have kept the sums. Histograms are one minute's."""
    key, added = ", ".join(SUM_KEY[1:]), (*COUNTS, "cost_usd")
    sums = ", ".join(f"SUM({name})" for name in added)
    for table, span, more in (
        ("traffic_hour", HOUR // MICROSECOND, ("latency_ms",)),
        ("traffic_day", DAY // MICROSECOND, ()),
    ):
        columns = ", ".join(("begins_at", key, "first_minute", "last_minute", *added, *more))
        begins = f"minute - minute % {span}"
        values = ", ".join(
            (begins, key, "MIN(minute)", "MAX(minute)", sums, *(f"MIN({n})" for n in more))
        )
        db.execute(
            sa.text(
                f"INSERT INTO {table} ({columns}) SELECT {values} FROM traffic"  # noqa: S608 - constants
                f" GROUP BY {begins}, {key}"
            )
        )
    db.commit()


def _fill_audit(db: sa.Connection, size: Size) -> None:
    last = db.execute(
        sa.text("SELECT number, mac FROM audit_event ORDER BY number DESC LIMIT 1")
    ).one()

    def rows() -> Iterator[Values]:
        number, mac = last
        for step in range(size.audit_events):
            number += 1
            event = AuditEvent(
                number=number,
                at=NOW - timedelta(seconds=30 * (size.audit_events - step)),
                actor=f"person {number % 20}",
                action="proposal.create",
                subject=f"proposal p_{number}",
                details={"reason": "a benchmark"},
                previous=mac,
                mac="",
            )
            event = replace(event, mac=event_mac(event, SECRET))
            mac = event.mac
            yield event_to_row(event)

    _insert(db, "audit_event", rows())
