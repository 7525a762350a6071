"""Raw SQL against the promise: no target in any role without proof (F1, A7).

Whoever has the database's password and writes around the harness meets the same refusals, on
SQLite and on PostgreSQL.
"""

from collections.abc import Mapping

import pytest

from tests.support.store.raw_rows import (
    AT,
    CANARY,
    FIRST,
    NEXT,
    ON,
    PROMOTION,
    PROOF,
    REFUSED,
    SETTINGS,
    WAIVER,
    Database,
    Row,
    baseline,
    fill,
    proven,
)

pytestmark = [
    pytest.mark.req("F1", "F3", "F5", "A7"),
    pytest.mark.both_databases,
]


def after_canary(**changes: object) -> Row:
    """The version after CANARY, with the canary still in it."""
    canary = ON | {"canary": "t_new", "canary_evidence": "e_new"}
    base = {
        "version": 3,
        "revision": 4,
        "prev_version": 2,
    }
    return {
        **NEXT,
        **canary,
        **base,
        **changes,
    }


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
    "a promotion with its verdict": (CANARY, PROMOTION),
    "a change of settings": (SETTINGS,),
    "a higher weight": (CANARY, after_canary(kind="weight", weight_bps=500)),
    "settings during a canary": (CANARY, after_canary(kind="settings")),
    "an abort": (CANARY, after_canary(kind="abort", **GONE)),
    "a restore of a former incumbent": (
        CANARY,
        PROMOTION,
        NEXT
        | {
            "version": 4,
            "revision": 5,
            "prev_version": 3,
            "prev_incumbent": "t_new",
        }
        | {"kind": "restore"},
    ),
}


@pytest.mark.parametrize("what", LEGAL)
def test_the_database_accepts(database: Database, what: str) -> None:
    before = database.count("route_version")

    database.insert("route_version", *LEGAL[what])

    assert database.count("route_version") == before + len(LEGAL[what])


