"""The first schema: every table with its keys, checks and indexes.

Written from the tables in `harness/store/schema` when the first release was made. From then on
this file stays as it is, and each change of the schema is a file of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Each before those that refer to it.
TABLES = (
    "target",
    "suite",
    "eval_run",
    "sample",
    "principal",
    "api_key",
    "key_spend",
    "proposal",
    "verdict",
    "approval",
    "rollout",
    "waiver",
    "evidence",
    "route_version",
    "route_fallback",
    "switch",
    "provider",
    "credential",
    "sign_in",
    "provider_check",
    "served_model",
    "shadow",
    "shadow_tally",
    "drift_watch",
    "drift_check",
    "block",
    "traffic",
    "captured",
    "alert",
    "delivery",
    "failover",
    "audit_event",
    "manifest",
    "meta",
)


def upgrade() -> None:
    create_evals()
    create_access()
    create_proposals()
    create_routing()
    create_providers()
    create_shadow()
    create_drift()
    create_operations()
    create_history()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def create_evals() -> None:
    """What was measured: targets, suites, runs and their samples."""
    op.create_table(
        "target",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("request_patch", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_target")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "suite",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("data_sha256", sa.Text(), nullable=False),
        sa.Column("scorer", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("texts", sa.Text(), server_default="", nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("items >= 0", name=op.f("ck_suite_items_least")),
        sa.PrimaryKeyConstraint("project", "digest", name=op.f("pk_suite")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
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
        sa.Column("signature", sa.Text(), nullable=True),
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
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_eval_run_created_at", "eval_run", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_eval_run_fingerprint", "eval_run", ["fingerprint", "created_at"], unique=False
    )
    op.create_index("ix_eval_run_lease_owner", "eval_run", ["lease_owner"], unique=False)
    op.create_index("ix_eval_run_state", "eval_run", ["state"], unique=False)
    op.create_index("ix_eval_run_target", "eval_run", ["target", "created_at"], unique=False)
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
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("judge_calls", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("judge_cost_usd", sa.Double(), nullable=True),
        sa.Column("served_build", sa.Text(), nullable=False),
        sa.Column("judge_model", sa.Text(), nullable=False),
        sa.Column("judge_build", sa.Text(), nullable=False),
        sa.Column("answer_sha256", sa.Text(), nullable=True),
        sa.Column("prompt_sha256", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "error IN ('unscored', 'infra')", name=op.f("ck_sample_error_known")
        ),
        sa.CheckConstraint("cached_tokens >= 0", name=op.f("ck_sample_cached_tokens_least")),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_sample_cost_usd_amount")
        ),
        sa.CheckConstraint(
            "duration_s >= 0 AND duration_s < 1e15", name=op.f("ck_sample_duration_s_amount")
        ),
        sa.CheckConstraint("input_tokens >= 0", name=op.f("ck_sample_input_tokens_least")),
        sa.CheckConstraint("judge_calls >= 0", name=op.f("ck_sample_judge_calls_least")),
        sa.CheckConstraint(
            "judge_cost_usd >= 0 AND judge_cost_usd < 1e15",
            name=op.f("ck_sample_judge_cost_usd_amount"),
        ),
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
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_sample_run_position", "sample", ["run", "position", "epoch"], unique=False
    )


def create_access() -> None:
    """Who acts, with which key and what the key spent."""
    op.create_table(
        "principal",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("folded", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('local', 'person', 'service')", name=op.f("ck_principal_kind_known")
        ),
        sa.CheckConstraint("trim(folded) <> ''", name=op.f("ck_principal_folded_not_blank")),
        sa.CheckConstraint("trim(id) <> ''", name=op.f("ck_principal_id_not_blank")),
        sa.CheckConstraint("trim(name) <> ''", name=op.f("ck_principal_name_not_blank")),
        sa.CheckConstraint(
            "(issuer IS NULL) = (subject IS NULL)", name=op.f("ck_principal_signed_in_whole")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principal")),
        sa.UniqueConstraint("folded", name=op.f("uq_principal_folded")),
        sa.UniqueConstraint("issuer", "subject", name="uq_principal_signed_in"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "api_key",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("role", sa.BigInteger(), nullable=True),
        sa.Column("routes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("limits", sa.Text(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created_with", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("role BETWEEN 1 AND 4", name=op.f("ck_api_key_role_known")),
        sa.ForeignKeyConstraint(
            ["principal"], ["principal.id"], name=op.f("fk_api_key_principal")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_key_hash")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "key_spend",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_key_spend_cost_usd_amount")
        ),
        sa.CheckConstraint("requests >= 0", name=op.f("ck_key_spend_requests_least")),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_key_spend_tokens_least")),
        sa.CheckConstraint("unpriced >= 0", name=op.f("ck_key_spend_unpriced_least")),
        sa.PrimaryKeyConstraint("key", "day", "worker", name=op.f("pk_key_spend")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_key_spend_day", "key_spend", ["day"], unique=False)


def create_proposals() -> None:
    """What was proposed, judged, approved and rolled out."""
    op.create_table(
        "proposal",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
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
        sa.Column("widened", sa.Text(), server_default="{}", nullable=False),
        sa.Column("proposer_principal", sa.Text(), server_default="", nullable=False),
        sa.Column("proposer_key", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "claim IN ('superior', 'non_inferior', 'cheaper_and_not_worse')",
            name=op.f("ck_proposal_claim_known"),
        ),
        sa.CheckConstraint(
            "phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow',"
            " 'canary', 'promoted', 'rejected', 'rolled_back', 'cancelled')",
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
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_proposal_candidate", "proposal", ["candidate"], unique=False)
    op.create_index("ix_proposal_created_at", "proposal", ["created_at", "id"], unique=False)
    op.create_index("ix_proposal_phase", "proposal", ["phase"], unique=False)
    op.create_index("ix_proposal_route", "proposal", ["route", "created_at"], unique=False)
    op.create_index(
        "ux_proposal_open_route",
        "proposal",
        ["project", "route"],
        unique=True,
        sqlite_where=sa.text(
            "phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary')"
        ),
        postgresql_where=sa.text(
            "phase IN ('proposed', 'evaluating', 'awaiting_approval', 'shadow', 'canary')"
        ),
    )
    op.create_table(
        "verdict",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
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
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('passed', 'failed', 'inconclusive',"
            " 'harness_mismatch', 'infra_error')",
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
            "id",
            "project",
            "route",
            "incumbent",
            "candidate",
            "outcome",
            name="uq_verdict_proof",
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_verdict_proposal", "verdict", ["proposal"], unique=False)
    op.create_index("ix_verdict_route", "verdict", ["route", "decided_at"], unique=False)
    op.create_table(
        "approval",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("proposal", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("widened", sa.Text(), server_default="{}", nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('canary', 'promotion')", name=op.f("ck_approval_kind_known")
        ),
        sa.CheckConstraint("trim(name) <> ''", name=op.f("ck_approval_name_not_blank")),
        sa.CheckConstraint(
            "trim(principal) <> ''", name=op.f("ck_approval_principal_not_blank")
        ),
        sa.ForeignKeyConstraint(["key"], ["api_key.id"], name=op.f("fk_approval_key")),
        sa.ForeignKeyConstraint(
            ["proposal"], ["proposal.id"], name=op.f("fk_approval_proposal")
        ),
        sa.ForeignKeyConstraint(["verdict"], ["verdict.id"], name=op.f("fk_approval_verdict")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_approval_proposal", "approval", ["proposal", "at"], unique=False)
    op.create_index("ix_approval_verdict", "approval", ["verdict"], unique=False)
    op.create_table(
        "rollout",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
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
        sa.Column("bake_ends_at", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
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
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_rollout_proposal", "rollout", ["proposal"], unique=False)
    op.create_index("ix_rollout_route", "rollout", ["route", "started_at"], unique=False)
    op.create_index("ix_rollout_state", "rollout", ["state"], unique=False)
    op.create_index(
        "ux_rollout_live_route",
        "rollout",
        ["project", "route"],
        unique=True,
        sqlite_where=sa.text("state IN ('waiting', 'measuring', 'paused')"),
        postgresql_where=sa.text("state IN ('waiting', 'measuring', 'paused')"),
    )


def create_routing() -> None:
    """What serves, and the evidence that it may."""
    op.create_table(
        "waiver",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("trim(author) <> ''", name=op.f("ck_waiver_author_not_blank")),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f("ck_waiver_reason_not_blank")),
        sa.ForeignKeyConstraint(["target"], ["target.id"], name=op.f("fk_waiver_target")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waiver")),
        sa.UniqueConstraint("id", "project", "route", "target", name="uq_waiver_proof"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evidence",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("verdict_id", sa.Text(), nullable=True),
        sa.Column("verdict_incumbent", sa.Text(), nullable=True),
        sa.Column("verdict_outcome", sa.Text(), nullable=True),
        sa.Column("waiver_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(kind = 'verdict' AND verdict_id IS NOT NULL"
            " AND verdict_incumbent IS NOT NULL AND verdict_outcome IS NOT NULL"
            " AND verdict_outcome = 'passed') OR (kind <> 'verdict'"
            " AND verdict_id IS NULL AND verdict_incumbent IS NULL"
            " AND verdict_outcome IS NULL)",
            name=op.f("ck_evidence_verdict_passed"),
        ),
        sa.CheckConstraint(
            "(kind = 'waiver') = (waiver_id IS NOT NULL)", name=op.f("ck_evidence_waiver_named")
        ),
        sa.CheckConstraint(
            "kind IN ('baseline', 'verdict', 'waiver')", name=op.f("ck_evidence_kind_known")
        ),
        sa.ForeignKeyConstraint(["target"], ["target.id"], name=op.f("fk_evidence_target")),
        sa.ForeignKeyConstraint(
            [
                "verdict_id",
                "project",
                "route",
                "verdict_incumbent",
                "target",
                "verdict_outcome",
            ],
            [
                "verdict.id",
                "verdict.project",
                "verdict.route",
                "verdict.incumbent",
                "verdict.candidate",
                "verdict.outcome",
            ],
            name="fk_evidence_verdict",
        ),
        sa.ForeignKeyConstraint(
            ["waiver_id", "project", "route", "target"],
            ["waiver.id", "waiver.project", "waiver.route", "waiver.target"],
            name="fk_evidence_waiver",
        ),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_evidence")),
        sa.UniqueConstraint("id", "project", "route", "target", name="uq_evidence_proof"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "route_version",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("incumbent_evidence", sa.Text(), nullable=False),
        sa.Column("canary", sa.Text(), nullable=True),
        sa.Column("canary_evidence", sa.Text(), nullable=True),
        sa.Column("weight_bps", sa.BigInteger(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=True),
        sa.Column("rollout", sa.Text(), nullable=True),
        sa.Column("unit_rule", sa.Text(), nullable=True),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("prev_version", sa.BigInteger(), nullable=True),
        sa.Column("prev_incumbent", sa.Text(), nullable=True),
        sa.Column("verdict_id", sa.Text(), nullable=True),
        sa.Column("verdict_candidate", sa.Text(), nullable=True),
        sa.Column("verdict_outcome", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("holdback", sa.Text(), nullable=True),
        sa.Column("holdback_plan", sa.Text(), nullable=True),
        sa.Column("prev_signature", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(kind IN ('canary', 'promotion') AND verdict_id IS NOT NULL"
            " AND verdict_candidate IS NOT NULL AND verdict_outcome IS NOT NULL"
            " AND verdict_outcome = 'passed')"
            " OR (kind NOT IN ('canary', 'promotion') AND verdict_id IS NULL"
            " AND verdict_candidate IS NULL AND verdict_outcome IS NULL)",
            name=op.f("ck_route_version_proof_passed"),
        ),
        sa.CheckConstraint(
            "(version = 1 AND kind = 'baseline' AND prev_version IS NULL"
            " AND prev_incumbent IS NULL) OR (version > 1"
            " AND kind <> 'baseline' AND prev_version IS NOT NULL"
            " AND prev_version = version - 1 AND prev_incumbent IS NOT NULL)",
            name=op.f("ck_route_version_version_follows"),
        ),
        sa.CheckConstraint(
            "kind <> 'canary' OR (canary IS NOT NULL AND canary = verdict_candidate)",
            name=op.f("ck_route_version_canary_is_the_candidate"),
        ),
        sa.CheckConstraint(
            "kind <> 'promotion' OR incumbent = verdict_candidate",
            name=op.f("ck_route_version_promotes_the_candidate"),
        ),
        sa.CheckConstraint(
            "kind <> 'weight' OR canary IS NOT NULL",
            name=op.f("ck_route_version_weight_of_a_canary"),
        ),
        sa.CheckConstraint(
            "kind IN ('baseline', 'canary', 'weight', 'promotion', 'abort',"
            " 'restore', 'settings')",
            name=op.f("ck_route_version_kind_known"),
        ),
        sa.CheckConstraint(
            "kind NOT IN ('baseline', 'promotion', 'abort', 'restore') OR canary IS NULL",
            name=op.f("ck_route_version_canary_gone"),
        ),
        sa.CheckConstraint(
            "kind NOT IN ('canary', 'weight', 'abort', 'settings')"
            " OR incumbent = prev_incumbent",
            name=op.f("ck_route_version_incumbent_stays"),
        ),
        sa.CheckConstraint("trim(route) <> ''", name=op.f("ck_route_version_route_not_blank")),
        sa.CheckConstraint(
            "(canary IS NULL AND canary_evidence IS NULL AND weight_bps = 0"
            " AND salt IS NULL AND rollout IS NULL AND unit_rule IS NULL)"
            " OR (canary IS NOT NULL AND canary_evidence IS NOT NULL"
            " AND weight_bps BETWEEN 1 AND 10000 AND salt IS NOT NULL"
            " AND rollout IS NOT NULL AND unit_rule IS NOT NULL)",
            name=op.f("ck_route_version_canary_whole"),
        ),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_route_version_revision_least")),
        sa.ForeignKeyConstraint(
            ["canary_evidence", "project", "route", "canary"],
            ["evidence.id", "evidence.project", "evidence.route", "evidence.target"],
            name="fk_route_version_canary_evidence",
        ),
        sa.ForeignKeyConstraint(
            ["incumbent_evidence", "project", "route", "incumbent"],
            ["evidence.id", "evidence.project", "evidence.route", "evidence.target"],
            name="fk_route_version_incumbent_evidence",
        ),
        sa.ForeignKeyConstraint(
            ["project", "route", "prev_version", "prev_incumbent"],
            [
                "route_version.project",
                "route_version.route",
                "route_version.version",
                "route_version.incumbent",
            ],
            name="fk_route_version_base",
        ),
        sa.ForeignKeyConstraint(
            [
                "verdict_id",
                "project",
                "route",
                "prev_incumbent",
                "verdict_candidate",
                "verdict_outcome",
            ],
            [
                "verdict.id",
                "verdict.project",
                "verdict.route",
                "verdict.incumbent",
                "verdict.candidate",
                "verdict.outcome",
            ],
            name="fk_route_version_proof",
        ),
        sa.PrimaryKeyConstraint("project", "route", "version", name=op.f("pk_route_version")),
        sa.UniqueConstraint(
            "project", "route", "version", "incumbent", name="uq_route_version_base"
        ),
        sa.UniqueConstraint("revision", name=op.f("uq_route_version_revision")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "route_fallback",
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_route_fallback_position_least")),
        sa.ForeignKeyConstraint(
            ["evidence", "project", "route", "target"],
            ["evidence.id", "evidence.project", "evidence.route", "evidence.target"],
            name="fk_route_fallback_evidence",
        ),
        sa.ForeignKeyConstraint(
            ["project", "route", "version"],
            ["route_version.project", "route_version.route", "route_version.version"],
            name="fk_route_fallback_version",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint(
            "project", "route", "version", "position", name=op.f("pk_route_fallback")
        ),
        sa.UniqueConstraint(
            "project", "route", "version", "target", name="uq_route_fallback_target"
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "switch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("lifted_at", sa.BigInteger(), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('provider', 'target')", name=op.f("ck_switch_kind_known")),
        sa.CheckConstraint("source IN ('cli', 'rest')", name=op.f("ck_switch_source_known")),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f("ck_switch_reason_not_blank")),
        sa.CheckConstraint(
            "(lifted_at IS NULL) = (lifted_by IS NULL)", name=op.f("ck_switch_lifted_by_whom")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_switch")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def create_providers() -> None:
    """Providers, their keys and what they answered."""
    op.create_table(
        "provider",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("api_base", sa.Text(), nullable=False),
        sa.Column("api_key_env", sa.Text(), nullable=True),
        sa.Column("extra_headers", sa.Text(), nullable=False),
        sa.Column("prices", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("more_api_key_envs", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("extra_body", sa.Text(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.Column("sealed_headers", sa.Text(), nullable=False),
        sa.Column("answers_since", sa.BigInteger(), nullable=True),
        sa.Column("moved_by", sa.Text(), nullable=True),
        sa.Column("moved_because", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_provider")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "credential",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("trim(name) <> ''", name=op.f("ck_credential_name_not_blank")),
        sa.ForeignKeyConstraint(
            ["provider"], ["provider.name"], name=op.f("fk_credential_provider")
        ),
        sa.PrimaryKeyConstraint("provider", "name", name=op.f("pk_credential")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sign_in",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("signed_in_at", sa.BigInteger(), nullable=False),
        sa.Column("signed_in_by", sa.Text(), nullable=False),
        sa.Column("renewed_at", sa.BigInteger(), nullable=False),
        sa.Column("account_due", sa.BigInteger(), nullable=True),
        sa.Column("access_due", sa.BigInteger(), nullable=True),
        sa.Column("access_ends", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "trim(ciphertext) <> ''", name=op.f("ck_sign_in_ciphertext_not_blank")
        ),
        sa.ForeignKeyConstraint(
            ["provider"], ["provider.name"], name=op.f("fk_sign_in_provider")
        ),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_sign_in")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "provider_check",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.Column("first_token_ms", sa.Double(), nullable=True),
        sa.Column("clock_skew_s", sa.Double(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider"], ["provider.name"], name=op.f("fk_provider_check_provider")
        ),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_provider_check")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "served_model",
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("build", sa.Text(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first_at <= last_at", name=op.f("ck_served_model_in_order")),
        sa.PrimaryKeyConstraint("target", "model", "build", name=op.f("pk_served_model")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def create_shadow() -> None:
    """Requests mirrored to a candidate."""
    op.create_table(
        "shadow",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("data_class", sa.Text(), nullable=False),
        sa.Column("share_bps", sa.BigInteger(), nullable=False),
        sa.Column("at_once", sa.BigInteger(), nullable=False),
        sa.Column("requests_per_day", sa.BigInteger(), nullable=False),
        sa.Column("usd_per_day", sa.Double(), nullable=True),
        sa.Column("usd_in_all", sa.Double(), nullable=True),
        sa.Column("proposal", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("ended_because", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f("ck_shadow_reason_not_blank")),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (ended_by IS NULL)", name=op.f("ck_shadow_ended_by_whom")
        ),
        sa.CheckConstraint("at_once BETWEEN 1 AND 64", name=op.f("ck_shadow_at_once_range")),
        sa.CheckConstraint("expires_at > started_at", name=op.f("ck_shadow_expires_later")),
        sa.CheckConstraint("incumbent <> candidate", name=op.f("ck_shadow_another_target")),
        sa.CheckConstraint(
            "requests_per_day >= 1", name=op.f("ck_shadow_requests_per_day_least")
        ),
        sa.CheckConstraint(
            "share_bps BETWEEN 1 AND 10000", name=op.f("ck_shadow_share_bps_range")
        ),
        sa.CheckConstraint(
            "usd_in_all >= 0 AND usd_in_all < 1e15", name=op.f("ck_shadow_usd_in_all_amount")
        ),
        sa.CheckConstraint(
            "usd_per_day >= 0 AND usd_per_day < 1e15", name=op.f("ck_shadow_usd_per_day_amount")
        ),
        sa.ForeignKeyConstraint(["candidate"], ["target.id"], name=op.f("fk_shadow_candidate")),
        sa.ForeignKeyConstraint(["incumbent"], ["target.id"], name=op.f("fk_shadow_incumbent")),
        sa.ForeignKeyConstraint(["proposal"], ["proposal.id"], name=op.f("fk_shadow_proposal")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "uq_shadow_live",
        "shadow",
        ["route"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "shadow_tally",
        sa.Column("shadow", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["shadow"], ["shadow.id"], name=op.f("fk_shadow_tally_shadow")),
        sa.PrimaryKeyConstraint("shadow", "day", "worker", name=op.f("pk_shadow_tally")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def create_drift() -> None:
    """Checks of targets that serve."""
    op.create_table(
        "drift_watch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("suite_digest", sa.Text(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("epochs", sa.BigInteger(), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_at IS NOT NULL)",
            name=op.f("ck_drift_watch_closed_when"),
        ),
        sa.CheckConstraint(
            "state IN ('watching', 'drifted', 'closed')",
            name=op.f("ck_drift_watch_state_known"),
        ),
        sa.CheckConstraint("alpha > 0 AND alpha < 1", name=op.f("ck_drift_watch_alpha_share")),
        sa.CheckConstraint("epochs >= 1", name=op.f("ck_drift_watch_epochs_least")),
        sa.CheckConstraint("items >= 1", name=op.f("ck_drift_watch_items_least")),
        sa.ForeignKeyConstraint(["target"], ["target.id"], name=op.f("fk_drift_watch_target")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_watch")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "uq_drift_watch_open",
        "drift_watch",
        ["target", "suite"],
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "drift_check",
        sa.Column("watch", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("served", sa.Text(), nullable=False),
        sa.Column("scores", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (ended_at IS NULL)", name=op.f("ck_drift_check_ended_when")
        ),
        sa.CheckConstraint(
            "state IN ('running', 'counted', 'not_measured')",
            name=op.f("ck_drift_check_state_known"),
        ),
        sa.CheckConstraint("number >= 0", name=op.f("ck_drift_check_number_least")),
        sa.ForeignKeyConstraint(["run"], ["eval_run.id"], name=op.f("fk_drift_check_run")),
        sa.ForeignKeyConstraint(
            ["watch"], ["drift_watch.id"], name=op.f("fk_drift_check_watch")
        ),
        sa.PrimaryKeyConstraint("watch", "number", name=op.f("pk_drift_check")),
        sa.UniqueConstraint("run", name=op.f("uq_drift_check_run")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_drift_check_started_at", "drift_check", ["started_at"], unique=False)
    op.create_index(
        "uq_drift_check_running",
        "drift_check",
        ["watch"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )


def create_operations() -> None:
    """What happens while it runs."""
    op.create_table(
        "block",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("weight_bps", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("canary_units", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("canary_failures", sa.BigInteger(), nullable=False),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("counts", sa.Text(), nullable=True),
        sa.Column("ranks", sa.Text(), nullable=True),
        sa.Column("levels", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "failures >= 0 AND canary_failures BETWEEN 0 AND canary_units"
            " AND failures - canary_failures BETWEEN 0 AND units - canary_units",
            name=op.f("ck_block_failures_range"),
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_block_number_least")),
        sa.CheckConstraint("period >= 1", name=op.f("ck_block_period_least")),
        sa.CheckConstraint(
            "units >= 0 AND canary_units BETWEEN 0 AND units AND missing BETWEEN 0 AND units",
            name=op.f("ck_block_units_range"),
        ),
        sa.CheckConstraint(
            "weight_bps BETWEEN 0 AND 10000", name=op.f("ck_block_weight_bps_range")
        ),
        sa.PrimaryKeyConstraint("rollout", "number", name=op.f("pk_block")),
        sa.UniqueConstraint("rollout", "worker", "sequence", name="uq_block_sent_once"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "traffic",
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("streams", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("latency_ms", sa.Text(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unpriced", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("internal_errors", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "arm IN ('incumbent', 'canary', 'holdback', 'keep_warm')",
            name=op.f("ck_traffic_arm_known"),
        ),
        sa.CheckConstraint("cached_tokens >= 0", name=op.f("ck_traffic_cached_tokens_least")),
        sa.CheckConstraint("charged >= 0", name=op.f("ck_traffic_charged_least")),
        sa.CheckConstraint(
            "cost_usd >= 0 AND cost_usd < 1e15", name=op.f("ck_traffic_cost_usd_amount")
        ),
        sa.CheckConstraint("failed >= 0", name=op.f("ck_traffic_failed_least")),
        sa.CheckConstraint("input_tokens >= 0", name=op.f("ck_traffic_input_tokens_least")),
        sa.CheckConstraint(
            "internal_errors >= 0", name=op.f("ck_traffic_internal_errors_least")
        ),
        sa.CheckConstraint("output_tokens >= 0", name=op.f("ck_traffic_output_tokens_least")),
        sa.CheckConstraint("requests >= 0", name=op.f("ck_traffic_requests_least")),
        sa.CheckConstraint("streams >= 0", name=op.f("ck_traffic_streams_least")),
        sa.CheckConstraint("unpriced >= 0", name=op.f("ck_traffic_unpriced_least")),
        sa.PrimaryKeyConstraint(
            "route", "minute", "worker", "arm", "target", "revision", name=op.f("pk_traffic")
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_traffic_minute", "traffic", ["minute"], unique=False)
    op.create_table(
        "captured",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("data_class", sa.Text(), nullable=False),
        sa.Column("user_hash", sa.Text(), nullable=False),
        sa.Column("share_bps", sa.BigInteger(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("redactions", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("expires_at > at", name=op.f("ck_captured_expires_later")),
        sa.CheckConstraint("length(rules) = 64", name=op.f("ck_captured_rules_known")),
        sa.CheckConstraint("seen >= 1", name=op.f("ck_captured_seen_least")),
        sa.CheckConstraint(
            "share_bps BETWEEN 1 AND 10000", name=op.f("ck_captured_share_bps_range")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_captured")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_captured_at", "captured", ["at", "id"], unique=False)
    op.create_index("ix_captured_expires_at", "captured", ["expires_at"], unique=False)
    op.create_index("ix_captured_route", "captured", ["route", "at"], unique=False)
    op.create_index("ix_captured_user_hash", "captured", ["user_hash"], unique=False)
    op.create_table(
        "alert",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("sources", sa.Text(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.Column("told", sa.Text(), nullable=True),
        sa.Column("told_at", sa.BigInteger(), nullable=True),
        sa.Column("told_count", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("told IN ('raised', 'resolved')", name=op.f("ck_alert_told_known")),
        sa.CheckConstraint(
            "(told IS NULL) = (told_at IS NULL)"
            " AND (told IS NULL) = (messages = 0) AND messages >= 0",
            name=op.f("ck_alert_told_when"),
        ),
        sa.CheckConstraint("count >= 1", name=op.f("ck_alert_count_least")),
        sa.CheckConstraint("last_seen >= first_seen", name=op.f("ck_alert_seen_in_order")),
        sa.CheckConstraint(
            "told_count BETWEEN 0 AND count", name=op.f("ck_alert_told_count_range")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_alert_key", "alert", ["key", "first_seen"], unique=False)
    op.create_index("ix_alert_last_seen", "alert", ["last_seen"], unique=False)
    op.create_index(
        "uq_alert_open",
        "alert",
        ["key"],
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "delivery",
        sa.Column("alert", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("gave_up_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "message IN ('raised', 'resolved')", name=op.f("ck_delivery_message_known")
        ),
        sa.CheckConstraint(
            "(next_attempt_at IS NOT NULL AND delivered_at IS NULL"
            " AND gave_up_at IS NULL) OR (next_attempt_at IS NULL"
            " AND delivered_at IS NOT NULL AND gave_up_at IS NULL)"
            " OR (next_attempt_at IS NULL AND delivered_at IS NULL"
            " AND gave_up_at IS NOT NULL)",
            name=op.f("ck_delivery_one_state"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_delivery_attempts_least")),
        sa.CheckConstraint(
            "delivered_at IS NULL OR attempts > 0",
            name=op.f("ck_delivery_delivered_by_attempt"),
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_delivery_number_least")),
        sa.ForeignKeyConstraint(
            ["alert"], ["alert.id"], name=op.f("fk_delivery_alert"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("alert", "number", "sink", name=op.f("pk_delivery")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_delivery_next_attempt_at", "delivery", ["next_attempt_at"], unique=False
    )
    op.create_table(
        "failover",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("arm", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("tools", sa.BigInteger(), nullable=False),
        sa.Column("user_hash", sa.Text(), nullable=False),
        sa.Column("next_target", sa.Text(), nullable=True),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_failover_attempts_least")),
        sa.CheckConstraint("body_bytes >= 0", name=op.f("ck_failover_body_bytes_least")),
        sa.CheckConstraint(
            "latency_ms >= 0 AND latency_ms < 1e15", name=op.f("ck_failover_latency_ms_amount")
        ),
        sa.CheckConstraint("messages >= 0", name=op.f("ck_failover_messages_least")),
        sa.CheckConstraint("tools >= 0", name=op.f("ck_failover_tools_least")),
        sa.PrimaryKeyConstraint("worker", "number", name=op.f("pk_failover")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_failover_at", "failover", ["at"], unique=False)
    op.create_index("ix_failover_user_hash", "failover", ["user_hash", "at"], unique=False)


def create_history() -> None:
    """The audit log and the database's own place in it."""
    op.create_table(
        "audit_event",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("mac", sa.Text(), nullable=False),
        sa.Column("rows", sa.Text(), nullable=True),
        sa.Column("principal", sa.Text(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.CheckConstraint("number >= 1", name=op.f("ck_audit_event_number_least")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_event")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_audit_event_subject", "audit_event", ["subject", "number"], unique=False
    )
    op.create_table(
        "manifest",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("revoked", sa.Text(), server_default="", nullable=False),
        sa.Column("log_end", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("epoch >= 1", name=op.f("ck_manifest_epoch_least")),
        sa.CheckConstraint("id = 1", name=op.f("ck_manifest_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifest")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meta",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("revision_floor", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_meta_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meta")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
