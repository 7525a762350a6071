import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from harness.app.store import migrate
from harness.app.store.schema_revisions import REVISION
from harness.app.store.tables import metadata
from harness.frame.database import engine
from harness.frame.errors import StoreUnavailable
from harness.interfaces.cli.program import program

pytestmark = pytest.mark.both_databases


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


def test_an_upgrade_leads_to_the_tables(empty_database_url: str) -> None:
    url = empty_database_url

    migrate.upgrade(url)
    assert migrate.compare_schema(url) == migrate.SchemaState(REVISION, REVISION, ())
    assert names(url) == {*metadata.tables, "alembic_version"}


def test_several_may_upgrade_at_once(empty_database_url: str) -> None:
    start = threading.Barrier(3)

    def upgrade() -> None:
        start.wait()
        migrate.upgrade(empty_database_url)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(upgrade) for _ in range(3)]:
            future.result()

    assert migrate.list_differences(empty_database_url) == []


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

    (difference,) = migrate.list_differences(database_url)
    assert "surplus" in difference


def test_an_interrupted_upgrade_leaves_the_database_as_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sa.Connection, "commit", interrupted)
        patch.setattr(sa.engine.base.RootTransaction, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            migrate.upgrade(empty_database_url)

    assert names(empty_database_url) == set()


def test_the_folder_of_a_new_sqlite_file_is_created(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a folder' / 'with 100 %' / 'swapproof.db'}"
    migrate.upgrade(url)

    assert migrate.list_differences(url) == []


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailable, match="file"):
        migrate.upgrade(f"sqlite:///{tmp_path / 'file' / 'swapproof.db'}")


def set_revision(url: str, revision: str) -> None:
    with connected(url) as db:
        update = sa.text("UPDATE alembic_version SET version_num = :revision")
        db.execute(update, {"revision": revision})


# What an earlier commit left behind: another revision, no revision, other columns.
EARLIER = {
    "revision": "UPDATE alembic_version SET version_num = '0023'",
    "no revision": "DELETE FROM alembic_version",
    "no table of revisions": "DROP TABLE alembic_version",
    "a table less": "DROP TABLE observation_batch",
    "a column less": "ALTER TABLE observation_batch RENAME COLUMN at TO retired",
    "a column more": "DROP TABLE observation_batch; "
    "CREATE TABLE observation_batch (id TEXT, at BIGINT, retired TEXT NOT NULL)",
}


@pytest.mark.req("F3")
@pytest.mark.parametrize("change", EARLIER)
def test_a_database_from_before_the_first_release_is_refused_and_stays(
    database_url: str,
    tmp_path: Path,
    change: str,
) -> None:
    with connected(database_url) as db:
        for statement in EARLIER[change].split("; "):
            db.execute(sa.text(statement))
    before = dump(database_url)
    config = tmp_path / "swapproof.yaml"
    config.write_text(f"home: {tmp_path / 'home'}\ndatabase_url: {database_url}\n")

    commands = (
        ["db", "upgrade"],
        ["init"],
        ["db", "check"],
        ["audit", "verify"],
        ["serve", "all"],
        ["serve", "agents"],
    )
    for words in commands if change == "revision" else commands[:1]:
        done = CliRunner().invoke(program, ["--config", str(config), *words])

        assert done.exit_code == 1, words
        assert "the database is from before 0.1.0" in done.stderr, words
        assert "For a new installation" in done.stderr, words
    assert dump(database_url) == before


def dump(url: str) -> dict[str, list[str]]:
    tables = sa.MetaData()
    with connected(url) as db:
        tables.reflect(db)
        return {
            f"{table.name} {table.columns.keys()}": sorted(
                map(repr, db.execute(sa.select(table)).all())
            )
            for table in tables.sorted_tables
        }