# What the database refuses of a route that serves its first version, and within a canary.
ILLEGAL_AT_FIRST: Mapping[str, Row] = {
    "a promotion called a change of settings": SETTINGS
    | {"incumbent": "t_new", "incumbent_evidence": "e_new"},
    "a canary without a verdict": CANARY | dict.fromkeys(PROOF),
    "a canary with a failed verdict": CANARY | {"verdict_id": "v_bad"},
    "a canary of another target than the verdict's": CANARY | {"canary": "t_third"},
    "a canary that is not named": CANARY | {"canary": None},
    "a canary without evidence": CANARY | {"canary_evidence": None},
    "a canary with a weight of zero": CANARY | {"weight_bps": 0},
    "a canary with more than all traffic": CANARY | {"weight_bps": 10_001},
    "a canary that changes the incumbent too": CANARY
    | {"incumbent": "t_new", "incumbent_evidence": "e_new"},
    "a canary slipped into a change of settings": SETTINGS
    | ON
    | {"canary": "t_new", "canary_evidence": "e_new"},
    "a weight without a canary": NEXT | {"kind": "weight", "weight_bps": 100},
    "a weight that starts a canary": NEXT
    | ON
    | {
        "kind": "weight",
        "canary": "t_new",
        "canary_evidence": "e_new",
    },
    "an abort of nothing": NEXT | {"kind": "abort"},
    "a restore of a target that never was the incumbent": NEXT
    | {
        "kind": "restore",
        "incumbent": "t_new",
        "incumbent_evidence": "e_new",
    },
    "a version skipped": SETTINGS | {"version": 3, "prev_version": 1},
    "a revision skipped": SETTINGS | {"revision": 9},
    "a revision twice": SETTINGS | {"revision": 2},
    "a first version with a verdict for evidence": FIRST
    | {
        "route": "c",
        "revision": 3,
        "incumbent_evidence": "e_new",
    },
    "a first version without evidence": FIRST
    | {
        "route": "c",
        "revision": 3,
        "incumbent_evidence": "e_missing",
    },
}
ILLEGAL_IN_A_CANARY: Mapping[str, Row] = {
    "a promotion without a verdict": PROMOTION | dict.fromkeys(PROOF),
    "a promotion with the verdict's outcome left out": PROMOTION | {"verdict_outcome": None},
    "a promotion with the verdict's candidate left out": PROMOTION
    | {"verdict_candidate": None},
    "a promotion with the verdict's id left out": PROMOTION | {"verdict_id": None},
    "a promotion with a verdict that nobody made": PROMOTION | {"verdict_id": "v_invented"},
    "a promotion with a failed verdict": PROMOTION
    | {"verdict_id": "v_bad", "verdict_outcome": "failed"},
    "a promotion with a failed verdict called passed": PROMOTION | {"verdict_id": "v_bad"},
    "a promotion with another route's verdict": PROMOTION | {"verdict_id": "v_other_route"},
    "a promotion with a verdict against another incumbent": PROMOTION
    | {"verdict_id": "v_other_incumbent"},
    "a promotion with another candidate's verdict": PROMOTION
    | {"verdict_id": "v_other_candidate"},
    "a promotion of a target that the verdict does not name": PROMOTION
    | {"incumbent": "t_third", "incumbent_evidence": "e_old"},
    "a promotion with another target's evidence": PROMOTION | {"incumbent_evidence": "e_old"},
    "a promotion with the evidence left out": PROMOTION | {"incumbent_evidence": None},
    "a promotion called an abort": after_canary(kind="abort", **GONE)
    | {"incumbent": "t_new", "incumbent_evidence": "e_new"},
    "a promotion from a base that never was": PROMOTION
    | {"prev_incumbent": "t_third", "verdict_id": "v_other_incumbent"},
    "a promotion with the base left out": PROMOTION | {"prev_incumbent": None},
    "a kind that does not exist": PROMOTION | {"kind": "force"},
    "a kind left out": PROMOTION | {"kind": None},
    "a second baseline": PROMOTION | dict.fromkeys(PROOF) | {"kind": "baseline"},
    "a canary beside another": CANARY
    | {
        "version": 3,
        "revision": 4,
        "prev_version": 2,
    },
    "a weight that falls": after_canary(kind="weight", weight_bps=50),
    "a weight of another rollout": after_canary(kind="weight", weight_bps=500, rollout="ro_2"),
    "a weight with another salt": after_canary(kind="weight", weight_bps=500, salt="t"),
    "settings that drop the canary": after_canary(kind="settings", **GONE),
    "an abort that keeps the canary": after_canary(kind="abort"),
}


def refuse_all(database: Database, rows: Mapping[str, tuple[str, Row]]) -> None:
    """Each by itself: what is refused leaves nothing behind."""
    taken = [what for what, row in rows.items() if database.takes(row)]
    assert not taken


@pytest.mark.spine
def test_the_database_refuses_to_serve_what_has_no_proof(database: Database) -> None:
    refuse_all(
        database,
        {what: ("route_version", row) for what, row in ILLEGAL_AT_FIRST.items()},
    )
    assert database.count("route_version") == 2

    database.insert("route_version", CANARY)
    refuse_all(
        database,
        {what: ("route_version", row) for what, row in ILLEGAL_IN_A_CANARY.items()},
    )
    assert database.count("route_version") == 3


def test_a_version_comes_once(database: Database) -> None:
    database.insert("route_version", SETTINGS)
    assert not database.takes(("route_version", SETTINGS | {"revision": 4}))


PLAN = {"holdback_plan": '{"weight_bps": 100}'}
HELD = {"holdback": "t_old", **PLAN}
FOURTH = {
    "version": 4,
    "prev_version": 3,
    "revision": 5,
}


