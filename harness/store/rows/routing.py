"""Converts providers, waivers, evidence, routes and records of a route's versions to column
values and back; fallbacks have rows of their own, and come in beside the route's.
"""

from collections.abc import Mapping
from dataclasses import asdict

from harness.domain.canary.observation import UnitRule
from harness.domain.evals.run import Passed
from harness.domain.routing.capabilities import Capabilities
from harness.domain.routing.evidence import EvidenceKind, TargetEvidence, Waiver
from harness.domain.routing.table import Canary, Route, RouteSettings
from harness.domain.routing.target import Price, Provider, ProviderMove
from harness.ports import RouteRecord
from harness.store.rows import Row, Values


def evidence_to_row(evidence: TargetEvidence) -> Values:
    by_verdict = evidence.kind is EvidenceKind.VERDICT
    return {
        "id": evidence.id,
        "route": evidence.route,
        "target": evidence.target,
        "kind": evidence.kind,
        "verdict_id": evidence.proof if by_verdict else None,
        "verdict_incumbent": evidence.verdict_incumbent,
        "verdict_outcome": Passed.outcome if by_verdict else None,
        "waiver_id": evidence.proof if evidence.kind is EvidenceKind.WAIVER else None,
    }


def evidence_from_row(row: Row) -> TargetEvidence:
    proof = row.verdict_id or row.waiver_id or ""
    return TargetEvidence(
        row.route, row.target, EvidenceKind(row.kind), proof, row.verdict_incumbent
    )


def waiver_from_row(row: Row) -> Waiver:
    return Waiver(row.id, row.route, row.target, row.reason, row.author, row.expires_at)


def provider_to_row(provider: Provider) -> Values:
    moved = provider.moved
    return {
        "name": provider.name,
        "kind": provider.kind,
        "api_base": provider.api_base,
        "api_key_env": provider.api_key_env,
        "extra_headers": dict(provider.extra_headers),
        "prices": {model: price.as_json() for model, price in provider.prices.items()},
        "more_api_key_envs": list(provider.more_api_key_envs),
        "models": {model: asdict(can) for model, can in provider.models.items()},
        "extra_body": dict(provider.extra_body),
        "sealed_headers": dict(provider.sealed_headers),
        "removed_at": None,
        "answers_since": moved.at if moved else None,
        "moved_by": moved.by if moved else None,
        "moved_because": moved.reason if moved else None,
    }


def provider_from_row(row: Row) -> Provider:
    at = row.answers_since
    return Provider(
        name=row.name,
        kind=row.kind,
        api_base=row.api_base,
        api_key_env=row.api_key_env,
        extra_headers=row.extra_headers,
        prices={model: Price(**price) for model, price in row.prices.items()},
        more_api_key_envs=tuple(row.more_api_key_envs),
        models={model: Capabilities(**can) for model, can in row.models.items()},
        extra_body=row.extra_body,
        sealed_headers=row.sealed_headers,
        moved=ProviderMove(at, row.moved_by or "", row.moved_because or "") if at else None,
    )


def route_to_row(route: Route) -> Values:
    """The route's own columns; the caller adds revision, kind, actor and evidence."""
    canary = route.canary
    return {
        "route": route.name,
        "version": route.version,
        "incumbent": route.incumbent,
        "canary": canary.target if canary else None,
        "weight_bps": canary.weight_bps if canary else 0,
        "salt": canary.salt if canary else None,
        "rollout": canary.rollout if canary else None,
        "unit_rule": canary.unit_rule.as_json() if canary else None,
        "settings": asdict(route.settings),
        "holdback": route.holdback.target if route.holdback else None,
        "holdback_plan": _plan(route.holdback) if route.holdback else None,
    }


def _plan(holdback: Canary) -> Values:
    return {
        "weight_bps": holdback.weight_bps,
        "salt": holdback.salt,
        "rollout": holdback.rollout,
        "unit_rule": holdback.unit_rule.as_json(),
    }


def route_from_row(row: Row, fallbacks: tuple[str, ...]) -> Route:
    return Route(
        name=row.route,
        version=row.version,
        incumbent=row.incumbent,
        canary=_canary(row) if row.canary else None,
        fallbacks=fallbacks,
        settings=RouteSettings.from_json(row.settings),
        holdback=_holdback(row) if row.holdback else None,
    )


def _holdback(row: Row) -> Canary:
    plan = row.holdback_plan
    rule = UnitRule.from_json(plan["unit_rule"])
    return Canary(
        row.holdback, plan["weight_bps"], plan["salt"], plan["rollout"], rule, control=True
    )


def _canary(row: Row) -> Canary:
    rule = UnitRule.from_json(row.unit_rule)
    return Canary(row.canary, row.weight_bps, row.salt, row.rollout, rule)


def record_from_row(row: Row, fallbacks: Mapping[int, tuple[str, ...]]) -> RouteRecord:
    return RouteRecord(
        route=route_from_row(row, fallbacks.get(row.version, ())),
        revision=row.revision,
        kind=row.kind,
        at=row.at,
        actor=row.actor,
        reason=row.reason,
        verdict=row.verdict_id,
    )
