"""Indexes for lists and turns that would read a growing table whole."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# The project last: SQLite keeps no statistics, takes an index that begins with it for a narrow
# one, and would rather go through a whole project than to the rows of one agent or route.
# Name → table, columns, and the condition of the rows in it ("" for all).
NEW: Final = {
    "ix_verdict_decided_at": ("verdict", ("decided_at", "id", "project"), ""),
    "ix_rollout_started_at": ("rollout", ("started_at", "id", "project"), ""),
    "ix_rollout_candidate": ("rollout", ("candidate", "started_at"), ""),
    "ix_rollout_baking": ("rollout", ("state", "started_at", "id"), "bake_ends_at IS NOT NULL"),
    "ix_audit_event_at": ("audit_event", ("at", "number"), ""),
    "ix_alert_resolved_at": ("alert", ("resolved_at",), ""),
    "ix_alert_told": ("alert", ("told", "kind"), ""),
    "ix_api_key_created_at": ("api_key", ("created_at", "id", "project"), ""),
    "ix_api_key_principal": ("api_key", ("principal",), ""),
    "ix_dashboard_session_created_at": ("dashboard_session", ("created_at",), ""),
    "ix_dashboard_session_expires_at": ("dashboard_session", ("expires_at",), ""),
    "ix_agent_created_at": ("agent", ("created_at", "id", "project"), "deleted_at IS NULL"),
    "ix_agent_session_created_at": ("agent_session", ("created_at", "id", "project"), ""),
    "ix_agent_switch_asked_at": ("agent_switch", ("asked_at", "id", "project"), ""),
    "ix_agent_switch_state": ("agent_switch", ("state", "asked_at", "id"), ""),
    "ix_agent_grant_created_at": ("agent_grant", ("created_at", "id", "project"), ""),
    "ix_agent_grant_valid": ("agent_grant", ("expires_at",), "revoked_at IS NULL"),
    "ix_shadow_started_at": ("shadow", ("started_at", "id"), ""),
    "ix_shadow_route": ("shadow", ("route", "started_at"), ""),
    "ix_switch_created_at": ("switch", ("created_at", "id"), ""),
    "ix_switch_held": ("switch", ("created_at",), "lifted_at IS NULL"),
}
# Name → table, columns before, columns from now on.
WIDER: Final = {
    "ix_proposal_phase": ("proposal", ("phase",), ("phase", "project")),
    "ix_eval_run_state": ("eval_run", ("state",), ("state", "created_at", "id")),
}


def upgrade() -> None:
    for name, (table, _, columns) in WIDER.items():
        op.drop_index(name, table)
        op.create_index(name, table, list(columns))
    for name, (table, columns, condition) in NEW.items():
        where = sa.text(condition) if condition else None
        op.create_index(name, table, list(columns), sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for name, (table, _, _) in NEW.items():
        op.drop_index(name, table)
    for name, (table, columns, _) in WIDER.items():
        op.drop_index(name, table)
        op.create_index(name, table, list(columns))
