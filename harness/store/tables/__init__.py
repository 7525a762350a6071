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
    switches,
)
from harness.store.tables.base import metadata

APPEND_ONLY: Final = (
    evals.target,
    evals.suite,
    evals.sample,
    decisions.verdict,
    routing.waiver,
    routing.evidence,
    routing.route_version,
    routing.route_fallback,
    operations.block,
    operations.audit_event,
)

# The promise's triggers, by name on both databases; `harness.store.migrate.check` looks.
TRIGGERS: Final = frozenset(
    {f"{t.name}_{suffix}" for t in APPEND_ONLY for suffix in ("no_update", "no_delete")}
    | {f"{t.name}_guard" for t in APPEND_ONLY if t not in (evals.sample, operations.block)}
    | {"proposal_guard", "proposal_no_rewrite", "rollout_guard"}
    | {"switch_guard", "switch_no_rewrite", "switch_no_delete"}
    | {"shadow_guard", "shadow_no_rewrite", "shadow_no_delete"}
)

__all__ = [
    "APPEND_ONLY",
    "TRIGGERS",
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
    "switches",
]
