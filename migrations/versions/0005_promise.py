"""The promise: what a row alone cannot show is held by triggers, in the same words on both.

A rule is a condition under which a row is refused, over NEW (and OLD). Its name leads the
message, so that callers can tell a lost race from a missing proof.
"""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

from collections.abc import Mapping, Sequence

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Rules = Sequence[tuple[str, str]]

PREVIOUS = "FROM route_version p WHERE p.route = NEW.route AND p.version = NEW.version - 1"
SAME_CANARY = (
    "COALESCE(p.canary, '') = COALESCE(NEW.canary, '')"
    " AND COALESCE(p.canary_evidence, '') = COALESCE(NEW.canary_evidence, '')"
    " AND COALESCE(p.salt, '') = COALESCE(NEW.salt, '')"
    " AND COALESCE(p.rollout, '') = COALESCE(NEW.rollout, '')"
    " AND COALESCE(p.unit_rule, '') = COALESCE(NEW.unit_rule, '')"
)


def taken(table: str, *keys: str) -> tuple[str, str]:
    """Without it, SQLite's INSERT OR REPLACE would delete a row that no DELETE may touch."""
    same = " AND ".join(f"t.{key} = NEW.{key}" for key in keys)
    return (
        "version_taken: such a row is there",
        f"EXISTS (SELECT 1 FROM {table} t WHERE {same})",
    )


def busy(table: str, column: str, values: str) -> tuple[str, str]:
    """As the unique index says, also for INSERT OR REPLACE."""
    return (
        f"route_busy: the route has a {table} under way",
        (
            f"NEW.{column} IN ({values}) AND EXISTS (SELECT 1 FROM {table} t"
            f" WHERE t.route = NEW.route AND t.{column} IN ({values}))"
        ),
    )


def another(table: str, key: str, *columns: str) -> tuple[str, str]:
    """Content-addressed rows may come twice, but only as they were."""
    differs = " OR ".join(f"t.{column} <> NEW.{column}" for column in columns)
    return (
        f"append_only: this {table} is there with another content",
        f"EXISTS (SELECT 1 FROM {table} t WHERE t.{key} = NEW.{key} AND ({differs}))",
    )


ROUTE_VERSION: Rules = (
    taken("route_version", "route", "version"),
    (
        "revision_follows: revisions rise by one",
        "NEW.revision <> (SELECT COALESCE(MAX(revision), 0) + 1 FROM route_version)",
    ),
    (
        "baseline_evidence: a first version needs baseline evidence",
        (
            "NEW.version = 1 AND NOT EXISTS (SELECT 1 FROM evidence e"
            " WHERE e.id = NEW.incumbent_evidence AND e.kind = 'baseline')"
        ),
    ),
    (
        "incumbent_evidence: an incumbent that stays keeps its evidence",
        (
            "NEW.kind IN ('canary', 'weight', 'abort', 'settings') AND NOT EXISTS (SELECT 1"
            f" {PREVIOUS} AND p.incumbent = NEW.incumbent"
            " AND p.incumbent_evidence = NEW.incumbent_evidence)"
        ),
    ),
    (
        "proof_is_evidence: a promoted target's evidence is its verdict",
        (
            "NEW.kind = 'promotion' AND NOT EXISTS (SELECT 1 FROM evidence e"
            " WHERE e.id = NEW.incumbent_evidence AND e.verdict_id = NEW.verdict_id)"
        ),
    ),
    (
        "proof_is_evidence: a canary's evidence is its verdict",
        (
            "NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 FROM evidence e"
            " WHERE e.id = NEW.canary_evidence AND e.verdict_id = NEW.verdict_id)"
        ),
    ),
    (
        "one_canary: a canary starts where there is none",
        f"NEW.kind = 'canary' AND NOT EXISTS (SELECT 1 {PREVIOUS} AND p.canary IS NULL)",
    ),
    (
        "weight_rises: only the weight of the same canary rises",
        (
            f"NEW.kind = 'weight' AND NOT EXISTS (SELECT 1 {PREVIOUS} AND {SAME_CANARY}"
            " AND p.weight_bps < NEW.weight_bps)"
        ),
    ),
    (
        "canary_stays: settings leave the canary alone",
        (
            f"NEW.kind = 'settings' AND NOT EXISTS (SELECT 1 {PREVIOUS} AND {SAME_CANARY}"
            " AND p.weight_bps = NEW.weight_bps)"
        ),
    ),
    (
        "nothing_to_abort: there is no canary",
        f"NEW.kind = 'abort' AND NOT EXISTS (SELECT 1 {PREVIOUS} AND p.canary IS NOT NULL)",
    ),
    (
        "never_incumbent: only a former incumbent of this route is restored",
        (
            "NEW.kind = 'restore' AND NOT EXISTS (SELECT 1 FROM route_version f"
            " WHERE f.route = NEW.route AND f.version < NEW.version"
            " AND f.incumbent = NEW.incumbent"
            " AND f.incumbent_evidence = NEW.incumbent_evidence)"
        ),
    ),
)

