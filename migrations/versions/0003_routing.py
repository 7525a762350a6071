"""The routing table and the evidence that every target in it refers to."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("api_base", sa.Text(), nullable=False),
        sa.Column("api_key_env", sa.Text(), nullable=True),
        sa.Column("extra_headers", sa.Text(), nullable=False),
        sa.Column("prices", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_provider")),
    )
    op.create_table(
        "waiver",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("trim(author) <> ''", name=op.f("ck_waiver_author_not_blank")),
        sa.CheckConstraint("trim(reason) <> ''", name=op.f("ck_waiver_reason_not_blank")),
        sa.ForeignKeyConstraint(["target"], ["target.id"], name=op.f("fk_waiver_target")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waiver")),
        sa.UniqueConstraint("id", "route", "target", name="uq_waiver_proof"),
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("verdict_id", sa.Text(), nullable=True),
        sa.Column("verdict_incumbent", sa.Text(), nullable=True),
        sa.Column("verdict_outcome", sa.Text(), nullable=True),
        sa.Column("waiver_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(kind = 'verdict' AND verdict_id IS NOT NULL AND verdict_incumbent IS NOT"
            " NULL AND verdict_outcome IS NOT NULL AND verdict_outcome = 'passed') OR"
            " (kind <> 'verdict' AND verdict_id IS NULL AND verdict_incumbent IS NULL AND"
            " verdict_outcome IS NULL)",
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
            ["verdict_id", "route", "verdict_incumbent", "target", "verdict_outcome"],
            [
                "verdict.id",
                "verdict.route",
                "verdict.incumbent",
                "verdict.candidate",
                "verdict.outcome",
            ],
            name="fk_evidence_verdict",
        ),
        sa.ForeignKeyConstraint(
            ["waiver_id", "route", "target"],
            ["waiver.id", "waiver.route", "waiver.target"],
            name="fk_evidence_waiver",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
        sa.UniqueConstraint("id", "route", "target", name="uq_evidence_proof"),
    )
    op.create_table(
        "route_version",
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
        sa.CheckConstraint(
            "(kind IN ('canary', 'promotion') AND verdict_id IS NOT NULL AND"
            " verdict_candidate IS NOT NULL AND verdict_outcome IS NOT NULL AND"
            " verdict_outcome = 'passed') OR (kind NOT IN ('canary', 'promotion') AND"
            " verdict_id IS NULL AND verdict_candidate IS NULL AND verdict_outcome IS"
            " NULL)",
            name=op.f("ck_route_version_proof_passed"),
        ),
        sa.CheckConstraint(
            "(version = 1 AND kind = 'baseline' AND prev_version IS NULL AND"
            " prev_incumbent IS NULL) OR (version > 1 AND kind <> 'baseline' AND"
            " prev_version IS NOT NULL AND prev_version = version - 1 AND prev_incumbent"
            " IS NOT NULL)",
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
            "kind IN ('baseline', 'canary', 'weight', 'promotion', 'abort', 'restore',"
            " 'settings')",
            name=op.f("ck_route_version_kind_known"),
        ),
        sa.CheckConstraint(
            "kind NOT IN ('baseline', 'promotion', 'abort', 'restore') OR canary IS NULL",
            name=op.f("ck_route_version_canary_gone"),
        ),
        sa.CheckConstraint(
            "kind NOT IN ('canary', 'weight', 'abort', 'settings') OR incumbent ="
            " prev_incumbent",
            name=op.f("ck_route_version_incumbent_stays"),
        ),
        sa.CheckConstraint("trim(route) <> ''", name=op.f("ck_route_version_route_not_blank")),
        sa.CheckConstraint(
            "(canary IS NULL AND canary_evidence IS NULL AND weight_bps = 0 AND salt IS"
            " NULL AND rollout IS NULL AND unit_rule IS NULL) OR (canary IS NOT NULL AND"
            " canary_evidence IS NOT NULL AND weight_bps BETWEEN 1 AND 10000 AND salt IS"
            " NOT NULL AND rollout IS NOT NULL AND unit_rule IS NOT NULL)",
            name=op.f("ck_route_version_canary_whole"),
        ),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_route_version_revision_least")),
        sa.ForeignKeyConstraint(
            ["canary_evidence", "route", "canary"],
            ["evidence.id", "evidence.route", "evidence.target"],
            name="fk_route_version_canary_evidence",
        ),
        sa.ForeignKeyConstraint(
            ["incumbent_evidence", "route", "incumbent"],
            ["evidence.id", "evidence.route", "evidence.target"],
            name="fk_route_version_incumbent_evidence",
        ),
        sa.ForeignKeyConstraint(
            ["route", "prev_version", "prev_incumbent"],
            ["route_version.route", "route_version.version", "route_version.incumbent"],
            name="fk_route_version_base",
        ),
        sa.ForeignKeyConstraint(
            ["verdict_id", "route", "prev_incumbent", "verdict_candidate", "verdict_outcome"],
            [
                "verdict.id",
                "verdict.route",
                "verdict.incumbent",
                "verdict.candidate",
                "verdict.outcome",
            ],
            name="fk_route_version_proof",
        ),
        sa.PrimaryKeyConstraint("route", "version", name=op.f("pk_route_version")),
        sa.UniqueConstraint("revision", name=op.f("uq_route_version_revision")),
        sa.UniqueConstraint("route", "version", "incumbent", name="uq_route_version_base"),
    )
    op.create_table(
        "route_fallback",
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_route_fallback_position_least")),
        sa.ForeignKeyConstraint(
            ["evidence", "route", "target"],
            ["evidence.id", "evidence.route", "evidence.target"],
            name="fk_route_fallback_evidence",
        ),
        sa.ForeignKeyConstraint(
            ["route", "version"],
            ["route_version.route", "route_version.version"],
            name="fk_route_fallback_version",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("route", "version", "position", name=op.f("pk_route_fallback")),
        sa.UniqueConstraint("route", "version", "target", name="uq_route_fallback_target"),
    )


def downgrade() -> None:
    op.drop_table("route_fallback")
    op.drop_table("route_version")
    op.drop_table("evidence")
    op.drop_table("waiver")
    op.drop_table("provider")
