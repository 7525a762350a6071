"""All tables, as Core metadata: what the migrations must lead to."""

from typing import Final

from harness.store.tables import (
    alerts,
    captures,
    credentials,
    decisions,
    drift,
    evals,
    operations,
    provider_checks,
    routing,
    shadows,
    sightings,
    signed,
    switches,
)
from harness.store.tables.base import keep_strict, metadata

for table in metadata.tables.values():
    keep_strict(table)

APPEND_ONLY: Final = (
    evals.target,
    evals.suite,
    evals.sample,
    decisions.verdict,
    decisions.approval,
    routing.waiver,
    routing.evidence,
    routing.route_version,
    routing.route_fallback,
    operations.block,
    operations.audit_event,
)

__all__ = [
    "APPEND_ONLY",
    "alerts",
    "captures",
    "credentials",
    "decisions",
    "drift",
    "evals",
    "metadata",
    "operations",
    "provider_checks",
    "routing",
    "shadows",
    "sightings",
    "signed",
    "switches",
]
