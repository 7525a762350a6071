"""Tables of the routing table: a target needs evidence for each role.

Each route and version has one append-only row. The highest version is the current version, and
the primary key is the compare-and-swap. CHECKs and foreign keys hold the rules of one row;
triggers compare a row with its predecessor. A CHECK passes on NULL, so it needs `IS NOT NULL`.

The database repeats the code's rules on purpose: a change that bypasses the code must fail,
too. `harness.routing.route_changes` has the code's rules, and `harness.app.store.guards` has
the triggers.
"""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from harness.frame.plain_data import from_plain, to_plain
from harness.frame.records.columns import (
    Row,
    Values,
    at_least,
    count,
    json_value,
    metadata,
    not_blank,
    one_of,
    signature,
    text,
    time,
)
from harness.frame.records.record import parse_json, record
from harness.frame.records.signed_tables import decide_by, sign_rows_of
from harness.gate.online.guardrails import ExposureRule
from harness.gate.verdict import Passed
from harness.providers.records import target
from harness.routing.evidence import EvidenceKind, TargetEvidence, Waiver
from harness.routing.records.verdicts import verdict
from harness.routing.route_changes import CHANGE_KINDS
from harness.routing.route_settings import RouteSettings
from harness.routing.table import Canary, Handover, Route, RouteRecord

# Foreign keys refer to these columns of a verdict, as a proof.
_PROOF: Final = ("id", "route", "incumbent", "candidate", "outcome")

# Append-only (trigger).
WAIVER: Final = record(
    Waiver,
    "waiver",
    not_blank("reason"),
    not_blank("author"),
    sa.UniqueConstraint("id", "route", "target", name="uq_waiver_proof"),
    refers={"target": target},
    signed=True,
)

waiver = WAIVER.table

# Append-only; `baseline` only before the route's first version (triggers).
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    text("route"),
    sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
    text("kind"),
    text("verdict_id", nullable=True),
    text("verdict_incumbent", nullable=True),
    text("verdict_outcome", nullable=True),
    text("waiver_id", nullable=True),
    time("created_at"),
    signature(),
    one_of("kind", ("baseline", "verdict", "waiver")),
    sa.CheckConstraint(
        "(kind = 'verdict' AND verdict_id IS NOT NULL AND verdict_incumbent IS NOT NULL"
        " AND verdict_outcome IS NOT NULL AND verdict_outcome = 'passed')"
        " OR (kind <> 'verdict' AND verdict_id IS NULL AND verdict_incumbent IS NULL"
        " AND verdict_outcome IS NULL)",
        name="verdict_passed",
    ),
    sa.CheckConstraint("(kind = 'waiver') = (waiver_id IS NOT NULL)", name="waiver_named"),
    sa.UniqueConstraint("id", "route", "target", name="uq_evidence_proof"),
    sa.ForeignKeyConstraint(
        [
            "verdict_id",
            "route",
            "verdict_incumbent",
            "target",
            "verdict_outcome",
        ],
        [verdict.c[name] for name in _PROOF],
        name="fk_evidence_verdict",
    ),
    sa.ForeignKeyConstraint(
        ["waiver_id", "route", "target"],
        [waiver.c.id, waiver.c.route, waiver.c.target],
        name="fk_evidence_waiver",
    ),
)

