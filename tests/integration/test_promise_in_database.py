"""Raw SQL against the promise: no target in any role without proof (F1, A7).

Whoever has the database's password and writes around the harness meets the same refusals, on
SQLite and on PostgreSQL.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from harness.store import migrate
from harness.store.sql import engine

pytestmark = pytest.mark.req("F1", "A7")

Row = Mapping[str, Any]
REFUSED = sa.exc.IntegrityError

AT = 1_790_000_000_000_000
MIDDLE = {"suites": "[]", "inputs": "{}", "decided_at": AT, "expires_at": AT, "reason": "r"}
PROPOSAL = {
    "route": "a",
    "incumbent": "t_old",
    "candidate": "t_new",
    "claim": "superior",
    "reason": "",
    "proposer": "ada",
    "policy": "{}",
    "self_approval": False,
    "plans": "[]",
    "phase": "evaluating",
    "created_at": AT,
    "updated_at": AT,
    "runs": "{}",
    "infra_errors": 0,
    "closed_because": "",
    "version": 1,
}
ROLLOUT = {
    "proposal": "p_1",
    "route": "a",
    "incumbent": "t_old",
    "candidate": "t_new",
    "verdict": "v_ok",
    "policy": "{}",
    "salt": "s",
    "step": 0,
    "state": "waiting",
    "started_at": AT,
    "step_started_at": AT,
    "updated_at": AT,
    "ended_because": "",
    "version": 1,
}
VERSION = {
    "route": "a",
    "weight_bps": 0,
    "settings": "{}",
    "at": AT,
    "actor": "eve",
    "reason": "raw SQL",
}
FIRST = VERSION | {
    "version": 1,
    "revision": 1,
    "kind": "baseline",
    "incumbent": "t_old",
    "incumbent_evidence": "e_old",
}
NEXT = VERSION | {
    "version": 2,
    "revision": 3,
    "incumbent": "t_old",
    "incumbent_evidence": "e_old",
    "prev_version": 1,
    "prev_incumbent": "t_old",
}
ON = {"salt": "s", "rollout": "ro_1", "unit_rule": "{}", "weight_bps": 100}
PROOF = {"verdict_id": "v_ok", "verdict_candidate": "t_new", "verdict_outcome": "passed"}
CANARY = NEXT | ON | PROOF | {"kind": "canary", "canary": "t_new", "canary_evidence": "e_new"}
PROMOTION = (
    NEXT | PROOF | {"kind": "promotion", "incumbent": "t_new", "incumbent_evidence": "e_new"}
)
SETTINGS = NEXT | {"kind": "settings"}
SAMPLE = {
    "run": "r_1",
    "item": "i1",
    "epoch": 0,
    "position": 0,
    "answer": "x",
    "strict": 0.5,
    "lenient": 0.5,
    "input_tokens": 1,
    "output_tokens": 1,
    "cost_usd": 0.1,
    "duration_s": 0.1,
    "error_text": "",
    "served_model": "",
    "prompt": "",
    "rule": "",
}


class Database:
    """Statements as a person with a shell would type them; each is its own transaction."""

    def __init__(self, url: str) -> None:
        options, _ = engine.OPTIONS[engine.parse(url).get_backend_name()]
        self.engine = engine.make(engine.parse(url)).execution_options(**options)
        self.dialect = self.engine.dialect.name

    def run(self, statement: str, row: Row | None = None) -> None:
        with self.engine.begin() as db:
            db.execute(sa.text(statement), row or {})

    def insert(self, table: str, *rows: Row, verb: str = "INSERT") -> None:
        with self.engine.begin() as db:
            for row in rows:
                columns = ", ".join(row)
                values = ", ".join(f":{column}" for column in row)
                statement = f"{verb} INTO {table} ({columns}) VALUES ({values})"  # noqa: S608 - our own names
                db.execute(sa.text(statement), row)

    def count(self, table: str) -> int:
        with self.engine.connect() as db:
            return int(db.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Routes a and b with t_old as incumbent, verdicts for and against t_new."""
    db = Database(database_url)
    for target in ("t_old", "t_new", "t_third"):
        content = {
            "provider": "sim",
            "model": target,
            "parameters": "{}",
            "request_patch": "{}",
        }
        db.insert("target", {"id": target} | content)
    db.insert("proposal", PROPOSAL | {"id": "p_1"})
    for id_, route, incumbent, candidate, outcome in (
        ("v_ok", "a", "t_old", "t_new", "passed"),
        ("v_bad", "a", "t_old", "t_new", "failed"),
        ("v_other_route", "b", "t_old", "t_new", "passed"),
        ("v_other_incumbent", "a", "t_third", "t_new", "passed"),
        ("v_other_candidate", "a", "t_old", "t_third", "passed"),
    ):
        judged = {"route": route, "incumbent": incumbent, "candidate": candidate}
        whose = {"id": id_, "proposal": "p_1", "outcome": outcome}
        db.insert("verdict", MIDDLE | judged | whose)
    db.insert("evidence", baseline("e_old", "a", "t_old"), baseline("e_b", "b", "t_old"))
    db.insert("evidence", proven("e_new", "a", "t_new", "v_ok"))
    db.insert("route_version", FIRST)
    on_b = {"route": "b", "incumbent_evidence": "e_b", "revision": 2}
    db.insert("route_version", FIRST | on_b)
    yield db
    db.engine.dispose()


