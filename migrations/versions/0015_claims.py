"""A third claim of proposals: cheaper and not worse."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

CHECK = "ck_proposal_claim_known"
BEFORE = "claim IN ('superior', 'non_inferior')"
AFTER = "claim IN ('superior', 'non_inferior', 'cheaper_and_not_worse')"


def upgrade() -> None:
    change_check(BEFORE, AFTER)


def downgrade() -> None:
    # Proposals of the third claim stay as they are: what was registered never changes.
    change_check(AFTER, BEFORE)


def change_check(before: str, after: str) -> None:
    db = op.get_bind()
    if db.dialect.name == "sqlite":
        rewrite(db, before, after)
        return
    known = "" if after == AFTER else " NOT VALID"
    op.execute(f"ALTER TABLE proposal DROP CONSTRAINT {CHECK}")
    op.execute(f"ALTER TABLE proposal ADD CONSTRAINT {CHECK} CHECK ({after}){known}")


def rewrite(db: sa.Connection, before: str, after: str) -> None:
    """SQLite's own way for a CHECK (lang_altertable, section 7): change the text of the schema.

    A copy of the table would lose its triggers and the keys that point to it.
    """
    version = db.exec_driver_sql("PRAGMA schema_version").scalar_one()
    db.exec_driver_sql("PRAGMA writable_schema = ON")
    done = db.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) "
        "WHERE type = 'table' AND name = 'proposal' AND instr(sql, ?) > 0",
        (f"({before})", f"({after})", f"({before})"),
    )
    if done.rowcount != 1:
        raise RuntimeError(f"the table proposal has no check {CHECK} as 0002 made it")
    db.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    db.exec_driver_sql("PRAGMA writable_schema = RESET")
