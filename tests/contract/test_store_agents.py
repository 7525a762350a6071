from dataclasses import replace

import pytest
import sqlalchemy as sa

from harness.agents.message import IdempotencyKey, MessageState
from harness.agents.records import (
    AgentGrants,
    Agents,
    SessionMessages,
    Sessions,
    SwitchRequests,
)
from harness.app.store.store import Store
from harness.app.store.tables import metadata
from harness.frame.errors import NotFound
from harness.frame.records.transaction import RowRefused
from harness.routing.agent import SessionState
from tests.contract.conftest import Opener
from tests.support.store.agent_records import (
    AGENT,
    ANSWERING,
    APPROVED,
    REQUEST,
    SESSION,
    answer,
    message,
    with_agent,
)
from tests.support.store.records import LATER, NOW
from tests.support.store.tampering import insert, row, written

pytestmark = [pytest.mark.req("E1", "E2"), pytest.mark.both_databases]


@pytest.fixture
def agents(store: Store) -> Store:
    return with_agent(store)


def filled(store: Store) -> None:
    """A session whose first turn has ended, with an answer under way in the second."""
    with_agent(store)
    ended = answer(state=MessageState.COMPLETE, done_at=NOW, content="To billing.")
    with store.write() as tx:
        SessionMessages(tx).add(message())
        SessionMessages(tx).add(answer())
        SessionMessages(tx).end(ended)
        Sessions(tx).save_turn(replace(SESSION, turn="tu_2"))
        SessionMessages(tx).add(message(3, turn="tu_2"))
        SessionMessages(tx).add(answer(4, turn="tu_2"))
        SwitchRequests(tx).add(REQUEST)
        AgentGrants(tx).add(ANSWERING)
        SwitchRequests(tx).decide(APPROVED)
        SwitchRequests(tx).add(replace(REQUEST, id="sw_2"))


REFUSED = [
    (
        "UPDATE agent_message SET state = 'complete' WHERE position = 4",
        "done_when",
    ),
    # A switch is decided by somebody, in time, once.
    (
        "UPDATE agent_switch SET targets = '[\"sim/x\"]' WHERE id = 'sw_2'",
        "append_only",
    ),
    (
        "UPDATE agent_switch SET reason = 'better' WHERE id = 'sw_1'",
        "append_only",
    ),
    (
        "UPDATE agent_switch SET decided_by = 'eve' WHERE id = 'sw_1'",
        "append_only",
    ),
    (
        (
            "UPDATE agent_switch SET state = 'pending', decided_at = NULL, decided_by = ''"
            " WHERE id = 'sw_1'"
        ),
        "append_only",
    ),
    (
        (
            "UPDATE agent_switch SET state = 'approved', decided_at = asked_at,"
            " decided_by = 'eve' WHERE id = 'sw_2'"
        ),
        "grant_missing",
    ),
    (
        "UPDATE agent_switch SET state = 'rejected', decided_at = asked_at WHERE id = 'sw_2'",
        "decided_by_whom",
    ),
    (
        "UPDATE agent_switch SET state = 'expired' WHERE id = 'sw_2'",
        "decided_when",
    ),
    ("DELETE FROM agent_switch", "append_only"),
    # A grant is only ever revoked.
    ("UPDATE agent_grant SET expires_at = expires_at + 1", "append_only"),
    ("UPDATE agent_grant SET revoked_at = 1, session = NULL", "append_only"),
    ("DELETE FROM agent_grant", "append_only"),
]


@pytest.mark.req("C4", "F1")
def test_the_database_refuses_what_must_never_happen(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)

    for statement, rule in REFUSED:
        with pytest.raises(RowRefused, match=rule), store.write() as tx:
            tx.write(sa.text(statement))


COPIES: list[tuple[str, dict[str, object], dict[str, object], str]] = [
    (
        "agent_message",
        {"position": 3},
        {"id": "x"},
        "pk_agent_message|agent_message.session",
    ),
    (
        "agent_session",
        {},
        {"id": "se_2", "parent": "se_9"},
        "_parent|FOREIGN",
    ),
    ("agent_session", {}, {"id": "se_2", "agent": "ag_9"}, "_agent|FOREIGN"),
    ("agent_switch", {"id": "sw_1"}, {"id": "sw_3"}, "switch_asked"),
    (
        "agent_switch",
        {"id": "sw_2"},
        {"id": "sw_3", "expires_at": NOW},
        "expires_later",
    ),
    (
        "agent_grant",
        {},
        {"id": "gr_3", "expires_at": NOW},
        "expires_later|switch_missing",
    ),
    (
        "agent_grant",
        {},
        {"id": "gr_3", "request": None},
        "request_of_a_switch",
    ),
    ("agent_grant", {}, {"id": "gr_3"}, "switch_missing"),
    (
        "agent_grant",
        {},
        {
            "id": "gr_3",
            "request": None,
            "kind": "change",
            "session": "",
            "reason": " ",
        },
        "reason_not_blank",
    ),
]


@pytest.mark.req("C4", "F1")
def test_the_database_refuses_a_row_that_must_never_be(sql_stores: Opener) -> None:
    store = sql_stores()
    filled(store)

    for table, key, change, rule in COPIES:
        with store.read() as tx:
            values = row(tx.db, table, **key) | change
        with (
            pytest.raises(sa.exc.IntegrityError, match=rule),
            written(store) as db,
        ):
            insert(db, table, values)


def test_no_row_is_put_in_the_place_of_another(sqlite_stores: Opener) -> None:
    """INSERT OR REPLACE deletes without a trigger. Only SQLite has it."""
    store = sqlite_stores()
    filled(store)
    for table in ("agent_grant", "agent_switch"):
        known = metadata.tables[table]
        with store.read() as tx:
            values = tx.read(sa.select(known).limit(1)).one()._asdict()
        replaced = sa.insert(known).values(**values).prefix_with("OR REPLACE")
        with pytest.raises(sa.exc.IntegrityError), written(store) as db:
            db.execute(replaced)


def test_a_message_is_found_by_its_session_client_and_key(agents: Store) -> None:
    sent = IdempotencyKey("k_1", "a", "hash")
    with agents.write() as tx:
        SessionMessages(tx).add(message(sent=sent))
        SessionMessages(tx).store_answer(SESSION.id, SESSION.turn, "{}")
        for other in (replace(sent, client="k_2"), replace(sent, key="b")):
            assert SessionMessages(tx).find_by_key(SESSION.id, other) is None
        assert SessionMessages(tx).find_by_key("se_2", sent) is None
        found = SessionMessages(tx).find_by_key(SESSION.id, replace(sent, request_hash="x"))
        assert found == message(sent=sent, kept="{}")


def test_a_closed_session_is_deleted_with_all_that_is_its_own(agents: Store) -> None:
    with agents.write() as tx:
        SessionMessages(tx).add(message())
        Sessions(tx).save(replace(SESSION, state=SessionState.CLOSED))
    with agents.write() as tx:
        Sessions(tx).delete(SESSION.id)
        assert SessionMessages(tx).list(SESSION.id) == []
        Agents(tx).save(replace(AGENT, deleted_at=NOW))
        assert Agents(tx).forget(NOW) == 0
        assert Agents(tx).forget(LATER) == 1
        with pytest.raises(NotFound):
            Agents(tx).get(AGENT.id)