def baseline(id_: str, route: str, target: str) -> Row:
    return {"id": id_, "route": route, "target": target, "kind": "baseline", "created_at": AT}


def proven(id_: str, route: str, target: str, verdict: str, **changes: object) -> Row:
    proof = {
        "verdict_id": verdict,
        "verdict_incumbent": "t_old",
        "verdict_outcome": "passed",
    }
    return {**baseline(id_, route, target), "kind": "verdict", **proof, **changes}


def after_canary(**changes: object) -> Row:
    """The version after CANARY, with the canary still in it."""
    canary = ON | {"canary": "t_new", "canary_evidence": "e_new"}
    base = {"version": 3, "revision": 4, "prev_version": 2}
    return {**NEXT, **canary, **base, **changes}


GONE = {
    "canary": None,
    "canary_evidence": None,
    "weight_bps": 0,
    "salt": None,
    "rollout": None,
    "unit_rule": None,
}

LEGAL: Mapping[str, tuple[Row, ...]] = {
    "a canary with its verdict": (CANARY,),
    "a promotion with its verdict": (PROMOTION,),
    "a change of settings": (SETTINGS,),
    "a higher weight": (CANARY, after_canary(kind="weight", weight_bps=500)),
    "settings during a canary": (CANARY, after_canary(kind="settings")),
    "an abort": (CANARY, after_canary(kind="abort", **GONE)),
    "a promotion of the canary": (
        CANARY,
        after_canary(kind="promotion", **GONE, **PROOF)
        | {"incumbent": "t_new", "incumbent_evidence": "e_new"},
    ),
    "a restore of a former incumbent": (
        PROMOTION,
        NEXT
        | {"version": 3, "revision": 4, "prev_version": 2, "prev_incumbent": "t_new"}
        | {"kind": "restore"},
    ),
}


@pytest.mark.parametrize("what", LEGAL)
def test_the_database_accepts(database: Database, what: str) -> None:
    before = database.count("route_version")

    database.insert("route_version", *LEGAL[what])

    assert database.count("route_version") == before + len(LEGAL[what])


