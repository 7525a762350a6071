"""What somebody with DML alone tries against the promise, on both databases.

What SQLite cannot hold, switches that every connection sets for itself, is in the last test.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Final

import pytest
import sqlalchemy as sa

from harness.app.store import migrate
from harness.app.store.tables import metadata
from harness.frame.database import engine
from tests.support.store.raw_rows import (
    APPROVAL,
    AT,
    CANARY,
    EXPIRES,
    FIRST,
    MIDDLE,
    NEXT,
    ON,
    POLICY,
    PROMOTION,
    PROPOSAL,
    REFUSED,
    ROLLOUT,
    SAMPLE,
    Database,
    Row,
    baseline,
    fill,
    prepared,
    proven,
)

pytestmark = [pytest.mark.req("F1", "F5", "A7"), pytest.mark.both_databases]

ASKING: Final = POLICY.replace("automatic", "approved")
LATER: Final = {
    "version": 3,
    "revision": 4,
    "prev_version": 2,
}
WEIGHT: Final = (
    NEXT
    | ON
    | LATER
    | {
        "kind": "weight",
        "canary": "t_new",
        "canary_evidence": "e_new",
        "weight_bps": 500,
    }
)
AT_THE_END: Final = LATER | {
    "version": 4,
    "revision": 5,
    "prev_version": 3,
}


def wordless(
    db: Database,
    *,
    policy: str = POLICY,
    widened: str = "{}",
    **verdict: int,
) -> tuple[Row, Row]:
    """Another proposal, t_third's, for which nobody gave his word: its canary and promotion.

    Its evidence is there where the database takes it without that word.
    """
    candidate = {"candidate": "t_third"}
    proposal = {
        "id": "p_2",
        "phase": "promoted",
        "policy": policy,
        "widened": widened,
    }
    db.insert("proposal", PROPOSAL | candidate | proposal)
    judged = {
        "id": "v_2",
        "proposal": "p_2",
        "route": "a",
        "incumbent": "t_old",
    }
    db.insert(
        "verdict",
        MIDDLE | judged | candidate | {"outcome": "passed"} | verdict,
    )
    if (policy, widened) == (POLICY, "{}"):
        db.insert("evidence", proven("e_2", "a", "t_third", "v_2"))
    db.run("UPDATE rollout SET state = 'rolled_back', version = version + 1")
    started = {
        "id": "ro_2",
        "proposal": "p_2",
        "verdict": "v_2",
    }
    db.insert("rollout", ROLLOUT | candidate | started)
    proof = {"verdict_id": "v_2", "verdict_candidate": "t_third"}
    opened = {
        "canary": "t_third",
        "canary_evidence": "e_2",
        "rollout": "ro_2",
    }
    promoted = {"incumbent": "t_third", "incumbent_evidence": "e_2"}
    return CANARY | proof | opened, PROMOTION | proof | promoted


def step_on(db: Database, state: str = "waiting") -> None:
    db.run(
        "UPDATE rollout SET step = step + 1, state = :state, version = version + 1"
        " WHERE state <> 'rolled_back'",
        {"state": state},
    )


def test_a_promotion_without_its_canary_s_steps_is_refused(database: Database) -> None:
    canary, promotion = wordless(database)
    with pytest.raises(REFUSED, match="last_step"):
        database.insert(
            "route_version",
            promotion
            | {
                "version": 2,
                "prev_version": 1,
                "revision": 3,
            },
        )
    database.insert("route_version", canary)
    with pytest.raises(REFUSED, match="last_step"):
        database.insert("route_version", promotion)


def test_a_promotion_after_its_canary_s_last_step_needs_nobody(database: Database) -> None:
    canary, promotion = wordless(database)
    second = {key: canary[key] for key in ("canary", "canary_evidence", "rollout")}
    database.insert("route_version", canary, WEIGHT | second)
    step_on(database)
    with pytest.raises(REFUSED, match="last_step"):
        database.insert("route_version", promotion | AT_THE_END)
    database.run(
        "UPDATE rollout SET state = 'measuring', version = version + 1 WHERE id = 'ro_2'"
    )
    database.insert("route_version", promotion | AT_THE_END)


def test_a_rollout_is_not_moved_past_what_the_route_serves(database: Database) -> None:
    database.insert("route_version", CANARY)
    for forged in (
        "step = 1",
        "step = 2",
        "step = -1",
        "policy = '{}'",
        "verdict = 'v_bad'",
    ):
        with pytest.raises(REFUSED, match=r"next_step|registered"):
            database.run(f"UPDATE rollout SET version = version + 1, {forged}")  # noqa: S608
    with pytest.raises(REFUSED, match="version_follows"):
        database.run("UPDATE rollout SET state = 'measuring'")
    with pytest.raises(REFUSED, match="next_step"):
        database.insert("route_version", WEIGHT | {"weight_bps": 10_000})
    database.insert("route_version", WEIGHT)
    step_on(database)


def test_what_was_rolled_back_does_not_come_back(database: Database) -> None:
    database.run("UPDATE rollout SET state = 'rolled_back', version = version + 1")
    with pytest.raises(REFUSED, match="ended"):
        database.run("UPDATE rollout SET state = 'waiting', version = version + 1")
    for table in ("rollout", "proposal"):
        with pytest.raises(REFUSED, match=r"never deleted|violates foreign key"):
            database.run(f"DELETE FROM {table}")  # noqa: S608


@pytest.mark.parametrize("asks", [{"policy": ASKING}, {"widened": '{"gate.margin": 1}'}])
def test_what_waits_for_a_person_is_no_evidence_without_one(
    database: Database, asks: dict[str, str]
) -> None:
    wordless(
        database,
        policy=asks.get("policy", POLICY),
        widened=asks.get("widened", "{}"),
    )
    evidence = proven("e_2", "a", "t_third", "v_2")
    with pytest.raises(REFUSED, match="approval_missing"):
        database.insert("evidence", evidence)
    word = APPROVAL | {
        "id": "a_2",
        "proposal": "p_2",
        "verdict": "v_2",
    }
    database.insert("approval", word | {"id": "a_3", "kind": "promotion"})
    with pytest.raises(REFUSED, match="approval_missing"):
        database.insert("evidence", evidence)
    database.insert("approval", word)
    database.insert("evidence", evidence)


def test_a_policy_that_asks_for_a_person_opens_nothing_without_one(database: Database) -> None:
    canary, _ = wordless(database, policy=ASKING)
    # As of a version whose evidence had no such rule.
    database.run(
        "DROP TRIGGER evidence_approval_guard"
        + (" ON evidence" if database.dialect == "postgresql" else "")
    )
    database.insert("evidence", proven("e_2", "a", "t_third", "v_2"))
    with pytest.raises(REFUSED, match="approval_missing"):
        database.insert("route_version", canary)
    word = APPROVAL | {
        "id": "a_2",
        "proposal": "p_2",
        "verdict": "v_2",
    }
    for forged, why in (
        ({"name": PROPOSAL["proposer"]}, "four_eyes"),
        ({"verdict": "v_ok"}, "approval_of_verdict"),
    ):
        with pytest.raises(REFUSED, match=why):
            database.insert("approval", word | forged)
    database.insert("approval", word | {"id": "a_3", "kind": "promotion"})
    with pytest.raises(REFUSED, match="approval_missing"):
        database.insert("route_version", canary)
    database.insert("approval", word)
    database.insert("route_version", canary)


def test_a_verdict_opens_nothing_after_it_expired_or_before_it_was_decided(
    database: Database,
) -> None:
    for at, why in (
        (EXPIRES, "verdict_expired"),
        (AT - 1, "verdict_expired|time_follows"),
    ):
        with pytest.raises(REFUSED, match=why):
            database.insert("route_version", CANARY | {"at": at})


def test_a_canary_is_not_dated_back_before_the_version_it_follows(database: Database) -> None:
    canary, _ = wordless(database, decided_at=AT - 10)
    with pytest.raises(REFUSED, match="time_follows"):
        database.insert("route_version", canary | {"at": AT - 1})
    database.insert("route_version", canary)


def test_a_verdict_is_used_once(database: Database) -> None:
    database.insert("route_version", CANARY)
    gone = dict.fromkeys(("canary", "canary_evidence", "salt", "rollout", "unit_rule"))
    database.insert(
        "route_version",
        NEXT | LATER | gone | {"kind": "abort", "weight_bps": 0},
    )
    with pytest.raises(REFUSED, match="verdict_used"):
        database.insert("route_version", CANARY | AT_THE_END)


def test_a_canary_opens_with_its_rollout_at_its_first_step(database: Database) -> None:
    for weight_bps in (101, 10_000):
        with pytest.raises(REFUSED, match="first_step"):
            database.insert("route_version", CANARY | {"weight_bps": weight_bps})
    for other in ({"rollout": "ro_none"}, {"salt": "t"}):
        with pytest.raises(REFUSED, match="first_step"):
            database.insert("route_version", CANARY | other)


def test_a_temporary_table_of_the_same_name_fools_no_trigger(postgres_url: str) -> None:
    restore = NEXT | {
        "kind": "restore",
        "incumbent": "t_new",
        "incumbent_evidence": "e_new",
    }
    columns = ", ".join(restore)
    values = ", ".join(f":{column}" for column in restore)
    with prepared(postgres_url) as database, database.engine.connect() as db:
        db.exec_driver_sql("CREATE TEMP TABLE route_version AS TABLE public.route_version")
        db.exec_driver_sql(
            "INSERT INTO pg_temp.route_version"
            " SELECT 'a', 0, 0, kind, 't_new', 'e_new'"
            " FROM public.route_version LIMIT 1"
        )
        forged = sa.text(f"INSERT INTO public.route_version ({columns}) VALUES ({values})")  # noqa: S608
        with pytest.raises(REFUSED, match="never_incumbent"):
            db.execute(forged, restore)


def test_every_trigger_function_has_a_fixed_search_path(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.engine.connect() as db:
        found = db.execute(
            sa.text(
                "SELECT proname, proconfig FROM pg_proc WHERE prorettype = 'trigger'::regtype"
                " AND pronamespace = 'public'::regnamespace"
            )
        ).all()
    database.engine.dispose()
    assert len(found) > 20
    loose = [
        name for name, config in found if config != ["search_path=pg_catalog, public, pg_temp"]
    ]
    assert loose == []


def test_every_table_of_sqlite_is_strict_and_has_no_rowid(sqlite_url: str) -> None:
    with closing(sqlite3.connect(engine.file_of(engine.parse(sqlite_url)))) as db:
        loose = db.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
            " AND name NOT LIKE 'sqlite_%' AND NOT (strict AND wr)"
        ).fetchall()
    assert loose == [("alembic_version",)]
    assert all(len(table.primary_key.columns) for table in metadata.sorted_tables)


# INSERT OR REPLACE deletes a row without firing its DELETE triggers. Only SQLite has it.
FORGED: Mapping[str, Row] = {
    "verdict": MIDDLE
    | {
        "id": "v_bad",
        "proposal": "p_1",
        "outcome": "passed",
    }
    | {
        "route": "a",
        "incumbent": "t_old",
        "candidate": "t_new",
    },
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


def test_a_forged_row_does_not_replace_the_true_one(sqlite_url: str) -> None:
    with prepared(sqlite_url) as database:
        fill(database)
        for table, forged in FORGED.items():
            with pytest.raises(REFUSED):
                database.insert(table, forged, verb="INSERT OR REPLACE")
        database.insert("sample", SAMPLE | {"strict": 1.0}, verb="INSERT OR REPLACE")
        with database.engine.connect() as db:
            assert db.execute(sa.text("SELECT strict FROM sample")).scalar_one() == 0.5


REPLACED: Mapping[str, str] = {
    "an open proposal": (
        "UPDATE OR REPLACE proposal SET phase = 'canary', version = version + 1"
        " WHERE id = 'p_9'"
    ),
    "a live rollout": (
        "UPDATE OR REPLACE rollout SET route = 'a', version = version + 1 WHERE id = 'ro_9'"
    ),
    "a version by its revision": (
        "UPDATE OR REPLACE route_version SET revision = 1 WHERE route = 'b'"
    ),
    "a proposal by its key": (
        "UPDATE OR REPLACE proposal SET id = 'p_1', version = version + 1 WHERE id = 'p_9'"
    ),
    "a live shadow": (
        "INSERT OR REPLACE INTO shadow (id, route, incumbent, candidate, data_class, share_bps,"
        " at_once, requests_per_day, reason, started_by, started_at, expires_at)"
        " SELECT 'sh_2', route, incumbent, candidate, data_class, share_bps,"
        " at_once, requests_per_day, reason, started_by, started_at, expires_at FROM shadow"
    ),
}
SHADOW: Final = {
    "id": "sh_1",
    "route": "a",
    "incumbent": "t_old",
    "candidate": "t_new",
    "data_class": "",
    "share_bps": 1,
    "at_once": 1,
    "requests_per_day": 1,
    "reason": "r",
    "started_by": "ada",
    "started_at": AT,
    "expires_at": AT + 1,
}


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_or_replace_puts_nothing_in_the_place_of_a_row(sqlite_url: str, recursive: str) -> None:
    tables = ("proposal", "rollout", "route_version", "shadow")
    with prepared(sqlite_url) as database:
        database.insert("proposal", PROPOSAL | {"id": "p_9", "phase": "rejected"})
        other = {
            "id": "ro_9",
            "verdict": "v_other_incumbent",
            "state": "paused",
            "route": "c",
        }
        database.insert("rollout", ROLLOUT | other)
        database.insert("shadow", SHADOW)
        before = [database.count(table) for table in tables]
        with closing(sqlite3.connect(engine.file_of(engine.parse(sqlite_url)))) as db:
            db.execute(f"PRAGMA recursive_triggers = {recursive}")
            for statement in REPLACED.values():
                with pytest.raises(sqlite3.IntegrityError):
                    db.execute(statement)
        assert [database.count(table) for table in tables] == before


def test_without_foreign_keys_and_checks_there_is_still_no_promotion_without_its_verdict(
    sqlite_url: str,
) -> None:
    """Both are switches of a connection; triggers and STRICT have none in SQL."""
    with prepared(sqlite_url) as database:
        database.insert("route_version", CANARY)
    forged = PROMOTION | {
        "verdict_id": "v_none",
        "incumbent_evidence": "e_none",
    }
    columns = ", ".join(forged)
    values = ", ".join(f":{column}" for column in forged)
    evidence = proven("e_none", "a", "t_new", "v_none")
    with closing(sqlite3.connect(engine.file_of(engine.parse(sqlite_url)))) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        with pytest.raises(sqlite3.IntegrityError, match="proof_missing"):
            db.execute(
                f"INSERT INTO evidence ({', '.join(evidence)})"  # noqa: S608
                f" VALUES ({', '.join(f':{column}' for column in evidence)})",
                evidence,
            )
        with pytest.raises(sqlite3.IntegrityError, match="_missing"):
            db.execute(f"INSERT INTO route_version ({columns}) VALUES ({values})", forged)  # noqa: S608
        with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT"):
            db.execute("UPDATE rollout SET version = '2x'")


def test_the_check_names_a_trigger_that_says_something_else(
    database: Database, database_url: str
) -> None:
    assert migrate.list_differences(database_url) == []
    if database.dialect == "postgresql":
        database.run(
            "CREATE OR REPLACE FUNCTION verdict_no_update() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RETURN NEW; END'"
        )
        database.run("ALTER TABLE evidence DISABLE TRIGGER evidence_guard")
        database.run(
            "CREATE TRIGGER a_new_one BEFORE INSERT ON sample FOR EACH ROW"
            " EXECUTE FUNCTION no_truncate()"
        )
    else:
        database.run("DROP TRIGGER verdict_no_update")
        database.run(
            "CREATE TRIGGER verdict_no_update BEFORE UPDATE ON verdict BEGIN SELECT 1; END"
        )
        database.run("DROP TRIGGER evidence_guard")
        database.run("CREATE TRIGGER a_new_one BEFORE INSERT ON sample BEGIN SELECT 1; END")

    assert migrate.list_differences(database_url) == [
        "the trigger evidence_guard is missing",
        "the trigger verdict_no_update is not this version's",
        "the trigger a_new_one of sample is not Swapproof's",
    ]
    migrate.upgrade(database_url)
    assert migrate.list_differences(database_url) == [
        "the trigger a_new_one of sample is not Swapproof's"
    ]


@pytest.mark.req("F3")
def test_the_check_names_a_rule_that_says_something_else_or_is_gone(
    database: Database, database_url: str
) -> None:
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
    changed = "the rule ck_proposal_four_eyes of proposal is not this version's"
    assert migrate.list_differences(database_url) == [changed]

    database.run("DROP INDEX ux_rollout_live_route")
    assert "the rule ux_rollout_live_route of rollout is missing" in migrate.list_differences(
        database_url
    )
    database.run(
        "CREATE UNIQUE INDEX ux_rollout_live_route ON rollout (route) WHERE state = 'none'"
    )
    other = "the rule ux_rollout_live_route of rollout is not this version's"
    assert other in migrate.list_differences(database_url)