ROUTE_FALLBACK: Rules = (
    (
        "sealed: the version is written, and its chain with it",
        (
            "EXISTS (SELECT 1 FROM route_version v"
            " WHERE v.route = NEW.route AND v.version = NEW.version)"
        ),
    ),
    taken("route_fallback", "route", "version", "position"),
    (
        "baseline_evidence: a baseline is what the first version served",
        (
            "NEW.version > 1"
            " AND EXISTS (SELECT 1 FROM evidence e"
            " WHERE e.id = NEW.evidence AND e.kind = 'baseline')"
            " AND NOT EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route"
            " AND v.version = 1 AND v.incumbent_evidence = NEW.evidence)"
            " AND NOT EXISTS (SELECT 1 FROM route_fallback f WHERE f.route = NEW.route"
            " AND f.version = 1 AND f.evidence = NEW.evidence)"
        ),
    ),
)

EVIDENCE: Rules = (
    taken("evidence", "id"),
    (
        "baseline_late: the route has versions; a new target needs a verdict or a waiver",
        (
            "NEW.kind = 'baseline'"
            " AND EXISTS (SELECT 1 FROM route_version v WHERE v.route = NEW.route)"
        ),
    ),
)

AUDIT_EVENT: Rules = (
    (
        "audit_gap: audit events are numbered without gaps",
        "NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM audit_event)",
    ),
    (
        "audit_chain: this event does not follow the last one",
        (
            "NEW.previous <> COALESCE((SELECT a.mac FROM audit_event a"
            f" WHERE a.number = NEW.number - 1), '{'0' * 64}')"
        ),
    ),
)

REWRITE: Rules = (
    (
        "version_follows: a stored proposal's version rises by one",
        "NEW.version <> OLD.version + 1",
    ),
    (
        "registered: what was registered does not change",
        " OR ".join(
            f"NEW.{column} <> OLD.{column}"
            for column in (
                "id",
                "route",
                "incumbent",
                "candidate",
                "claim",
                "proposer",
                "policy",
                "self_approval",
                "created_at",
            )
        )
        + " OR (OLD.phase <> 'proposed' AND NEW.plans <> OLD.plans)",
    ),
)

INSERTS: Mapping[str, Rules] = {
    "route_version": ROUTE_VERSION,
    "route_fallback": ROUTE_FALLBACK,
    "evidence": EVIDENCE,
    "audit_event": AUDIT_EVENT,
    "verdict": (taken("verdict", "id"),),
    "waiver": (taken("waiver", "id"),),
    "proposal": (
        taken("proposal", "id"),
        busy("proposal", "phase", "'proposed', 'evaluating', 'awaiting_approval', 'canary'"),
    ),
    "rollout": (
        taken("rollout", "id"),
        busy("rollout", "state", "'waiting', 'measuring', 'paused'"),
    ),
    "target": (another("target", "id", "provider", "model", "parameters", "request_patch"),),
    "suite": (
        another(
            "suite", "digest", "name", "version", "data_sha256", "scorer", "template", "items"
        ),
    ),
}
CHANGING = ("proposal", "rollout")
APPEND_ONLY = (*(table for table in INSERTS if table not in CHANGING), "block")

# A second one is left out without an error, as ON CONFLICT DO NOTHING would: SQLite only,
# where INSERT OR REPLACE would put it in the first one's place.
KEPT = {
    "sample": ("t.run = NEW.run AND t.item = NEW.item AND t.epoch = NEW.epoch",),
    "block": (
        "t.rollout = NEW.rollout AND t.number = NEW.number",
        "t.rollout = NEW.rollout AND t.worker = NEW.worker AND t.sequence = NEW.sequence",
    ),
}
# Answers and prompts may be blanked for privacy; what was measured stays.
MEASURED = ("run", "item", "epoch", "position", "strict", "lenient", "error")