# What is done first (and accepted), then what must be refused.
ILLEGAL: Mapping[str, tuple[tuple[Row, ...], Row]] = {
    "a promotion without a verdict": (
        (),
        PROMOTION | dict.fromkeys(PROOF),
    ),
    "a promotion with the verdict's outcome left out": (
        (),
        PROMOTION | {"verdict_outcome": None},
    ),
    "a promotion with the verdict's candidate left out": (
        (),
        PROMOTION | {"verdict_candidate": None},
    ),
    "a promotion with the verdict's id left out": ((), PROMOTION | {"verdict_id": None}),
    "a promotion with a verdict that nobody made": (
        (),
        PROMOTION | {"verdict_id": "v_invented"},
    ),
    "a promotion with a failed verdict": (
        (),
        PROMOTION | {"verdict_id": "v_bad", "verdict_outcome": "failed"},
    ),
    "a promotion with a failed verdict called passed": (
        (),
        PROMOTION | {"verdict_id": "v_bad"},
    ),
    "a promotion with another route's verdict": (
        (),
        PROMOTION | {"verdict_id": "v_other_route"},
    ),
    "a promotion with a verdict against another incumbent": (
        (),
        PROMOTION | {"verdict_id": "v_other_incumbent"},
    ),
    "a promotion with another candidate's verdict": (
        (),
        PROMOTION | {"verdict_id": "v_other_candidate"},
    ),
    "a promotion of a target that the verdict does not name": (
        (),
        PROMOTION | {"incumbent": "t_third", "incumbent_evidence": "e_old"},
    ),
    "a promotion with another target's evidence": (
        (),
        PROMOTION | {"incumbent_evidence": "e_old"},
    ),
    "a promotion with the evidence left out": ((), PROMOTION | {"incumbent_evidence": None}),
    "a promotion called a change of settings": (
        (),
        SETTINGS | {"incumbent": "t_new", "incumbent_evidence": "e_new"},
    ),
    "a promotion called an abort": (
        (CANARY,),
        after_canary(kind="abort", **GONE)
        | {"incumbent": "t_new", "incumbent_evidence": "e_new"},
    ),
    "a promotion from a base that never was": (
        (),
        PROMOTION | {"prev_incumbent": "t_third", "verdict_id": "v_other_incumbent"},
    ),
    "a promotion with the base left out": ((), PROMOTION | {"prev_incumbent": None}),
    "a kind that does not exist": ((), PROMOTION | {"kind": "force"}),
    "a kind left out": ((), PROMOTION | {"kind": None}),
    "a second baseline": (
        (),
        PROMOTION | dict.fromkeys(PROOF) | {"kind": "baseline"},
    ),
    "a canary without a verdict": ((), CANARY | dict.fromkeys(PROOF)),
    "a canary with a failed verdict": ((), CANARY | {"verdict_id": "v_bad"}),
    "a canary of another target than the verdict's": (
        (),
        CANARY | {"canary": "t_third"},
    ),
    "a canary that is not named": ((), CANARY | {"canary": None}),
    "a canary without evidence": ((), CANARY | {"canary_evidence": None}),
    "a canary with a weight of zero": ((), CANARY | {"weight_bps": 0}),
    "a canary with more than all traffic": ((), CANARY | {"weight_bps": 10_001}),
    "a canary that changes the incumbent too": (
        (),
        CANARY | {"incumbent": "t_new", "incumbent_evidence": "e_new"},
    ),
    "a canary beside another": (
        (CANARY,),
        CANARY | {"version": 3, "revision": 4, "prev_version": 2},
    ),
    "a canary slipped into a change of settings": (
        (),
        SETTINGS | ON | {"canary": "t_new", "canary_evidence": "e_new"},
    ),
    "a weight without a canary": ((), NEXT | {"kind": "weight", "weight_bps": 100}),
    "a weight that starts a canary": (
        (),
        NEXT | ON | {"kind": "weight", "canary": "t_new", "canary_evidence": "e_new"},
    ),
    "a weight that falls": ((CANARY,), after_canary(kind="weight", weight_bps=50)),
    "a weight of another rollout": (
        (CANARY,),
        after_canary(kind="weight", weight_bps=500, rollout="ro_2"),
    ),
    "a weight with another salt": (
        (CANARY,),
        after_canary(kind="weight", weight_bps=500, salt="t"),
    ),
    "settings that drop the canary": ((CANARY,), after_canary(kind="settings", **GONE)),
    "an abort that keeps the canary": ((CANARY,), after_canary(kind="abort")),
    "an abort of nothing": ((), NEXT | {"kind": "abort"}),
    "a restore of a target that never was the incumbent": (
        (),
        NEXT | {"kind": "restore", "incumbent": "t_new", "incumbent_evidence": "e_new"},
    ),
    "a version skipped": (
        (),
        SETTINGS | {"version": 3, "prev_version": 1},
    ),
    "a version twice": ((SETTINGS,), SETTINGS | {"revision": 4}),
    "a revision skipped": ((), SETTINGS | {"revision": 9}),
    "a revision twice": ((), SETTINGS | {"revision": 2}),
    "a first version with a verdict for evidence": (
        (),
        FIRST | {"route": "c", "revision": 3, "incumbent_evidence": "e_new"},
    ),
    "a first version without evidence": (
        (),
        FIRST | {"route": "c", "revision": 3, "incumbent_evidence": "e_missing"},
    ),
}