def test_a_holdback_is_the_last_incumbent_kept_by_its_promotion(database: Database) -> None:
    for row in (SETTINGS | HELD, CANARY | HELD):
        with pytest.raises(REFUSED, match="holdback"):
            database.insert("route_version", row)
    database.insert("route_version", CANARY)
    for held in (
        {"holdback": "t_third", **PLAN},
        {"holdback": "t_old"},
        PLAN,
    ):
        with pytest.raises(REFUSED, match="holdback"):
            database.insert("route_version", PROMOTION | held)
    database.insert("route_version", PROMOTION | HELD)
    new = {
        "incumbent": "t_new",
        "incumbent_evidence": "e_new",
        "prev_incumbent": "t_new",
    }
    other = HELD | {"holdback_plan": '{"weight_bps": 5000}'}
    with pytest.raises(REFUSED, match="holdback"):
        database.insert("route_version", SETTINGS | new | FOURTH | other)
    database.insert("route_version", SETTINGS | new | FOURTH | HELD)


@pytest.mark.parametrize("before", [(), (CANARY,)], ids=["canary", "promotion"])
def test_the_verdict_of_a_rollout_that_was_rolled_back_proves_nothing_more(
    database: Database, before: tuple[Row, ...]
) -> None:
    database.insert("route_version", *before)
    database.run("UPDATE rollout SET state = 'rolled_back', version = version + 1")
    with pytest.raises(REFUSED, match="verdict_used"):
        database.insert("route_version", PROMOTION if before else CANARY)


FALLBACK = {
    "route": "a",
    "version": 2,
    "position": 0,
}
WAIVED = FALLBACK | {"target": "t_third", "evidence": "e_w"}
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
    "a kind of its own": {
        **baseline("e", "a", "t_third"),
        "kind": "trust me",
    },
}


def test_the_database_takes_no_evidence_without_its_proof(database: Database) -> None:
    refuse_all(
        database,
        {what: ("evidence", row) for what, row in BAD_EVIDENCE.items()},
    )


def test_a_waiver_needs_reason_author_and_expiry(database: Database) -> None:
    whole = WAIVER | {"reason": "r", "author": "ada"}
    bad: tuple[Row, ...] = (
        {"reason": " "},
        {"author": ""},
        {"reason": None},
        {"expires_at": None},
    )
    refuse_all(database, {str(row): ("waiver", whole | row) for row in bad})


def test_a_waived_fallback_is_accepted_and_serves_in_no_other_role(database: Database) -> None:
    waive(database, expires_at=AT + 1)
    for refused in (
        SETTINGS | {"incumbent": "t_third", "incumbent_evidence": "e_w"},
        CANARY | {"canary": "t_third", "canary_evidence": "e_w"},
    ):
        with pytest.raises(REFUSED):
            database.insert("route_version", refused)

    database.insert_all(("route_fallback", WAIVED), ("route_version", SETTINGS))


def waive(database: Database, *, expires_at: int) -> None:
    waived = {
        **baseline("e_w", "a", "t_third"),
        "kind": "waiver",
        "waiver_id": "w_1",
    }
    words = {
        "reason": "r",
        "author": "ada",
        "expires_at": expires_at,
    }
    database.insert("waiver", WAIVER | words)
    database.insert("evidence", waived)


def test_a_waiver_that_has_expired_opens_no_chain(database: Database) -> None:
    waive(database, expires_at=AT)

    with pytest.raises(REFUSED, match="waiver_expired"):
        database.insert_all(("route_fallback", WAIVED), ("route_version", SETTINGS))

    assert database.count("route_fallback") == 0


def test_an_expired_waiver_is_kept_by_no_persons_change_and_holds_up_no_abort(
    database: Database,
) -> None:
    waive(database, expires_at=AT + 1)
    database.insert_all(("route_fallback", WAIVED), ("route_version", SETTINGS))
    base = {
        "version": 3,
        "revision": 4,
        "prev_version": 2,
    }
    third = WAIVED | {"version": 3}

    with pytest.raises(REFUSED, match="waiver_expired"):
        database.insert_all(
            ("route_fallback", third),
            ("route_version", SETTINGS | base | {"at": AT + 1}),
        )

    database.insert_all(
        ("route_fallback", third),
        ("route_version", CANARY | base | {"at": AT + 1}),
    )
    ended = after_canary(kind="abort", **GONE, at=AT + 2)
    ended |= {
        "version": 4,
        "revision": 5,
        "prev_version": 3,
    }
    database.insert_all(("route_fallback", WAIVED | {"version": 4}), ("route_version", ended))