def upgrade() -> None:
    guard = sqlite_guard if op.get_bind().dialect.name == "sqlite" else postgres_guard
    for table, rules in INSERTS.items():
        guard(f"{table}_guard", f"BEFORE INSERT ON {table}", rules)
    guard("proposal_no_rewrite", "BEFORE UPDATE ON proposal", REWRITE)
    for table in APPEND_ONLY:
        always = ((f"append_only: {table} is never changed or deleted", "1 = 1"),)
        guard(f"{table}_no_update", f"BEFORE UPDATE ON {table}", always)
        guard(f"{table}_no_delete", f"BEFORE DELETE ON {table}", always)
    measured = (("append_only: what was measured is never changed or deleted", "1 = 1"),)
    guard("sample_no_update", f"BEFORE UPDATE OF {', '.join(MEASURED)} ON sample", measured)
    guard("sample_no_delete", "BEFORE DELETE ON sample", measured)
    if guard is sqlite_guard:
        keep_first_ones()
        count_changes_on_sqlite()
    else:
        refuse_truncate()
        notify_on_postgres()


def sqlite_guard(name: str, when: str, rules: Rules) -> None:
    body = " ".join(
        f"SELECT RAISE(ABORT, '{_quoted(message)}') WHERE {condition};"
        for message, condition in rules
    )
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW BEGIN {body} END")


def postgres_guard(name: str, when: str, rules: Rules) -> None:
    body = " ".join(
        f"IF {condition} THEN RAISE EXCEPTION '{_quoted(message)}'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF;"
        for message, condition in rules
    )
    give = "OLD" if "DELETE" in when else "NEW"
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN {give}; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW EXECUTE FUNCTION {name}()")


def _quoted(message: str) -> str:
    return message.replace("'", "''")


def keep_first_ones() -> None:
    for table, keys in KEPT.items():
        exists = " OR ".join(f"EXISTS (SELECT 1 FROM {table} t WHERE {key})" for key in keys)
        op.execute(
            f"CREATE TRIGGER {table}_guard BEFORE INSERT ON {table} FOR EACH ROW"
            f" BEGIN SELECT RAISE(IGNORE) WHERE {exists}; END"
        )


def count_changes_on_sqlite() -> None:
    for table in ("provider", "api_key"):
        for event in ("INSERT", "UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_changed_{event.lower()} AFTER {event} ON {table}"
                " FOR EACH ROW BEGIN UPDATE meta SET changes = changes + 1; END"
            )


def refuse_truncate() -> None:
    op.execute(
        "CREATE FUNCTION no_truncate() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'append_only: % is never emptied', TG_TABLE_NAME"
        " USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for table in (*APPEND_ONLY, "sample"):
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION no_truncate()"
        )


def notify_on_postgres() -> None:
    tell = "PERFORM pg_notify('swapgate_changed', TG_TABLE_NAME)"
    for name, body in (
        ("serving_changed", f"UPDATE meta SET changes = changes + 1; {tell};"),
        ("routing_changed", f"{tell};"),
    ):
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {body} RETURN NULL; END $$"
        )
    for table, function in (
        ("provider", "serving_changed"),
        ("api_key", "serving_changed"),
        ("route_version", "routing_changed"),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_changed AFTER INSERT OR UPDATE OR DELETE ON {table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        drop_on_sqlite()
    else:
        drop_on_postgres()


def drop_on_sqlite() -> None:
    for table in (*APPEND_ONLY, "sample"):
        for suffix in ("guard", "no_update", "no_delete"):
            op.execute(f"DROP TRIGGER {table}_{suffix}")
    for name in (*(f"{table}_guard" for table in CHANGING), "proposal_no_rewrite"):
        op.execute(f"DROP TRIGGER {name}")
    for table in ("provider", "api_key"):
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER {table}_changed_{event}")


def drop_on_postgres() -> None:
    # With the functions go the triggers that call them.
    for table in INSERTS:
        op.execute(f"DROP FUNCTION {table}_guard() CASCADE")
    for table in (*APPEND_ONLY, "sample"):
        op.execute(f"DROP FUNCTION {table}_no_update() CASCADE")
        op.execute(f"DROP FUNCTION {table}_no_delete() CASCADE")
    for function in (
        "proposal_no_rewrite",
        "no_truncate",
        "serving_changed",
        "routing_changed",
    ):
        op.execute(f"DROP FUNCTION {function}() CASCADE")