@pytest.mark.parametrize("what", ILLEGAL)
def test_the_database_refuses(database: Database, what: str) -> None:
    first, refused = ILLEGAL[what]
    database.insert("route_version", *first)
    before = database.count("route_version")

    with pytest.raises(REFUSED):
        database.insert("route_version", refused)

    assert database.count("route_version") == before


WAIVER = {"id": "w_1", "route": "a", "target": "t_third", "expires_at": AT}
FALLBACK = {"route": "a", "version": 2, "position": 0}
BAD_EVIDENCE: Mapping[str, Row] = {
    "a baseline once the route has a version": baseline("e_late", "a", "t_new"),
    "a failed verdict": proven("e", "a", "t_new", "v_bad"),
    "a failed verdict that says so": proven(
        "e", "a", "t_new", "v_bad", verdict_outcome="failed"
    ),
    "another route's verdict": proven("e", "a", "t_new", "v_other_route"),
    "another candidate's verdict": proven("e", "a", "t_third", "v_ok"),
    "a verdict left out": proven("e", "a", "t_third", "v_ok", verdict_id=None),
    "an outcome left out": proven("e", "a", "t_third", "v_ok", verdict_outcome=None),
    "a waiver that nobody wrote": {
        **baseline("e", "a", "t_third"),
        "kind": "waiver",
        "waiver_id": "w_invented",
    },
    "a waiver left out": {**baseline("e", "a", "t_third"), "kind": "waiver"},
    "a kind of its own": {**baseline("e", "a", "t_third"), "kind": "trust me"},
}


@pytest.mark.parametrize("what", BAD_EVIDENCE)
def test_no_evidence_is(database: Database, what: str) -> None:
    with pytest.raises(REFUSED):
        database.insert("evidence", BAD_EVIDENCE[what])


@pytest.mark.parametrize(
    "bad", [{"reason": " "}, {"author": ""}, {"reason": None}, {"expires_at": None}]
)
def test_a_waiver_needs_reason_author_and_expiry(database: Database, bad: Row) -> None:
    with pytest.raises(REFUSED):
        database.insert("waiver", WAIVER | {"reason": "r", "author": "ada"} | bad)


