"""Table of the kill switches that people threw by CLI or REST; a row is lifted once, never
deleted.
"""

import sqlalchemy as sa

from harness.domain.routing.kill_switch import ForceKind, SwitchSource
from harness.store.schema.columns import (
    metadata,
    not_blank,
    one_of,
    signature,
    text,
    time,
    words,
)

# Lifted once, else never changed or deleted (triggers).
switch = sa.Table(
    "switch",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    text("route", nullable=True),
    text("kind"),
    text("name"),
    words("reason"),
    words("actor"),
    time("created_at"),
    time("expires_at", nullable=True),
    text("source"),
    time("lifted_at", nullable=True),
    text("lifted_by", nullable=True),
    signature(),
    one_of("kind", ForceKind),
    # The other two stand in the environment and in the file.
    one_of("source", (SwitchSource.CLI, SwitchSource.REST)),
    not_blank("reason"),
    sa.CheckConstraint("(lifted_at IS NULL) = (lifted_by IS NULL)", name="lifted_by_whom"),
)
