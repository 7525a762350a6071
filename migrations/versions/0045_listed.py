"""Indexes for what is listed by time, for the audit log by subject, for runs by target.

A page is found, and not sorted out of all rows.
"""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_proposal_created_at", "proposal", ["created_at", "id"]),
    ("ix_eval_run_created_at", "eval_run", ["created_at", "id"]),
    ("ix_eval_run_target", "eval_run", ["target", "created_at"]),
    ("ix_captured_at", "captured", ["at", "id"]),
    ("ix_drift_check_started_at", "drift_check", ["started_at"]),
    ("ix_audit_event_subject", "audit_event", ["subject", "number"]),
)


def upgrade() -> None:
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns, unique=False)


def downgrade() -> None:
    for name, table, _ in INDEXES:
        op.drop_index(name, table_name=table)