def test_a_waived_fallback_is_accepted_and_serves_in_no_other_role(database: Database) -> None:
    waived = {**baseline("e_w", "a", "t_third"), "kind": "waiver", "waiver_id": "w_1"}
    database.insert("waiver", WAIVER | {"reason": "r", "author": "ada"})
    database.insert("evidence", waived)
    for refused in (
        SETTINGS | {"incumbent": "t_third", "incumbent_evidence": "e_w"},
        CANARY | {"canary": "t_third", "canary_evidence": "e_w"},
    ):
        with pytest.raises(REFUSED):
            database.insert("route_version", refused)

    with database.engine.begin() as db:
        for table, row in (
            ("route_fallback", FALLBACK | {"target": "t_third", "evidence": "e_w"}),
            ("route_version", SETTINGS),
        ):
            columns, values = ", ".join(row), ", ".join(f":{key}" for key in row)
            db.execute(sa.text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)  # noqa: S608


def test_a_fallback_needs_evidence_of_its_own_target_and_a_version(database: Database) -> None:
    for bad in (
        {"version": 2, "target": "t_third", "evidence": "e_missing"},
        {"version": 2, "target": "t_third", "evidence": "e_old"},
        {"version": 2, "target": "t_third", "evidence": None},
        # No such version follows: the deferred foreign key refuses at the commit.
        {"version": 2, "target": "t_new", "evidence": "e_new"},
        # That version is written, and its chain sealed.
        {"version": 1, "target": "t_new", "evidence": "e_new"},
    ):
        with pytest.raises(REFUSED):
            database.insert("route_fallback", FALLBACK | bad)
    assert database.count("route_fallback") == 0


def test_a_baseline_hoarded_before_the_first_version_is_worth_nothing_later(
    database: Database,
) -> None:
    database.insert("evidence", baseline("e_c", "c", "t_old"), baseline("e_x", "c", "t_new"))
    start_of_c = FIRST | {"route": "c", "revision": 3, "incumbent_evidence": "e_c"}
    database.insert("route_version", start_of_c)

    with pytest.raises(REFUSED):
        database.insert(
            "route_fallback",
            {"route": "c", "version": 2, "position": 0, "target": "t_new", "evidence": "e_x"},
        )


APPEND_ONLY: Mapping[str, str] = {
    "route_version": "actor = 'nobody'",
    "verdict": "outcome = 'passed'",
    "evidence": "target = 't_new'",
    "target": "model = 'another'",
    "audit_event": "actor = 'nobody'",
    "sample": "strict = 1.0",
    "route_fallback": "target = 't_new'",
    "waiver": "reason = 'better'",
    "suite": "items = 1",
    "block": "failures = 0",
}


@pytest.fixture
def full(database: Database) -> Database:
    """A row in each table that only grows."""
    run = {
        "id": "r_1",
        "suite": "s",
        "suite_digest": "d",
        "target": "t_old",
        "order_seed": "1",
        "epochs": 1,
        "wanted": 1,
        "state": "queued",
        "created_at": AT,
        "failures": 0,
        "message": "",
        "fingerprint": "f",
    }
    event = {"number": 1, "at": AT, "actor": "ada", "action": "x", "subject": "y"}
    chain = {"details": "{}", "previous": "0" * 64, "mac": "1" * 64}
    pin = {"digest": "d", "name": "s", "version": "1", "data_sha256": "0", "scorer": "x"}
    counts = dict.fromkeys(("units", "canary_units", "failures", "canary_failures"), 5)
    block = {"rollout": "ro_1", "number": 1, "worker": "w", "sequence": 1, "weight_bps": 1}
    database.insert("eval_run", run)
    database.insert("sample", SAMPLE)
    database.insert("audit_event", event | chain)
    database.insert("waiver", WAIVER | {"reason": "r", "author": "ada"})
    database.insert("suite", pin | {"template": "", "items": 9, "created_at": AT})
    times = {"missing": 0, "opened_at": AT, "closed_at": AT}
    database.insert("block", block | counts | times)
    with database.engine.begin() as db:
        for statement in (
            "INSERT INTO evidence (id, route, target, kind, created_at)"
            " VALUES ('e_c', 'c', 't_old', 'baseline', 1),"
            " ('e_c2', 'c', 't_third', 'baseline', 1)",
            "INSERT INTO route_fallback (route, version, position, target, evidence)"
            " VALUES ('c', 1, 0, 't_third', 'e_c2')",
            "INSERT INTO route_version (route, version, revision, kind, incumbent,"
            " incumbent_evidence, weight_bps, settings, at, actor, reason)"
            " VALUES ('c', 1, 3, 'baseline', 't_old', 'e_c', 0, '{}', 1, 'a', 'r')",
        ):
            db.execute(sa.text(statement))
    return database


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


