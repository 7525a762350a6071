"""The schema's history on both databases: up, down, and equal to the tables."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness import package_data
from harness.domain.canary.observation import TrafficMinute
from harness.domain.errors import StoreUnavailable
from harness.store import engine, migrate, traffic_backfill
from harness.store.schema import metadata
from harness.store.schema.observations import traffic, traffic_to_row
from harness.store.schema.traffic_sums import traffic_day, traffic_hour
from tests.contract.conftest import open_store
from tests.support.store.records import SAMPLE, TRAFFIC, proposal, seeded, start_canary

pytestmark = pytest.mark.both_databases

# Databases have run these: whoever changes a table writes another migration.
RELEASED = {
    "0001_schema.py": "84bbd5f08438bc919cd5084bb5e6cf0b9d54108347dee363f8f032df3fc343a6",
    "0002_promise.py": "ef6aec427310e81beda2c30061b54487d74dad842da6d4f8bbe71715120e645e",
    "0003_agents.py": "e55b35a00819f130dd226242e97a4623728cf7c32996200f27f13e337a674ea7",
    "0004_seen_keys.py": "d379f1931015bb6440a2b7e45412d02bd8cac5a7d482ca5e5ddcf3907e51da89",
}
FIRST_RELEASE = Path(__file__).parents[1] / "golden" / "sqlite_0002.sql"


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    made = engine.make(engine.parse(url), create=True)
    made = made.execution_options(**{engine.BEGIN: "IMMEDIATE"})
    try:
        with made.begin() as db:
            yield db
    finally:
        made.dispose()


def names(url: str) -> set[str]:
    with connected(url) as db:
        return set(sa.inspect(db).get_table_names())


def test_an_upgrade_leads_to_the_tables_and_a_downgrade_back(empty_database_url: str) -> None:
    url = empty_database_url
    assert migrate.current(url) is None

    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    assert migrate.check(url) == []
    assert names(url) == {*metadata.tables, "alembic_version"}

    migrate.downgrade(url, "base")
    assert migrate.current(url) is None
    assert names(url) == {"alembic_version"}

    migrate.upgrade(url)
    assert migrate.check(url) == []


def test_each_migration_can_be_undone_and_done_again(empty_database_url: str) -> None:
    url = empty_database_url
    for revision in migrate.revisions():
        migrate.upgrade(url, revision)
        migrate.downgrade(url, "-1")
        migrate.upgrade(url, revision)
        assert migrate.current(url) == revision


def test_a_database_in_use_can_be_downgraded(database_url: str) -> None:
    store = open_store(database_url)
    seeded(store)
    with store.write() as tx:
        start_canary(tx)
    store.close()

    migrate.downgrade(database_url, "base")

    assert names(database_url) == {"alembic_version"}


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    store = open_store(database_url)
    seeded(store)
    before = store.etag()

    migrate.upgrade(database_url)

    assert store.etag() == before
    store.close()


def test_several_may_upgrade_at_once(empty_database_url: str) -> None:
    start = threading.Barrier(3)

    def upgrade() -> None:
        start.wait()
        migrate.upgrade(empty_database_url)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(upgrade) for _ in range(3)]:
            future.result()

    assert migrate.check(empty_database_url) == []


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_the_migrated_checks_are_the_tables_own(
    request: pytest.FixtureRequest, name: str
) -> None:
    """alembic compares no CHECKs: a fresh database from the tables shows them as they are."""
    migrated = request.getfixturevalue(f"{name}_url")
    fresh = request.getfixturevalue(f"empty_{name}_url")
    with connected(fresh) as db:
        metadata.create_all(db)

    assert checks(migrated) == checks(fresh) != {}


def checks(url: str) -> Mapping[tuple[str, str], str]:
    with connected(url) as db:
        inspector = sa.inspect(db)
        return {
            (table, str(check["name"])): " ".join(check["sqltext"].split())
            for table in metadata.tables
            for check in inspector.get_check_constraints(table)
        }


def test_the_check_names_what_differs(database_url: str) -> None:
    with connected(database_url) as db:
        db.execute(sa.text("ALTER TABLE provider ADD COLUMN surplus TEXT"))

    (difference,) = migrate.check(database_url)
    assert "surplus" in difference


def test_an_interrupted_upgrade_leaves_the_database_as_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(empty_database_url, "0001")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sa.Connection, "commit", interrupted)
        patch.setattr(sa.engine.base.RootTransaction, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            migrate.upgrade(empty_database_url)

    assert migrate.current(empty_database_url) == "0001"


def test_the_folder_of_a_new_sqlite_file_is_created(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a folder' / 'with 100 %' / 'swapgate.db'}"
    migrate.upgrade(url)

    assert migrate.check(url) == []


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailable, match="file"):
        migrate.upgrade(f"sqlite:///{tmp_path / 'file' / 'swapgate.db'}")


def test_a_store_without_tables_says_what_to_do(empty_database_url: str) -> None:
    store = open_store(empty_database_url)
    with pytest.raises(StoreUnavailable, match="swapgate db upgrade"), store.write() as tx:
        tx.proposals.add(proposal())
    with pytest.raises(StoreUnavailable, match="swapgate db upgrade"):
        store.snapshot()
    store.close()


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    for url in (
        f"sqlite:///{tmp_path / 'no folder' / 'swapgate.db'}",
        f"postgresql://nobody@/nothing?host={tmp_path}",
    ):
        store = open_store(url)
        with pytest.raises(StoreUnavailable), store.write() as tx:
            tx.runs.store_sample(SAMPLE)
        with pytest.raises(StoreUnavailable):
            store.etag()
        assert not store.wait_for_change(0.05)
        store.close()


def test_a_released_schema_is_never_rewritten() -> None:
    folder = package_data.path("migrations") / "versions"
    digests = {name: sha256((folder / name).read_bytes()).hexdigest() for name in RELEASED}

    assert digests == RELEASED, "write another migration: databases have run this one"


@pytest.fixture(params=["sqlite", "postgresql"])
def first_release(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database as the first release left it, with a row in every table."""
    file = tmp_path / "first.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript(FIRST_RELEASE.read_text(encoding="utf-8"))
    if request.param == "sqlite":
        return f"sqlite:///{file}"
    url = str(request.getfixturevalue("empty_postgres_url"))
    migrate.upgrade(url, "0002")
    copy_rows(file, url)
    return url


