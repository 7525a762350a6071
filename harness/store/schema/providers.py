"""Tables of providers, their keys, sign-ins, checks and models."""

from typing import Final

import sqlalchemy as sa

from harness.domain.evals.pins import Sighting
from harness.domain.providers.credentials import Credential
from harness.domain.providers.discovered_model import DiscoveredModel
from harness.domain.providers.oauth import SignIn
from harness.domain.providers.probe import ProviderCheck
from harness.domain.routing.target import Provider, ProviderMove
from harness.store.schema.columns import FreeText, Row, Values, not_blank, text, time
from harness.store.schema.signed_tables import sign_rows_of
from harness.store.schema.stored_row import record, record_of


def _move_to_row(provider: Provider) -> Values:
    moved = provider.moved
    return {
        "removed_at": None,
        "answers_since": moved.at if moved else None,
        "moved_by": moved.by if moved else None,
        "moved_because": moved.reason if moved else None,
    }


def provider_from_row(row: Row) -> Provider:
    at = row.answers_since
    moved = ProviderMove(at, row.moved_by or "", row.moved_because or "") if at else None
    return record_of(Provider, row, provider, moved=moved)


# Its row stays when it is removed: its keys' rows stand on it.
PROVIDER: Final = record(
    Provider,
    "provider",
    time("updated_at"),
    time("removed_at", nullable=True),
    time("answers_since", nullable=True),
    text("moved_by", nullable=True),
    sa.Column("moved_because", FreeText, nullable=True),
    key="name",
    signed=True,
    without="moved",
    read=provider_from_row,
    also=_move_to_row,
)
provider = sign_rows_of(PROVIDER.table, live=PROVIDER.table.c.removed_at.is_(None))

# The value is in no other place; none is ever deleted. Every change reaches the routers
# (triggers).
CREDENTIAL: Final = record(
    Credential,
    "credential",
    not_blank("name"),
    key="provider name",
    refers={"provider": provider},
    signed=True,
    free="created_by",
)
credential = sign_rows_of(CREDENTIAL.table, live=sa.true())

# No router reads it.
SIGN_IN: Final = record(
    SignIn,
    "sign_in",
    not_blank("ciphertext"),
    key="provider",
    refers={"provider": provider},
    free="ciphertext signed_in_by refused",
)
sign_in = SIGN_IN.table

# One row for each provider; no router reads it. findings: as `ProviderCheck` has them.
PROVIDER_CHECK: Final = record(
    ProviderCheck,
    "provider_check",
    key="provider",
    refers={"provider": provider},
)
provider_check = PROVIDER_CHECK.table

# A few rows for each target; the oldest give way. No foreign key: a judge's target is not
# registered, and a router may know one whose row has not come yet.
SIGHTING: Final = record(
    Sighting,
    "served_model",
    sa.CheckConstraint("first_at <= last_at", name="in_order"),
    key="target model build",
    flat="served",
)
served_model = SIGHTING.table

# As each provider listed its models when somebody asked last; no router reads it.
DISCOVERED_MODEL: Final = record(
    DiscoveredModel,
    "discovered_model",
    not_blank("model"),
    key="provider model",
    refers={"provider": provider},
)
discovered_model = DISCOVERED_MODEL.table
