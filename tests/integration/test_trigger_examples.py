"""The database refuses each example of docs/reference/triggers.md with its trigger's words."""

from typing import Final

import pytest
import sqlalchemy as sa

from harness.app.store.guards import NEVER_EMPTIED, REFUSING
from tests.support.store.raw_rows import (
    AT,
    MIDDLE,
    POLICY,
    PROPOSAL,
    REFUSED,
    Database,
    Row,
    fill,
    prepared,
)

pytestmark = [pytest.mark.req("F1", "F5"), pytest.mark.both_databases]

LATER: Final = AT + 1_000_000
PERIOD: Final = {"created_at": AT, "expires_at": LATER}
# The rows that the examples name, beside those of `prepared` and `fill`.
ROWS: Final[tuple[tuple[str, Row], ...]] = (
    (
        "proposal",
        PROPOSAL
        | {
            "id": "p_2",
            "route": "b",
            "candidate": "t_third",
            "policy": POLICY.replace("automatic", "approved"),
        },
    ),
    (
        "verdict",
        MIDDLE
        | {
            "id": "v_2",
            "proposal": "p_2",
            "route": "b",
            "incumbent": "t_old",
            "candidate": "t_third",
            "outcome": "passed",
        },
    ),
    (
        "break_glass",
        PERIOD
        | {
            "id": "bg_1",
            "route": "a",
            "incumbent": "t_old",
            "target": "t_third",
            "reason": "outage",
            "through_freeze": False,
            "proposer": "local",
            "proposer_principal": "local",
            "confirm_by": LATER,
            "ended_because": "",
        },
    ),
    (
        "switch",
        {
            "id": "sw_1",
            "kind": "provider",
            "name": "sim",
            "reason": "outage",
            "actor": "ada",
            "created_at": AT,
            "source": "cli",
        },
    ),
    (
        "shadow",
        {
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
            "expires_at": LATER,
        },
    ),
    *(
        (
            "principal",
            {
                "id": f"pr_{name}",
                "kind": "person",
                "name": name,
                "folded": name,
                "created_at": AT,
            },
        )
        for name in ("ben", "eve")
    ),
    (
        "person_link",
        {
            "id": "pl_1",
            "principal": "pr_ben",
            "number": 1,
            "person": "pr_ben",
            "reason": "one person",
            "created_at": AT,
            "created_by": "ada",
        },
    ),
    (
        "api_key",
        {
            "id": "k_1",
            "name": "laptop",
            "hash": "1",
            "hint": "sg",
            "role": 4,
            "routes": "[]",
            "principal": "pr_ben",
            "created_at": AT,
        },
    ),
    (
        "dashboard_session",
        PERIOD
        | {
            "id": "ds_1",
            "principal": "pr_ben",
            "key": "k_1",
            "created_by": "ben",
            "cookie_hash": "1",
            "opened_at": AT,
        },
    ),
    (
        "manifest",
        {
            "id": 1,
            "epoch": 1,
            "revision": 3,
            "changes": 0,
            "digest": "0",
            "signed_at": AT,
            "signature": "0",
            "revoked": "",
            "log_end": "",
        },
    ),
    (
        "agent",
        {
            "id": "ag_1",
            "name": "helper",
            "model": "{}",
            "created_at": AT,
            "updated_at": AT,
            "description": "",
            "instructions": "",
            "tools": "[]",
            "data_class": "",
        },
    ),
    (
        "agent_switch",
        {
            "id": "as_1",
            "agent": "ag_1",
            "session": "se_1",
            "model_requested": "sim/t_new",
            "targets": '["t_new"]',
            "reason": "",
            "asked_at": AT,
            "expires_at": LATER,
            "for_children": False,
            "facts": "{}",
            "state": "pending",
            "decided_by": "",
            "decision_reason": "",
        },
    ),
    (
        "agent_grant",
        PERIOD
        | {
            "id": "gr_1",
            "agent": "ag_1",
            "target": "t_new",
            "target_name": "sim/t_new",
            "kind": "baseline",
            "granted_by": "ada",
            "reason": "r",
            "session": "",
            "data_class": "",
        },
    ),
    (
        "labelling",
        {
            "id": "lb_1",
            "proposal": "p_2",
            "suite": "s",
            "suite_digest": "d",
            "candidate": "t_third",
            "run": "r_1",
            "people": '["ben"]',
            "design": "{}",
            "items": "[]",
            "seed": "5eed",
            "author": "ben",
            "created_at": AT,
        },
    ),
    (
        "label_draw",
        {
            "labelling": "lb_1",
            "number": 1,
            "item": "i_1",
            "people": '["ben"]',
            "step": "{}",
            "at": AT,
        },
    ),
    (
        "label",
        {
            "id": "la_1",
            "labelling": "lb_1",
            "number": 1,
            "person": "ben",
            "choice": "tie",
            "preference": 0.5,
            "unacceptable": 0.0,
            "at": AT,
        },
    ),
    (
        "shadow_score",
        {
            "series": "sh_1",
            "number": 1,
            "shadow": "sh_1",
            "pair": "pair_1",
            "caller": "c",
            "reason": "judged",
            "low": 0.5,
            "high": 0.5,
            "calls": 2,
            "cost_usd": 0.0,
            "at": AT,
        },
    ),
)


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database)
    database.insert_all(*ROWS)
    return database


def answer(database: Database, statement: str) -> str:
    """Returns the database's refusal; an empty text if it takes the statement."""
    try:
        with database.engine.connect() as db:
            db.execute(sa.text(statement.replace(":", "\\:")))
    except REFUSED as error:
        return str(error.orig)
    return ""


def test_the_database_refuses_each_example_with_a_message_of_its_trigger(
    filled: Database,
) -> None:
    refusals = {trigger: answer(filled, trigger.statement) for trigger in REFUSING}
    unexpected = {
        trigger.name: refusal
        for trigger, refusal in refusals.items()
        if not any(message in refusal for message in trigger.messages)
    }
    assert unexpected == {}


def test_without_its_trigger_the_database_does_not_refuse_an_example_with_these_words(
    filled: Database,
) -> None:
    """Each example shows its own trigger, and not another trigger of the same table."""
    on_table = filled.dialect == "postgresql"
    shown_by_another = []
    for trigger in REFUSING:
        with filled.engine.connect() as db:
            where = f" ON {trigger.table}" if on_table else ""
            db.exec_driver_sql(f"DROP TRIGGER {trigger.name}{where}")
            try:
                db.execute(sa.text(trigger.statement.replace(":", "\\:")))
            except sa.exc.DBAPIError as error:
                refusal = str(error.orig)
                if any(message in refusal for message in trigger.messages):
                    shown_by_another.append(f"{trigger.name}: {refusal}")
            db.rollback()
    assert shown_by_another == []
    assert answer(filled, "DELETE FROM meta") != ""  # the rollbacks restored the triggers


def test_postgresql_empties_no_table_of_the_promise(postgres_url: str) -> None:
    with prepared(postgres_url) as database:
        for table in NEVER_EMPTIED:
            with pytest.raises(REFUSED, match=f"append_only: {table} is never emptied"):
                database.run(f"TRUNCATE {table} CASCADE")
