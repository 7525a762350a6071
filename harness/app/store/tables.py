"""All tables as SQLAlchemy Core metadata, which the migrations must produce.

`SIGNED` has the tables whose rows have signatures. `APPEND_ONLY` has the tables in which
triggers refuse changes and deletions of rows. A subject declares its tables in its `records`
module. This module must import that module, or the metadata lacks the tables.
"""

from collections.abc import Mapping
from typing import Final

from harness.agents import records as agents_records
from harness.evals import records
from harness.frame import idempotency
from harness.frame.alerts import records as alert_records
from harness.frame.people.records import person_link
from harness.frame.records.columns import keep_strict, metadata
from harness.frame.records.signed_tables import (
    SignedTable,
    is_signed,
    signed_table,
)
from harness.frame.signing.audit_log import audit_event
from harness.operations import records as operations_records
from harness.proposals.labels import records as label_records
from harness.proposals.labels.records import label, label_draw, labelling
from harness.providers.records import target
from harness.routing.records import (
    account_loads,
    exposures,
    failovers,
    installation,
    interventions,
    kept_pieces,
    observations,
    proposals,
    router_reports,
    shadow_scores,
    traffic_tables,
)
from harness.routing.records.proposals import approval
from harness.routing.records.runs import sample, suite
from harness.routing.records.shadow_scores import shadow_score
from harness.routing.records.traffic_tables import block
from harness.routing.records.verdicts import verdict
from harness.routing.records.versions import (
    evidence,
    route_fallback,
    route_version,
    waiver,
)

for table in metadata.tables.values():
    keep_strict(table)

# The signed tables by name. A table comes after the tables that it refers to.
SIGNED: Final[Mapping[str, SignedTable]] = {
    table.name: signed_table(table) for table in metadata.sorted_tables if is_signed(table)
}

APPEND_ONLY: Final = (
    target,
    suite,
    sample,
    verdict,
    approval,
    waiver,
    evidence,
    route_version,
    route_fallback,
    block,
    audit_event,
    person_link,
    labelling,
    label_draw,
    label,
    shadow_score,
)

# Importing these modules declares the other tables.
DECLARED_BY: Final = (
    account_loads,
    agents_records,
    alert_records,
    records,
    exposures,
    failovers,
    observations,
    idempotency,
    installation,
    interventions,
    kept_pieces,
    label_records,
    operations_records,
    proposals,
    records,
    router_reports,
    shadow_scores,
    traffic_tables,
)

__all__ = ["APPEND_ONLY", "SIGNED", "metadata"]