# Append-only; triggers compare it with the previous version.
route_version = sa.Table(
    "route_version",
    metadata,
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
    json_value("handover", nullable=True),
    json_value("settings"),
    count("prev_version", nullable=True),
    text("prev_incumbent", nullable=True),
    text("verdict_id", nullable=True),
    text("verdict_candidate", nullable=True),
    text("verdict_outcome", nullable=True),
    time("at"),
    text("actor"),
    text("reason"),
    # Set during a bake: the previous incumbent, and its share (triggers).
    text("holdback", nullable=True),
    json_value("holdback_plan", nullable=True),
    # Set while the incumbent serves by a break-glass: its id (triggers).
    text("break_glass", nullable=True),
    # The previous version's signature, so that the versions of a route form a chain.
    text("prev_signature", nullable=True),
    signature(),
    sa.PrimaryKeyConstraint("route", "version"),
    sa.UniqueConstraint("revision"),
    sa.UniqueConstraint("route", "version", "incumbent", name="uq_route_version_base"),
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
        " AND rollout IS NULL AND unit_rule IS NULL AND handover IS NULL)"
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
        "kind <> 'promotion' OR incumbent = verdict_candidate",
        name="promotes_the_candidate",
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
        ["route", "prev_version", "prev_incumbent"],
        [f"route_version.{name}" for name in ("route", "version", "incumbent")],
        name="fk_route_version_base",
    ),
    sa.ForeignKeyConstraint(
        [
            "verdict_id",
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
            [f"{role}_evidence", "route", role],
            [evidence.c.id, evidence.c.route, evidence.c.target],
            name=f"fk_route_version_{role}_evidence",
        )
        for role in ("incumbent", "canary")
    ),
)

_ANY_VERSION = route_version.alias("any_version").c


def _build_route_names() -> sa.CTE:
    """Builds a query of the routes' names, which ends with a NULL.

    It steps from route to route in the index, because there are far more versions than routes.
    """
    names = sa.select(sa.func.min(_ANY_VERSION.route).label("route")).cte(
        "route_names", recursive=True
    )
    following = sa.select(sa.func.min(_ANY_VERSION.route)).where(
        _ANY_VERSION.route > names.c.route
    )
    return names.union_all(
        sa.select(following.scalar_subquery()).where(names.c.route.is_not(None))
    )


def _is_newest(table: sa.Table) -> sa.ColumnElement[bool]:
    """Returns the condition that a row of the table belongs to its route's newest version."""
    names = _build_route_names()
    version = sa.select(sa.func.max(_ANY_VERSION.version)).where(
        _ANY_VERSION.route == names.c.route
    )
    newest = (
        sa.select(names, version.scalar_subquery().label("version"))
        .where(names.c.route.is_not(None))
        .cte("newest_version")
    )
    return sa.and_(*(table.c[column.name] == column for column in newest.c))


def _newest_signatures() -> sa.Select[Any]:
    """Builds a query of the signature of each route's newest version.

    It looks up route by route. For a join, PostgreSQL would overestimate the number of routes
    tenfold and read every version.
    """
    names = _build_route_names()
    signature = (
        sa.select(_ANY_VERSION.signature)
        .where(_ANY_VERSION.route == names.c.route)
        .order_by(_ANY_VERSION.version.desc())
        .limit(1)
    )
    return sa.select(signature.scalar_subquery().label("signature")).where(
        names.c.route.is_not(None)
    )


# Swapproof writes these rows before their version, because triggers refuse a row for a stored
# version. The foreign key is therefore deferred.
route_fallback = sa.Table(
    "route_fallback",
    metadata,
    text("route"),
    count("version"),
    count("position"),
    text("target"),
    text("evidence"),
    sa.PrimaryKeyConstraint("route", "version", "position"),
    sa.UniqueConstraint("route", "version", "target", name="uq_route_fallback_target"),
    at_least("position", 0),
    sa.ForeignKeyConstraint(
        ["route", "version"],
        [route_version.c.route, route_version.c.version],
        name="fk_route_fallback_version",
        deferrable=True,
        initially="DEFERRED",
    ),
    sa.ForeignKeyConstraint(
        ["evidence", "route", "target"],
        [evidence.c.id, evidence.c.route, evidence.c.target],
        name="fk_route_fallback_evidence",
    ),
)

_ALL_NAMES = _build_route_names()

NAMES: Final = sa.select(_ALL_NAMES.c.route).where(_ALL_NAMES.c.route.is_not(None))

# Whether a row belongs to its route's newest version.
IS_NEWEST: Final = _is_newest(route_version)

