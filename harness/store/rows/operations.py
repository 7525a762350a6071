"""Converts observation blocks, traffic, keys' spend, audit events, principals and API keys to
column values and back.
"""

from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal

from harness.domain.canary.guardrails import (
    Guardrail,
    levels_from_json,
    ranks_from_json,
    tallies_from_json,
)
from harness.domain.canary.observation import ObservationBlock, TrafficMinute, TrafficTotal
from harness.domain.operations.access import ApiKey, Role
from harness.domain.operations.audit import AuditEvent
from harness.domain.operations.principals import Principal, PrincipalKind
from harness.domain.reliability.rate_limits import KeyLimits
from harness.domain.reliability.spend import KeySpend
from harness.store.rows import Row, Values, plain


def block_to_row(block: ObservationBlock) -> Values:
    values: Values = {name: getattr(block, name) for name in block.__dataclass_fields__}
    del values["number"]
    seen = {"counts": block.counts, "ranks": block.ranks, "levels": block.levels}
    return values | {name: _by_guardrail(found) for name, found in seen.items()}


def _by_guardrail(found: Mapping[Guardrail, object]) -> dict[str, object] | None:
    """None as in rows from before there were guardrails."""
    return {
        name.value: list(each) if isinstance(each, tuple) else asdict(each)  # type: ignore[call-overload]
        for name, each in found.items()
    } or None


def block_from_row(row: Row) -> ObservationBlock:
    read = {
        "counts": tallies_from_json(row.counts or {}),
        "ranks": ranks_from_json(row.ranks or {}),
        "levels": levels_from_json(row.levels or {}),
    }
    return ObservationBlock(**row._asdict() | read)


def traffic_to_row(traffic: TrafficMinute) -> Values:
    values: Values = {name: getattr(traffic, name) for name in traffic.__dataclass_fields__}
    # JSON's keys are text.
    return values | {"latency_ms": {str(k): n for k, n in traffic.latency_ms.items()}}


def traffic_from_row(row: Row) -> TrafficMinute:
    latency = {int(bound): n for bound, n in row.latency_ms.items()}
    return TrafficMinute(**(row._asdict() | {"latency_ms": latency}))


def total_from_row(row: Row) -> TrafficTotal:
    # A sum of counts is a decimal on PostgreSQL.
    counts = {name: int(v) for name, v in row._asdict().items() if isinstance(v, Decimal)}
    return TrafficTotal(**(row._asdict() | counts))


def spend_to_row(spend: KeySpend) -> Values:
    return {name: getattr(spend, name) for name in spend.__dataclass_fields__}


def spend_from_row(row: Row) -> KeySpend:
    return KeySpend(**plain(row))


def event_to_row(event: AuditEvent) -> Values:
    fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
    return {**fields, "rows": {row: list(pair) for row, pair in event.rows.items()} or None}


def event_from_row(row: Row) -> AuditEvent:
    written = {each: (pair[0], pair[1]) for each, pair in (row.rows or {}).items()}
    return AuditEvent(**row._asdict() | {"rows": written})


def principal_to_row(principal: Principal) -> Values:
    return {
        **{name: getattr(principal, name) for name in principal.__dataclass_fields__},
        "kind": principal.kind.value,
        "folded": principal.folded,
    }


def principal_from_row(row: Row) -> Principal:
    values = row._asdict()
    del values["folded"], values["signature"]
    return Principal(**values | {"kind": PrincipalKind(row.kind)})


def key_to_row(key: ApiKey) -> Values:
    return {
        "id": key.id,
        "name": key.name,
        "hash": key.hash,
        "hint": key.hint,
        "role": key.role and key.role.value,
        "routes": sorted(key.routes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "limits": limits_to_json(key.limits),
        "principal": key.principal,
        "created_by": key.created_by,
        "created_with": key.created_with,
    }


def limits_to_json(limits: KeyLimits | None) -> dict[str, object] | None:
    return asdict(limits) if limits else None


def key_from_row(row: Row) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        hash=row.hash,
        hint=row.hint,
        role=Role(row.role) if row.role else None,
        routes=frozenset(row.routes),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        limits=KeyLimits(**row.limits) if row.limits else None,
        principal=row.principal,
        created_by=row.created_by,
        created_with=row.created_with,
    )
