"""All tables, as Core metadata: the migrations must lead to them."""

from collections.abc import Mapping
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
    traffic_sums,
)
from harness.store.schema.columns import keep_strict, metadata
from harness.store.schema.signed_tables import SignedTable, is_signed, signed_table

for table in metadata.tables.values():
    keep_strict(table)

# The tables whose rows are signed, by name, each after those that it refers to.
SIGNED: Final[Mapping[str, SignedTable]] = {
    table.name: signed_table(table) for table in metadata.sorted_tables if is_signed(table)
}

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
    "SIGNED",
    "agents",
    "evals",
    "interventions",
    "metadata",
    "observations",
    "operations",
    "proposals",
    "providers",
    "routing",
    "traffic_sums",
]
