"""All tables, as Core metadata: what the migrations must lead to."""

from typing import Final

from harness.store.schema import (
    alerts,
    captures,
    drift,
    evals,
    operations,
    proposals,
    provider_checks,
    providers,
    routing,
    shadow,
    sightings,
    signed_tables,
    switches,
)
from harness.store.schema.columns import keep_strict, metadata

for table in metadata.tables.values():
    keep_strict(table)

APPEND_ONLY: Final = (
    evals.target,
    evals.suite,
    evals.sample,
    proposals.verdict,
    proposals.approval,
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
    "drift",
    "evals",
    "metadata",
    "operations",
    "proposals",
    "provider_checks",
    "providers",
    "routing",
    "shadow",
    "sightings",
    "signed_tables",
    "switches",
]
