"""What was wished, judged and rolled out: proposals, verdicts, rollouts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "proposal",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("proposer", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("self_approval", sa.Boolean(), nullable=False),
        sa.Column("plans", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("runs", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("rollout", sa.Text(), nullable=True),
        sa.Column("infra_errors", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.BigInteger(), nullable=True),
        sa.Column("approver", sa.Text(), nullable=True),
        sa.Column("approved_verdict", sa.Text(), nullable=True),
        sa.Column("closed_because", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "claim IN ('superior', 'non_inferior')", name=op.f("ck_proposal_claim_known")
        ),
        sa.CheckConstraint(
            "phase IN ('proposed', 'evaluating', 'awaiting_approval', 'canary',"
            " 'promoted', 'rejected', 'rolled_back', 'cancelled')",
            name=op.f("ck_proposal_phase_known"),
        ),
        sa.CheckConstraint("trim(proposer) <> ''", name=op.f("ck_proposal_proposer_not_blank")),
        sa.CheckConstraint(
            "approver IS NULL OR approver <> proposer OR self_approval",
            name=op.f("ck_proposal_four_eyes"),
        ),
        sa.CheckConstraint("infra_errors >= 0", name=op.f("ck_proposal_infra_errors_least")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_proposal_version_least")),
        sa.ForeignKeyConstraint(
            ["candidate"], ["target.id"], name=op.f("fk_proposal_candidate")
        ),
        sa.ForeignKeyConstraint(
            ["incumbent"], ["target.id"], name=op.f("fk_proposal_incumbent")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposal")),
    )
    op.create_index("ix_proposal_phase", "proposal", ["phase"], unique=False)
    op.create_index("ix_proposal_route", "proposal", ["route", "created_at"], unique=False)
    op.create_index(
        "ux_proposal_open_route",
        "proposal",
        ["route"],
        unique=True,
        sqlite_where=sa.text(
            "phase IN ('proposed', 'evaluating', 'awaiting_approval', 'canary')"
        ),
        postgresql_where=sa.text(
            "phase IN ('proposed', 'evaluating', 'awaiting_approval', 'canary')"
        ),
    )
    op.create_table(
        "verdict",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("proposal", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("suites", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('passed', 'failed', 'inconclusive', 'harness_mismatch',"
            " 'infra_error')",
            name=op.f("ck_verdict_outcome_known"),
        ),
        sa.ForeignKeyConstraint(
            ["candidate"], ["target.id"], name=op.f("fk_verdict_candidate")
        ),
        sa.ForeignKeyConstraint(
            ["incumbent"], ["target.id"], name=op.f("fk_verdict_incumbent")
        ),
        sa.ForeignKeyConstraint(
            ["proposal"], ["proposal.id"], name=op.f("fk_verdict_proposal")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdict")),
        sa.UniqueConstraint(
            "id", "route", "incumbent", "candidate", "outcome", name="uq_verdict_proof"
        ),
    )
    op.create_index("ix_verdict_proposal", "verdict", ["proposal"], unique=False)
    op.create_index("ix_verdict_route", "verdict", ["route", "decided_at"], unique=False)
    op.create_table(
        "rollout",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("proposal", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("step_started_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_because", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'measuring', 'paused', 'promoted', 'rolled_back')",
            name=op.f("ck_rollout_state_known"),
        ),
        sa.CheckConstraint("step >= 0", name=op.f("ck_rollout_step_least")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_rollout_version_least")),
        sa.ForeignKeyConstraint(
            ["candidate"], ["target.id"], name=op.f("fk_rollout_candidate")
        ),
        sa.ForeignKeyConstraint(
            ["incumbent"], ["target.id"], name=op.f("fk_rollout_incumbent")
        ),
        sa.ForeignKeyConstraint(
            ["proposal"], ["proposal.id"], name=op.f("fk_rollout_proposal")
        ),
        sa.ForeignKeyConstraint(["verdict"], ["verdict.id"], name=op.f("fk_rollout_verdict")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout")),
    )
    op.create_index("ix_rollout_proposal", "rollout", ["proposal"], unique=False)
    op.create_index("ix_rollout_route", "rollout", ["route", "started_at"], unique=False)
    op.create_index("ix_rollout_state", "rollout", ["state"], unique=False)
    op.create_index(
        "ux_rollout_live_route",
        "rollout",
        ["route"],
        unique=True,
        sqlite_where=sa.text("state IN ('waiting', 'measuring', 'paused')"),
        postgresql_where=sa.text("state IN ('waiting', 'measuring', 'paused')"),
    )


def downgrade() -> None:
    op.drop_table("rollout")
    op.drop_table("verdict")
    op.drop_table("proposal")
