"""`SIGNED` lists the tables whose rows are signed: with whose key, which columns the signature
covers, and which rows a snapshot needs all of. The table `manifest` is here as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import sqlalchemy as sa

from harness.domain.operations.keyring import KeyPurpose
from harness.domain.operations.principals import LOCAL_PRINCIPAL
from harness.store.schema import (
    agents,
    evals,
    interventions,
    operations,
    proposals,
    providers,
    routing,
)
from harness.store.schema.columns import SIGNATURE, at_least, count, metadata, text, time

# The next step in messages about a row that does not verify.
REMEDY: Final = (
    "`swapgate db check` names every such row, and `swapgate db remove-forged` removes it"
)


# One row: control's word on which rows a snapshot is made of, in which order of time, which
# data keys were revoked, and where the audit log ended then.
manifest = sa.Table(
    "manifest",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    count("epoch"),
    count("revision"),
    count("changes"),
    text("digest"),
    time("signed_at"),
    text(SIGNATURE),
    text("revoked"),
    text("log_end"),
    sa.CheckConstraint("id = 1", name="one_row"),
    at_least("epoch", 1),
)


@dataclass(frozen=True)
class SignedTable:
    table: sa.Table
    purpose: KeyPurpose = KeyPurpose.CONTROL
    # Columns outside the signature: processes without the signing key change them.
    changing: frozenset[str] = frozenset()
    # The rows that a snapshot is made of; None for a table that the manifest does not cover.
    live: sa.ColumnElement[bool] | None = None

    @cached_property
    def covered(self) -> tuple[sa.Column[object], ...]:
        """Returns the columns that the signature covers, by name: migrations add them in any
        order.
        """
        left_out = {*self.changing, SIGNATURE}
        return tuple(
            sorted((c for c in self.table.c if c.name not in left_out), key=lambda c: c.name)
        )

    @cached_property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key.columns)


_TABLES: Final = (
    SignedTable(evals.target),
    SignedTable(evals.suite),
    SignedTable(
        evals.eval_run,
        # Workers take and leave runs.
        changing=frozenset(
            {
                "wanted",
                "state",
                "lease_owner",
                "lease_until",
                "failures",
                "message",
                "waits_since",
                "retry_at",
                "patience_since",
            }
        ),
    ),
    # The texts may be blanked; their digests stay.
    SignedTable(evals.sample, KeyPurpose.WORKER, frozenset({"answer", "prompt"})),
    SignedTable(proposals.proposal),
    SignedTable(proposals.verdict),
    SignedTable(proposals.approval),
    SignedTable(proposals.rollout),
    SignedTable(routing.waiver),
    SignedTable(routing.evidence),
    SignedTable(routing.route_version, live=routing.IS_NEWEST),
    SignedTable(providers.provider, live=providers.provider.c.removed_at.is_(None)),
    # A migration writes the local operator's, which are the code's (`row_signatures._LOCAL`).
    SignedTable(operations.principal, live=operations.principal.c.id != LOCAL_PRINCIPAL.id),
    SignedTable(operations.api_key, live=operations.api_key.c.revoked_at.is_(None)),
    SignedTable(operations.person_link),
    SignedTable(operations.dashboard_session),
    SignedTable(interventions.switch, live=interventions.switch.c.lifted_at.is_(None)),
    SignedTable(interventions.freeze),
    SignedTable(interventions.break_glass),
    SignedTable(interventions.shadow, live=interventions.shadow.c.ended_at.is_(None)),
    SignedTable(providers.credential, live=sa.true()),
    SignedTable(agents.agent_grant, live=agents.agent_grant.c.revoked_at.is_(None)),
)
SIGNED: Final[Mapping[str, SignedTable]] = {table.table.name: table for table in _TABLES}
