"""All tables, as Core metadata: what the migrations must lead to."""

from typing import Final

from harness.store.schema import (
    agents,
    evals,
    interventions,
    observations,
    operations,
    proposals,
    providers,
    routing,
    signed_tables,
    traffic_sums,
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
    observations.block,
    operations.audit_event,
    operations.person_link,
)

__all__ = [
    "APPEND_ONLY",
    "agents",
    "evals",
    "interventions",
    "metadata",
    "observations",
    "operations",
    "proposals",
    "providers",
    "routing",
    "signed_tables",
    "traffic_sums",
]
