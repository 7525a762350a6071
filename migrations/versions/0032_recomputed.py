"""Evidence that can be recomputed, and state that can be compared with the audit log.

Samples keep the digests of their texts when those are blanked, and nothing else of them can be
changed. An audit event carries the digests of the rows that its unit of work wrote. A kind of
alert needs no migration any more.
"""

# ruff: noqa: S608 - statements of constants; nothing comes from outside

import re
from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0033"
branch_labels = None
depends_on = None

TEXTS = ("answer", "prompt", "error_text")
# All the rest, those of 0031 and before; 0005 held only the first seven.
BEFORE = ("run", "item", "epoch", "position", "strict", "lenient", "error")
MEASURED = (
    *BEFORE,
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "duration_s",
    "served_model",
    "rule",
    "cached_tokens",
    "judge_calls",
    "judge_cost_usd",
    "served_build",
    "judge_model",
    "judge_build",
    "answer_sha256",
    "prompt_sha256",
)
REFUSED = "append_only: what was measured is never changed or deleted"
BLANKED = "append_only: the text of a sample is blanked or stays"
PAGE = 500
CHECK = "ck_alert_kind_known"
KIND_CHECK = re.compile(rf",\s*CONSTRAINT {CHECK} CHECK \(kind IN \([^)]*\)\)")
KINDS = (
    "breaker_open", "our_key", "quota", "model_unknown", "revision_refused",
    "observations_dropped", "spool_full", "rolled_back", "promoted", "canary_paused",
    "awaiting_approval", "sample_ratio", "key_budget", "waiver_expired", "job_failed",
    "audit_broken", "drift", "served_model", "local_abort", "canary_held", "shadow_held",
    "model_ends", "model_ended", "sign_in_ended", "token_not_renewed", "test",
)  # fmt: skip


def upgrade() -> None:
    for name in ("answer_sha256", "prompt_sha256"):
        op.add_column("sample", sa.Column(name, sa.Text(), nullable=True))
    fill_digests()
    forget_guards("sample_no_update")
    guard("sample_no_update", MEASURED, REFUSED, "1 = 1")
    changed = " OR ".join(f"(NEW.{text} <> '' AND NEW.{text} <> OLD.{text})" for text in TEXTS)
    guard("sample_blank_only", TEXTS, BLANKED, changed)
    op.add_column("audit_event", sa.Column("rows", sa.Text(), nullable=True))
    drop_kind_check()


def downgrade() -> None:
    forget_guards("sample_no_update", "sample_blank_only")
    guard("sample_no_update", BEFORE, REFUSED, "1 = 1")
    for name in ("answer_sha256", "prompt_sha256"):
        op.drop_column("sample", name)
    op.drop_column("audit_event", "rows")
    add_kind_check()


def fill_digests() -> None:
    """Page by page: the answers of years need not fit into memory."""
    db, after = op.get_bind(), ("", "", -1)
    page = sa.text(
        "SELECT run, item, epoch, answer, prompt FROM sample"
        " WHERE (run, item, epoch) > (:run, :item, :epoch)"
        " ORDER BY run, item, epoch LIMIT :page"
    )
    fill = sa.text(
        "UPDATE sample SET answer_sha256 = :answer, prompt_sha256 = :prompt"
        " WHERE run = :run AND item = :item AND epoch = :epoch"
    )
    while True:
        where = dict(zip(("run", "item", "epoch"), after, strict=True))
        rows = db.execute(page, {**where, "page": PAGE}).all()
        if not rows:
            return
        db.execute(
            fill,
            [
                {
                    "run": row.run,
                    "item": row.item,
                    "epoch": row.epoch,
                    "answer": sha256(row.answer.encode()).hexdigest(),
                    "prompt": sha256(row.prompt.encode()).hexdigest(),
                }
                for row in rows
            ],
        )
        after = (rows[-1].run, rows[-1].item, rows[-1].epoch)


def on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def forget_guards(*names: str) -> None:
    for name in names:
        if on_sqlite():
            op.execute(f"DROP TRIGGER {name}")
        else:
            op.execute(f"DROP TRIGGER {name} ON sample")
            op.execute(f"DROP FUNCTION {name}()")


def guard(name: str, columns: tuple[str, ...], message: str, condition: str) -> None:
    when = f"BEFORE UPDATE OF {', '.join(columns)} ON sample"
    if on_sqlite():
        op.execute(
            f"CREATE TRIGGER {name} {when} FOR EACH ROW BEGIN"
            f" SELECT RAISE(ABORT, '{message}') WHERE {condition}; END"
        )
        return
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {condition} THEN RAISE EXCEPTION '{message}'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN NEW; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW EXECUTE FUNCTION {name}()")


def drop_kind_check() -> None:
    if not on_sqlite():
        op.execute(f"ALTER TABLE alert DROP CONSTRAINT {CHECK}")
        return
    written = table_text()
    rewrite(written, KIND_CHECK.sub("", written, count=1))


def add_kind_check() -> None:
    listed = ", ".join(f"'{each}'" for each in KINDS)
    newer = f"SELECT id FROM alert WHERE kind NOT IN ({listed})"
    op.execute(f"DELETE FROM delivery WHERE alert IN ({newer})")
    op.execute(f"DELETE FROM alert WHERE kind NOT IN ({listed})")
    check = f"CONSTRAINT {CHECK} CHECK (kind IN ({listed}))"
    if not on_sqlite():
        op.execute(f"ALTER TABLE alert ADD {check}")
        return
    written = table_text()
    end = written.rindex(")")  # behind it: STRICT, WITHOUT ROWID
    rewrite(written, f"{written[:end]}, {check}{written[end:]}")


def table_text() -> str:
    text = op.get_bind().exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'alert'"
    )
    return str(text.scalar_one())


def rewrite(before: str, after: str) -> None:
    """SQLite's own way for a CHECK (lang_altertable, section 7): the text of the schema."""
    if before == after:
        raise RuntimeError(f"the table alert has no check {CHECK} as 0026 left it")
    db = op.get_bind()
    version = db.exec_driver_sql("PRAGMA schema_version").scalar_one()
    db.exec_driver_sql("PRAGMA writable_schema = ON")
    db.exec_driver_sql(
        "UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = 'alert'", (after,)
    )
    db.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    db.exec_driver_sql("PRAGMA writable_schema = RESET")
