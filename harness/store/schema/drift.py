"""Tables of drift watches (one open per target and suite) and of their checks (one running per
watch), and their rows as domain objects and back.
"""

from typing import Final

import sqlalchemy as sa

from harness.domain.drift import DriftCheck, DriftCheckState, DriftWatch, DriftWatchState
from harness.store.schema.columns import at_least, columns_of, metadata, one_of, unique_where
from harness.store.schema.evals import eval_run, target
from harness.store.schema.stored_row import Record

IS_OPEN = sa.text("closed_at IS NULL")
IS_RUNNING = sa.text("state = 'running'")

# A target and suite have one open watch at a time.
drift_watch = sa.Table(
    "drift_watch",
    metadata,
    *columns_of(
        DriftWatch,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
        free=("opened_by", "reason"),
        flat=("plan",),
    ),
    one_of("state", DriftWatchState),
    at_least("items", 1),
    at_least("epochs", 1),
    sa.CheckConstraint("alpha > 0 AND alpha < 1", name="alpha_share"),
    sa.CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed_when"),
    unique_where("uq_drift_watch_open", IS_OPEN, "target", "suite"),
)

# One running check per watch, whichever control process starts it.
drift_check = sa.Table(
    "drift_check",
    metadata,
    *columns_of(
        DriftCheck,
        sa.Column("watch", sa.ForeignKey(drift_watch.c.id), nullable=False),
        sa.Column("run", sa.ForeignKey(eval_run.c.id), nullable=False),
        free=("message",),
    ),
    sa.PrimaryKeyConstraint("watch", "number"),
    sa.UniqueConstraint("run"),
    one_of("state", DriftCheckState),
    at_least("number", 0),
    sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended_when"),
    sa.Index("ix_drift_check_started_at", "started_at"),
    unique_where("uq_drift_check_running", IS_RUNNING, "watch"),
)


DRIFT_CHECK: Final = Record.by_fields(drift_check, DriftCheck)
DRIFT_WATCH: Final = Record.by_fields(drift_watch, DriftWatch)