IS_FALLBACK_OF_NEWEST: Final = _is_newest(route_fallback)

NEWEST_SIGNATURES: Final = _newest_signatures()

sign_rows_of(evidence)

sign_rows_of(route_version, live=IS_NEWEST)

decide_by(route_fallback)

REVISION: Final = sa.select(sa.func.coalesce(sa.func.max(route_version.c.revision), 0))


def evidence_to_row(evidence: TargetEvidence) -> Values:
    """Returns the columns of evidence, without its time."""
    is_by_verdict = evidence.kind is EvidenceKind.VERDICT
    return {
        "id": evidence.id,
        "route": evidence.route,
        "target": evidence.target,
        "kind": evidence.kind,
        "verdict_id": evidence.proof if is_by_verdict else None,
        "verdict_incumbent": evidence.verdict_incumbent,
        "verdict_outcome": Passed.outcome if is_by_verdict else None,
        "waiver_id": evidence.proof if evidence.kind is EvidenceKind.WAIVER else None,
    }


def evidence_from_row(row: Row) -> TargetEvidence:
    """Builds evidence from a verified row."""
    proof = row.verdict_id or row.waiver_id or ""
    return TargetEvidence(
        row.route,
        row.target,
        EvidenceKind(row.kind),
        proof,
        row.verdict_incumbent,
    )


def route_to_row(route: Route) -> Values:
    """Returns the columns of a route. The caller adds revision, kind, actor and evidence."""
    canary = route.canary
    return {
        "route": route.name,
        "version": route.version,
        "incumbent": route.incumbent,
        "canary": canary.target if canary else None,
        "weight_bps": canary.weight_bps if canary else 0,
        "salt": canary.salt if canary else None,
        "rollout": canary.rollout if canary else None,
        "unit_rule": to_plain(canary.unit_rule) if canary else None,
        "handover": to_plain(canary.handover) if canary else None,
        "settings": to_plain(route.settings),
        "holdback": route.holdback.target if route.holdback else None,
        "holdback_plan": _holdback_columns(route.holdback) if route.holdback else None,
        "break_glass": route.break_glass,
    }


def _holdback_columns(holdback: Canary) -> Values:
    """Returns the stored values of the holdback, without its target, which has its own
    column.
    """
    return {
        "weight_bps": holdback.weight_bps,
        "salt": holdback.salt,
        "rollout": holdback.rollout,
        "unit_rule": to_plain(holdback.unit_rule),
    }


def route_from_row(row: Row, fallbacks: tuple[str, ...]) -> Route:
    """Builds a route from a row.

    Args:
        fallbacks: the ids of its chain, in order.
    """
    return Route(
        name=row.route,
        version=row.version,
        incumbent=row.incumbent,
        canary=_build_canary(row) if row.canary else None,
        fallbacks=fallbacks,
        settings=parse_json(row, "settings", RouteSettings),
        holdback=_build_holdback(row) if row.holdback else None,
        break_glass=row.break_glass,
    )


def _build_holdback(row: Row) -> Canary:
    plan: Canary = from_plain(
        Canary,
        row.holdback_plan,
        target=row.holdback,
        control=True,
    )
    return plan


def _build_canary(row: Row) -> Canary:
    rule = parse_json(row, "unit_rule", ExposureRule)
    handover = from_plain(Handover | None, row.handover)
    return Canary(
        row.canary,
        row.weight_bps,
        row.salt,
        row.rollout,
        rule,
        handover=handover,
    )


def record_from_row(row: Row, fallbacks: Mapping[int, tuple[str, ...]]) -> RouteRecord:
    """Builds the record of one version.

    Args:
        fallbacks: of each version, by number.
    """
    return RouteRecord(
        route=route_from_row(row, fallbacks.get(row.version, ())),
        revision=row.revision,
        kind=row.kind,
        at=row.at,
        actor=row.actor,
        reason=row.reason,
        verdict=row.verdict_id,
    )
