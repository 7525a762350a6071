"""Tables of providers and of the routing table (versions, fallback chains, evidence, waivers),
with its promise: no target in any role without evidence.

One append-only row per route and version; the highest is the current one, and the primary key
is the compare-and-swap. What a row alone can show is a CHECK or a foreign key here; what needs
the row before it is a trigger (`store/guards`). A CHECK passes on NULL, hence each IS NOT NULL.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.routing.route_changes import CHANGE_KINDS
from harness.store.schema.columns import (
    FreeText,
    at_least,
    count,
    json_value,
    metadata,
    not_blank,
    one_of,
    project,
    signature,
    text,
    time,
    words,
)
from harness.store.schema.evals import target
from harness.store.schema.proposals import verdict

# The columns of a verdict that its proof is made of, as foreign keys name them.
_PROOF: Final = ("id", "project", "route", "incumbent", "candidate", "outcome")

# Its row stays when it is removed: its keys' rows stand on it.
provider = sa.Table(
    "provider",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    text("kind"),
    text("api_base"),
    text("api_key_env", nullable=True),
    json_value("extra_headers"),
    json_value("prices"),
    time("updated_at"),
    json_value("more_api_key_envs"),
    json_value("models"),
    json_value("extra_body"),
    time("removed_at", nullable=True),
    json_value("sealed_headers"),
    time("answers_since", nullable=True),
    text("moved_by", nullable=True),
    sa.Column("moved_because", FreeText, nullable=True),
    signature(),
)

# Append-only (trigger).
waiver = sa.Table(
    "waiver",
    metadata,
    project(),
    sa.Column("id", sa.Text, primary_key=True),
    text("route"),
    sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
    words("reason"),
    words("author"),
    time("expires_at"),
    signature(),
    not_blank("reason"),
    not_blank("author"),
    sa.UniqueConstraint("id", "project", "route", "target", name="uq_waiver_proof"),
)

# Append-only; `baseline` only before the route's first version (triggers).
evidence = sa.Table(
    "evidence",
    metadata,
    project(),
    text("id"),
    text("route"),
    sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
    text("kind"),
    text("verdict_id", nullable=True),
    text("verdict_incumbent", nullable=True),
    text("verdict_outcome", nullable=True),
    text("waiver_id", nullable=True),
    time("created_at"),
    signature(),
    # The id is a hash of the rest, and routes of two projects may be called alike.
    sa.PrimaryKeyConstraint("project", "id"),
    one_of("kind", ("baseline", "verdict", "waiver")),
    sa.CheckConstraint(
        "(kind = 'verdict' AND verdict_id IS NOT NULL AND verdict_incumbent IS NOT NULL"
        " AND verdict_outcome IS NOT NULL AND verdict_outcome = 'passed')"
        " OR (kind <> 'verdict' AND verdict_id IS NULL AND verdict_incumbent IS NULL"
        " AND verdict_outcome IS NULL)",
        name="verdict_passed",
    ),
    sa.CheckConstraint("(kind = 'waiver') = (waiver_id IS NOT NULL)", name="waiver_named"),
    sa.UniqueConstraint("id", "project", "route", "target", name="uq_evidence_proof"),
    sa.ForeignKeyConstraint(
        ["verdict_id", "project", "route", "verdict_incumbent", "target", "verdict_outcome"],
        [verdict.c[name] for name in _PROOF],
        name="fk_evidence_verdict",
    ),
    sa.ForeignKeyConstraint(
        ["waiver_id", "project", "route", "target"],
        [waiver.c.id, waiver.c.project, waiver.c.route, waiver.c.target],
        name="fk_evidence_waiver",
    ),
)

# Append-only; compared with the version before it (triggers).
route_version = sa.Table(
    "route_version",
    metadata,
    project(),
    text("route"),
    count("version"),
    count("revision"),
    text("kind"),
    text("incumbent"),
    text("incumbent_evidence"),
    text("canary", nullable=True),
    text("canary_evidence", nullable=True),
    count("weight_bps"),
    text("salt", nullable=True),
    text("rollout", nullable=True),
    json_value("unit_rule", nullable=True),
    json_value("settings"),
    count("prev_version", nullable=True),
    text("prev_incumbent", nullable=True),
    text("verdict_id", nullable=True),
    text("verdict_candidate", nullable=True),
    text("verdict_outcome", nullable=True),
    time("at"),
    words("actor"),
    words("reason"),
    # While a promotion bakes: the incumbent before it, and its share (triggers).
    text("holdback", nullable=True),
    json_value("holdback_plan", nullable=True),
    # The signature of the version before it: a chain per route.
    text("prev_signature", nullable=True),
    signature(),
    sa.PrimaryKeyConstraint("project", "route", "version"),
    sa.UniqueConstraint("revision"),
    sa.UniqueConstraint(
        "project", "route", "version", "incumbent", name="uq_route_version_base"
    ),
    one_of("kind", dict.fromkeys(CHANGE_KINDS.values())),
    at_least("revision", 1),
    not_blank("route"),
    sa.CheckConstraint(
        "(version = 1 AND kind = 'baseline' AND prev_version IS NULL"
        " AND prev_incumbent IS NULL)"
        " OR (version > 1 AND kind <> 'baseline' AND prev_version IS NOT NULL"
        " AND prev_version = version - 1 AND prev_incumbent IS NOT NULL)",
        name="version_follows",
    ),
    sa.CheckConstraint(
        "(canary IS NULL AND canary_evidence IS NULL AND weight_bps = 0 AND salt IS NULL"
        " AND rollout IS NULL AND unit_rule IS NULL)"
        " OR (canary IS NOT NULL AND canary_evidence IS NOT NULL"
        " AND weight_bps BETWEEN 1 AND 10000 AND salt IS NOT NULL AND rollout IS NOT NULL"
        " AND unit_rule IS NOT NULL)",
        name="canary_whole",
    ),
    sa.CheckConstraint(
        "(kind IN ('canary', 'promotion') AND verdict_id IS NOT NULL"
        " AND verdict_candidate IS NOT NULL AND verdict_outcome IS NOT NULL"
        " AND verdict_outcome = 'passed')"
        " OR (kind NOT IN ('canary', 'promotion') AND verdict_id IS NULL"
        " AND verdict_candidate IS NULL AND verdict_outcome IS NULL)",
        name="proof_passed",
    ),
    sa.CheckConstraint(
        "kind NOT IN ('canary', 'weight', 'abort', 'settings') OR incumbent = prev_incumbent",
        name="incumbent_stays",
    ),
    sa.CheckConstraint(
        "kind <> 'promotion' OR incumbent = verdict_candidate", name="promotes_the_candidate"
    ),
    sa.CheckConstraint(
        "kind <> 'canary' OR (canary IS NOT NULL AND canary = verdict_candidate)",
        name="canary_is_the_candidate",
    ),
    sa.CheckConstraint("kind <> 'weight' OR canary IS NOT NULL", name="weight_of_a_canary"),
    sa.CheckConstraint(
        "kind NOT IN ('baseline', 'promotion', 'abort', 'restore') OR canary IS NULL",
        name="canary_gone",
    ),
    sa.ForeignKeyConstraint(
        ["project", "route", "prev_version", "prev_incumbent"],
        [f"route_version.{name}" for name in ("project", "route", "version", "incumbent")],
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
        [verdict.c[name] for name in _PROOF],
        name="fk_route_version_proof",
    ),
    *(
        sa.ForeignKeyConstraint(
            [f"{role}_evidence", "project", "route", role],
            [evidence.c.id, evidence.c.project, evidence.c.route, evidence.c.target],
            name=f"fk_route_version_{role}_evidence",
        )
        for role in ("incumbent", "canary")
    ),
)

# Written before its version, which seals it (triggers): hence the deferred foreign key.
route_fallback = sa.Table(
    "route_fallback",
    metadata,
    project(),
    text("route"),
    count("version"),
    count("position"),
    text("target"),
    text("evidence"),
    sa.PrimaryKeyConstraint("project", "route", "version", "position"),
    sa.UniqueConstraint(
        "project", "route", "version", "target", name="uq_route_fallback_target"
    ),
    at_least("position", 0),
    sa.ForeignKeyConstraint(
        ["project", "route", "version"],
        [route_version.c.project, route_version.c.route, route_version.c.version],
        name="fk_route_fallback_version",
        deferrable=True,
        initially="DEFERRED",
    ),
    sa.ForeignKeyConstraint(
        ["evidence", "project", "route", "target"],
        [evidence.c.id, evidence.c.project, evidence.c.route, evidence.c.target],
        name="fk_route_fallback_evidence",
    ),
)
