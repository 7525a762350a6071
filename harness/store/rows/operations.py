"""Blocks, traffic, spend, audit events and API keys."""

from dataclasses import asdict

from harness.domain.access import ApiKey, Role
from harness.domain.audit import AuditEvent
from harness.domain.key_limits import KeyLimits
from harness.domain.observation import Block, Traffic
from harness.domain.spend import KeySpend
from harness.store.rows import Row, Values


def of_block(block: Block) -> Values:
    values: Values = {name: getattr(block, name) for name in block.__dataclass_fields__}
    del values["number"]
    return values


def block(row: Row) -> Block:
    return Block(**row._asdict())


def of_traffic(traffic: Traffic) -> Values:
    values: Values = {name: getattr(traffic, name) for name in traffic.__dataclass_fields__}
    # JSON's keys are text.
    return values | {"latency_ms": {str(k): n for k, n in traffic.latency_ms.items()}}


def traffic(row: Row) -> Traffic:
    latency = {int(bound): n for bound, n in row.latency_ms.items()}
    return Traffic(**(row._asdict() | {"latency_ms": latency}))


def of_spend(spend: KeySpend) -> Values:
    return {name: getattr(spend, name) for name in spend.__dataclass_fields__}


def spend(row: Row) -> KeySpend:
    return KeySpend(**row._asdict())


def of_event(event: AuditEvent) -> Values:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


def event(row: Row) -> AuditEvent:
    return AuditEvent(**row._asdict())


def of_key(key: ApiKey) -> Values:
    return {
        "id": key.id,
        "name": key.name,
        "hash": key.hash,
        "hint": key.hint,
        "role": key.role and key.role.value,
        "routes": sorted(key.routes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "limits": of_limits(key.limits),
    }


def of_limits(limits: KeyLimits | None) -> dict[str, object] | None:
    return asdict(limits) if limits else None


def key(row: Row) -> ApiKey:
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
    )