def copy_rows(file: Path, url: str) -> None:
    """From SQLite to PostgreSQL, past its triggers and foreign keys."""
    tables = sa.MetaData()
    with connected(url) as db, closing(sqlite3.connect(file)) as source:
        db.execute(sa.text("SET LOCAL session_replication_role = replica"))
        tables.reflect(db)
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            db.execute(sa.delete(table))
            found = source.execute(f'SELECT * FROM "{table.name}"')  # noqa: S608 - our own table
            names = [column[0] for column in found.description]
            flags = {c.name for c in table.c if isinstance(c.type, sa.Boolean)}
            rows = [
                {k: bool(v) if k in flags else v for k, v in zip(names, row, strict=True)}
                for row in found
            ]
            db.execute(sa.insert(table), rows)


def rows_of(url: str) -> dict[str, int]:
    tables = sa.MetaData()
    with connected(url) as db:
        tables.reflect(db)
        return {
            table.name: db.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in tables.sorted_tables
        }


def test_a_database_of_the_first_release_is_brought_to_this_version(first_release: str) -> None:
    before = rows_of(first_release)
    assert min(before.values()) > 0

    migrate.upgrade(first_release)

    assert migrate.check(first_release) == []
    assert rows_of(first_release).items() >= before.items()
    with closing(open_store(first_release)) as store:
        assert store.signature_faults() == []
        assert "chat" in store.snapshot().table.routes


def test_minutes_from_before_there_were_sums_are_summed_up_by_the_upgrade(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by one that is interrupted and run again; and the way back needs no sums."""
    url = empty_database_url
    migrate.upgrade(url, "0019")
    ages = [timedelta(0), timedelta(minutes=1), timedelta(hours=3), timedelta(days=2)]
    minutes = [replace(TRAFFIC, minute=TRAFFIC.minute - age) for age in ages]
    add_minutes(url, minutes)

    sum_up_hour = traffic_backfill.sum_up_hour
    monkeypatch.setattr(migrate, "HELD_S", -1.0)  # an hour in each transaction

    def interrupted(db: sa.Connection) -> None:
        if db.scalar(sa.select(sa.func.count()).select_from(traffic_hour)):
            raise KeyboardInterrupt
        sum_up_hour(db)

    with monkeypatch.context() as patch:
        patch.setattr(traffic_backfill, "sum_up_hour", interrupted)
        with pytest.raises(KeyboardInterrupt):
            migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    assert requests_of(url) == 4 * TRAFFIC.requests
    migrate.upgrade(url)

    assert requests_of(url) == 4 * TRAFFIC.requests
    with connected(url) as db:
        hours, days = (
            db.scalar(sa.select(sa.func.count()).select_from(table))
            for table in (traffic_hour, traffic_day)
        )
        assert (hours, days) == (3, 2)
        assert traffic_backfill.is_complete(db)
    migrate.downgrade(url)
    add_minutes(url, [replace(TRAFFIC, worker="of the version before")])


def add_minutes(url: str, minutes: Sequence[TrafficMinute]) -> None:
    with connected(url) as db:
        db.execute(sa.insert(traffic), [traffic_to_row(minute) for minute in minutes])


def requests_of(url: str) -> int:
    with closing(open_store(url)) as store, store.read() as tx:
        [total] = tx.observations.totals(since=TRAFFIC.minute - timedelta(days=9))
    assert total.first == TRAFFIC.minute - timedelta(days=2)
    return total.requests
