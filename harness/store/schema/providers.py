"""Tables of providers, of their encrypted keys (`credential`), of people's sign-ins at vendors,
which renew such keys (`sign_in`), of each provider's last check (`/check` of the API), and of
the models that providers said they served, or list; their rows as domain objects and back.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.evals.pins import Sighting
from harness.domain.providers.credentials import Credential
from harness.domain.providers.discovered_model import DiscoveredModel
from harness.domain.providers.oauth import SignIn
from harness.domain.providers.probe import ProviderCheck
from harness.domain.routing.target import Provider, ProviderMove
from harness.store.schema.columns import (
    FreeText,
    Row,
    Values,
    columns_of,
    metadata,
    not_blank,
    signature,
    text,
    time,
)
from harness.store.schema.stored_row import Record, record_of

# Its row stays when it is removed: its keys' rows stand on it.
provider = sa.Table(
    "provider",
    metadata,
    *columns_of(
        Provider,
        sa.Column("name", sa.Text, primary_key=True),
        time("updated_at"),
        time("removed_at", nullable=True),
        time("answers_since", nullable=True),
        text("moved_by", nullable=True),
        sa.Column("moved_because", FreeText, nullable=True),
        signature(),
        without=("moved",),
    ),
)

# The value is in no other place; none is ever deleted. Every change reaches the routers
# (triggers).
credential = sa.Table(
    "credential",
    metadata,
    *columns_of(
        Credential,
        sa.Column("provider", sa.ForeignKey(provider.c.name), nullable=False),
        signature(),
        free=("created_by",),
    ),
    sa.PrimaryKeyConstraint("provider", "name"),
    not_blank("name"),
)

# No router reads it.
sign_in = sa.Table(
    "sign_in",
    metadata,
    *columns_of(
        SignIn,
        sa.Column("provider", sa.ForeignKey(provider.c.name), nullable=False),
        free=("ciphertext", "signed_in_by", "refused"),
    ),
    sa.PrimaryKeyConstraint("provider"),
    not_blank("ciphertext"),
)

# One row for each provider; no router reads it. findings: as `ProviderCheck` has them.
provider_check = sa.Table(
    "provider_check",
    metadata,
    *columns_of(
        ProviderCheck,
        sa.Column("provider", sa.ForeignKey(provider.c.name), nullable=False),
    ),
    sa.PrimaryKeyConstraint("provider"),
)

# A few rows for each target; the oldest give way. No foreign key: a judge's target is not
# registered, and a router may know one whose row has not come yet.
served_model = sa.Table(
    "served_model",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("build", sa.Text, primary_key=True),
    time("first_at"),
    time("last_at"),
    sa.CheckConstraint("first_at <= last_at", name="in_order"),
)

# As each provider listed its models when somebody asked last; no router reads it.
discovered_model = sa.Table(
    "discovered_model",
    metadata,
    *columns_of(
        DiscoveredModel,
        sa.Column("provider", sa.ForeignKey(provider.c.name), nullable=False),
    ),
    sa.PrimaryKeyConstraint("provider", "model"),
    not_blank("model"),
)


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


CREDENTIAL: Final = Record.by_fields(credential, Credential)
DISCOVERED_MODEL: Final = Record.by_fields(discovered_model, DiscoveredModel)
PROVIDER_CHECK: Final = Record.by_fields(provider_check, ProviderCheck)
PROVIDER: Final = Record.by_fields(
    provider, Provider, read=provider_from_row, also=_move_to_row
)
SIGHTING: Final = Record.by_fields(served_model, Sighting)
SIGN_IN: Final = Record.by_fields(sign_in, SignIn)