def test_a_forged_row_does_not_replace_the_true_one(full: Database) -> None:
    if full.dialect == "postgresql":
        pytest.skip("only SQLite has INSERT OR REPLACE")
    forged = MIDDLE | {"id": "v_bad", "proposal": "p_1", "outcome": "passed"}
    judged = {"route": "a", "incumbent": "t_old", "candidate": "t_new"}
    content = {"provider": "sim", "parameters": "{}", "request_patch": "{}"}
    for table, row in (
        ("verdict", forged | judged),
        ("target", content | {"id": "t_old", "model": "another"}),
        ("route_version", FIRST | {"actor": "nobody"}),
        ("proposal", PROPOSAL | {"id": "p_1", "proposer": "eve"}),
        ("rollout", ROLLOUT | {"id": "ro_1"}),
        ("rollout", ROLLOUT | {"id": "ro_2"}),
    ):
        if table == "rollout" and row["id"] == "ro_1":
            full.insert(table, row)
            continue
        with pytest.raises(REFUSED):
            full.insert(table, row, verb="INSERT OR REPLACE")

    # A second sample or block is left out, whatever the verb.
    full.insert("sample", SAMPLE | {"strict": 1.0}, verb="INSERT OR REPLACE")
    with full.engine.connect() as db:
        assert db.execute(sa.text("SELECT strict FROM sample")).scalar_one() == 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"strict": 1.5},
        {"strict": -0.1},
        {"strict": float("nan")},
        {"strict": None},
        {"lenient": float("inf")},
        {"cost_usd": -1.0},
        {"cost_usd": float("inf")},
        {"error": "bad luck"},
        {"run": "r_unknown"},
    ],
)
def test_an_impossible_sample_is_refused(full: Database, bad: Row) -> None:
    with pytest.raises(REFUSED):
        full.insert("sample", SAMPLE | {"item": "i2"} | bad)


def test_the_proposer_cannot_approve(database: Database) -> None:
    approve = "UPDATE proposal SET version = version + 1, approver = :who WHERE id = 'p_1'"
    for statement in (
        approve,
        approve.replace("approver =", "self_approval = (1 = 1), approver ="),
        approve.replace("approver =", "proposer = 'bob', approver ="),
    ):
        with pytest.raises(REFUSED):
            database.run(statement, {"who": "ada"})

    database.run(approve, {"who": "bob"})


def test_a_registration_is_not_rewritten(database: Database) -> None:
    for change in ("candidate = 't_third'", "policy = '[]'", "plans = '[1]'", "route = 'b'"):
        with pytest.raises(REFUSED, match="registered"):
            database.run(f"UPDATE proposal SET version = version + 1, {change}")  # noqa: S608
    with pytest.raises(REFUSED, match="version_follows"):
        database.run("UPDATE proposal SET phase = 'promoted'")


def test_a_route_has_one_open_proposal_and_one_live_rollout(database: Database) -> None:
    with pytest.raises(REFUSED):
        database.insert("proposal", PROPOSAL | {"id": "p_2"})
    database.insert("rollout", ROLLOUT | {"id": "ro_1"})
    with pytest.raises(REFUSED):
        database.insert("rollout", ROLLOUT | {"id": "ro_2", "state": "paused"})

    database.insert("proposal", PROPOSAL | {"id": "p_3", "phase": "rejected"})
    database.insert("rollout", ROLLOUT | {"id": "ro_3", "state": "rolled_back"})


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
