"""What was asked and what came back: targets, suites, runs, samples."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "target",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("request_patch", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_target")),
    )
    op.create_table(
        "suite",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("data_sha256", sa.Text(), nullable=False),
        sa.Column("scorer", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("items >= 0", name=op.f("ck_suite_items_least")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_suite")),
    )
    op.create_table(
        "eval_run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("suite_digest", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("order_seed", sa.Text(), nullable=False),
        sa.Column("epochs", sa.BigInteger(), nullable=False),
        sa.Column("wanted", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("max_tokens", sa.BigInteger(), nullable=True),
        sa.Column("max_cost_usd", sa.Double(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'stopped', 'over_budget', 'failed')",
            name=op.f("ck_eval_run_state_known"),
        ),
        sa.CheckConstraint(
            "(lease_owner IS NULL) = (lease_until IS NULL)",
            name=op.f("ck_eval_run_lease_whole"),
        ),
        sa.CheckConstraint("epochs >= 1", name=op.f("ck_eval_run_epochs_least")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_eval_run_failures_least")),
        sa.CheckConstraint(
            "max_cost_usd >= 0 AND max_cost_usd < 1e15",
            name=op.f("ck_eval_run_max_cost_usd_amount"),
        ),
        sa.CheckConstraint("max_tokens >= 0", name=op.f("ck_eval_run_max_tokens_least")),
        sa.CheckConstraint("wanted >= 0", name=op.f("ck_eval_run_wanted_least")),
        sa.ForeignKeyConstraint(["target"], ["target.id"], name=op.f("fk_eval_run_target")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_eval_run")),
    )
    op.create_index(
        "ix_eval_run_fingerprint", "eval_run", ["fingerprint", "created_at"], unique=False
    )
    op.create_index("ix_eval_run_lease_owner", "eval_run", ["lease_owner"], unique=False)
    op.create_index("ix_eval_run_state", "eval_run", ["state"], unique=False)
    op.create_table(
        "sample",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("strict", sa.Double(), nullable=True),
        sa.Column("lenient", sa.Double(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_text", sa.Text(), nullable=False),
        sa.Column("served_model", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "error IN ('unscored', 'infra')", name=op.f("ck_sample_error_known")
        ),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_sample_cost_usd_amount")
        ),
        sa.CheckConstraint(
            "duration_s >= 0 AND duration_s < 1e15", name=op.f("ck_sample_duration_s_amount")
        ),
        sa.CheckConstraint("input_tokens >= 0", name=op.f("ck_sample_input_tokens_least")),
        sa.CheckConstraint(
            "lenient >= 0 AND lenient <= 1", name=op.f("ck_sample_lenient_share")
        ),
        sa.CheckConstraint("output_tokens >= 0", name=op.f("ck_sample_output_tokens_least")),
        sa.CheckConstraint("position >= 0", name=op.f("ck_sample_position_least")),
        sa.CheckConstraint("strict >= 0 AND strict <= 1", name=op.f("ck_sample_strict_share")),
        sa.CheckConstraint(
            "strict IS NOT NULL OR error IS NOT NULL", name=op.f("ck_sample_scored_or_error")
        ),
        sa.ForeignKeyConstraint(["run"], ["eval_run.id"], name=op.f("fk_sample_run")),
        sa.PrimaryKeyConstraint("run", "item", "epoch", name=op.f("pk_sample")),
    )
    op.create_index(
        "ix_sample_run_position", "sample", ["run", "position", "epoch"], unique=False
    )


def downgrade() -> None:
    op.drop_table("sample")
    op.drop_table("eval_run")
    op.drop_table("suite")
    op.drop_table("target")
