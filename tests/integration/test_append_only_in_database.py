"""Raw SQL against what was measured, judged and decided: none of it changes afterwards."""

from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from harness.store import migrate
from tests.support.store.raw_rows import (
    AT,
    FIRST,
    MIDDLE,
    PROPOSAL,
    REFUSED,
    ROLLOUT,
    SAMPLE,
    Database,
    Row,
    baseline,
    fill,
    prepared,
)

pytestmark = [pytest.mark.req("F1", "F5"), pytest.mark.both_databases]


@pytest.fixture
def full(database: Database) -> Database:
    fill(database)
    return database


APPEND_ONLY: Mapping[str, str] = {
    "route_version": "actor = 'nobody'",
    "verdict": "outcome = 'passed'",
    "approval": "kind = 'canary'",
    "evidence": "target = 't_new'",
    "target": "model = 'another'",
    "audit_event": "actor = 'nobody'",
    "sample": "strict = 1.0",
    "route_fallback": "target = 't_new'",
    "waiver": "reason = 'better'",
    "suite": "items = 1",
    "block": "failures = 0",
}


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_nothing_is_changed_or_deleted_afterwards(full: Database, table: str) -> None:
    before = full.count(table)
    assert before > 0
    statements = [f"UPDATE {table} SET {APPEND_ONLY[table]}", f"DELETE FROM {table}"]  # noqa: S608
    if full.dialect == "postgresql":
        statements.append(f"TRUNCATE {table} CASCADE")
    for statement in statements:
        with pytest.raises(REFUSED, match="append_only"):
            full.run(statement)

    assert full.count(table) == before


# INSERT OR REPLACE deletes a row without firing its DELETE triggers. Only SQLite has it.
FORGED: Mapping[str, Row] = {
    "verdict": MIDDLE
    | {"id": "v_bad", "proposal": "p_1", "outcome": "passed"}
    | {"route": "a", "incumbent": "t_old", "candidate": "t_new"},
    "target": {
        "id": "t_old",
        "provider": "sim",
        "model": "another",
        "parameters": "{}",
        "request_patch": "{}",
    },
    "route_version": FIRST | {"actor": "nobody"},
    "evidence": baseline("e_old", "z", "t_new"),
    "proposal": PROPOSAL | {"id": "p_1", "proposer": "eve"},
    "rollout": ROLLOUT | {"id": "ro_2"},
}


@pytest.mark.parametrize("table", FORGED)
def test_a_forged_row_does_not_replace_the_true_one(sqlite_url: str, table: str) -> None:
    with prepared(sqlite_url) as database, pytest.raises(REFUSED):
        database.insert(table, FORGED[table], verb="INSERT OR REPLACE")


def test_a_second_sample_does_not_replace_the_first(sqlite_url: str) -> None:
    with prepared(sqlite_url) as database:
        fill(database)
        database.insert("sample", SAMPLE | {"strict": 1.0}, verb="INSERT OR REPLACE")

        with database.engine.connect() as db:
            assert db.execute(sa.text("SELECT strict FROM sample")).scalar_one() == 0.5


def test_audit_events_have_no_gaps_and_follow_the_chain(full: Database) -> None:
    event = {"at": AT, "actor": "eve", "action": "x", "subject": "y", "details": "{}"}
    for number, previous in ((3, "1" * 64), (1, "0" * 64), (2, "0" * 64)):
        forged = event | {"number": number, "previous": previous, "mac": "2" * 64}
        with pytest.raises(REFUSED):
            full.insert("audit_event", forged)

    full.insert("audit_event", event | {"number": 2, "previous": "1" * 64, "mac": "2" * 64})


def test_the_check_notices_a_broken_promise(database: Database, database_url: str) -> None:
    on = " ON verdict" if database.dialect == "postgresql" else ""
    assert migrate.check(database_url) == []
    database.run(f"DROP TRIGGER verdict_no_update{on}")

    assert migrate.check(database_url) == ["the trigger verdict_no_update is missing"]
