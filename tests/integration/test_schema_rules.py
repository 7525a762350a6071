"""A rule of the right name that says something else is found by `db check` (A4)."""

from collections.abc import Iterator

import pytest

from harness.store import migrate
from tests.support.store.raw_rows import Database

pytestmark = [pytest.mark.req("F3"), pytest.mark.both_databases]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = Database(database_url)
    yield found
    found.engine.dispose()


def test_a_check_that_lets_everything_pass_is_found(
    database: Database, database_url: str
) -> None:
    assert migrate.check(database_url) == []
    if database.dialect == "sqlite":
        with database.engine.begin() as db:
            db.exec_driver_sql("PRAGMA writable_schema = ON")
            db.exec_driver_sql(
                "UPDATE sqlite_master SET sql = replace(sql, 'approver <> proposer', '1 = 1')"
                " WHERE name = 'proposal'"
            )
            db.exec_driver_sql("PRAGMA writable_schema = RESET")
    else:
        name = "ck_proposal_four_eyes"
        database.run(f"ALTER TABLE proposal DROP CONSTRAINT {name}")
        database.run(f"ALTER TABLE proposal ADD CONSTRAINT {name} CHECK (true)")

    said = "the rule ck_proposal_four_eyes of proposal is not this version's"
    assert migrate.check(database_url) == [said]


def test_an_index_that_holds_for_other_rows_is_found(
    database: Database, database_url: str
) -> None:
    database.run("DROP INDEX ux_rollout_live_route")
    database.run(
        "CREATE UNIQUE INDEX ux_rollout_live_route ON rollout (route) WHERE state = 'none'"
    )

    said = "the rule ux_rollout_live_route of rollout is not this version's"
    assert said in migrate.check(database_url)


def test_a_rule_that_is_gone_is_found(database: Database, database_url: str) -> None:
    database.run("DROP INDEX ux_rollout_live_route")

    said = "the rule ux_rollout_live_route of rollout is missing"
    assert said in migrate.check(database_url)