CHAINS: Mapping[str, tuple[Row, ...]] = {
    "emptied": (),
    "exchanged": ({"target": "t_new", "evidence": "e_new"},),
    "moved": ({"position": 1},),
    "lengthened": (
        {},
        {
            "target": "t_new",
            "evidence": "e_new",
            "position": 1,
        },
    ),
}


def test_a_chain_is_not_changed_in_the_shadow_of_a_canary(database: Database) -> None:
    waive(database, expires_at=AT + 1)
    database.insert_all(("route_fallback", WAIVED), ("route_version", SETTINGS))
    canary = CANARY | {
        "version": 3,
        "revision": 4,
        "prev_version": 2,
    }
    for chain in CHAINS.values():
        links = [("route_fallback", WAIVED | {"version": 3} | link) for link in chain]
        with pytest.raises(REFUSED, match="chain_stays"):
            database.insert_all(*links, ("route_version", canary))

    assert database.count("route_version") == 3


def test_a_fallback_needs_evidence_of_its_own_target_and_a_version(database: Database) -> None:
    for bad in (
        {
            "version": 2,
            "target": "t_third",
            "evidence": "e_missing",
        },
        {
            "version": 2,
            "target": "t_third",
            "evidence": "e_old",
        },
        {
            "version": 2,
            "target": "t_third",
            "evidence": None,
        },
        # No such version follows: the deferred foreign key refuses at the commit.
        {
            "version": 2,
            "target": "t_new",
            "evidence": "e_new",
        },
        # That version is written, and its chain sealed.
        {
            "version": 1,
            "target": "t_new",
            "evidence": "e_new",
        },
    ):
        assert not database.takes(("route_fallback", FALLBACK | bad))
    assert database.count("route_fallback") == 0


def test_a_baseline_hoarded_before_the_first_version_is_worth_nothing_later(
    database: Database,
) -> None:
    database.insert(
        "evidence",
        baseline("e_c", "c", "t_old"),
        baseline("e_x", "c", "t_new"),
    )
    start_of_c = FIRST | {
        "route": "c",
        "revision": 3,
        "incumbent_evidence": "e_c",
    }
    database.insert("route_version", start_of_c)

    with pytest.raises(REFUSED):
        database.insert(
            "route_fallback",
            {
                "route": "c",
                "version": 2,
                "position": 0,
                "target": "t_new",
                "evidence": "e_x",
            },
        )


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


def test_nothing_is_changed_or_deleted_afterwards(database: Database) -> None:
    fill(database)
    for table, change in APPEND_ONLY.items():
        before = database.count(table)
        assert before > 0
        statements = [f"UPDATE {table} SET {change}", f"DELETE FROM {table}"]  # noqa: S608
        if database.dialect == "postgresql":
            statements.append(f"TRUNCATE {table} CASCADE")
        for statement in statements:
            with pytest.raises(REFUSED, match="append_only"):
                database.run(statement)
        assert database.count(table) == before


def test_audit_events_have_no_gaps_and_follow_the_chain(database: Database) -> None:
    fill(database)
    event = {
        "at": AT,
        "actor": "eve",
        "action": "x",
        "subject": "y",
        "details": "{}",
    }
    for number, previous in (
        (3, "1" * 64),
        (1, "0" * 64),
        (2, "0" * 64),
    ):
        forged = event | {
            "number": number,
            "previous": previous,
            "mac": "2" * 64,
        }
        assert not database.takes(("audit_event", forged))

    database.insert(
        "audit_event",
        event
        | {
            "number": 2,
            "previous": "1" * 64,
            "mac": "2" * 64,
        },
    )
