"""Indexes for the newest run of each suite and target, and for audit events by who acted and
what was done.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
# A version of before reads and writes the same tables.
compatible_from = "0016"

# Name → table and columns.
INDEXES = {
    "ix_eval_run_target_suite": ("eval_run", "target", "suite", "created_at", "id", "state"),
    "ix_audit_event_actor": ("audit_event", "actor", "number"),
    "ix_audit_event_action": ("audit_event", "action", "number"),
}
OF_A_KEY = "ix_audit_event_key"


def upgrade() -> None:
    for name, (table, *columns) in INDEXES.items():
        op.create_index(name, table, columns)
    with_key = sa.text("key IS NOT NULL")
    op.create_index(
        OF_A_KEY,
        "audit_event",
        ["key", "number"],
        sqlite_where=with_key,
        postgresql_where=with_key,
    )


def downgrade() -> None:
    op.drop_index(OF_A_KEY, "audit_event")
    for name, (table, *_) in INDEXES.items():
        op.drop_index(name, table)
