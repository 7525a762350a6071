"""Tables of drift watches (one open per target and suite) and of their checks (one running per
watch), and their rows as domain objects and back.
"""

import sqlalchemy as sa

from harness.domain.drift.watch import (
    DriftCheck,
    DriftCheckState,
    DriftEvidence,
    DriftPlan,
    DriftWatch,
    DriftWatchState,
)
from harness.store.schema.columns import (
    Row,
    Values,
    at_least,
    count,
    free_text,
    json_value,
    metadata,
    number,
    one_of,
    text,
    time,
)
from harness.store.schema.evals import eval_run, target

IS_OPEN = sa.text("closed_at IS NULL")
IS_RUNNING = sa.text("state = 'running'")

# One open watch per target and suite, whoever opens it first.
drift_watch = sa.Table(
    "drift_watch",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("target", sa.ForeignKey(target.c.id), nullable=False),
    text("suite"),
    text("suite_digest"),
    count("items"),
    count("epochs"),
    number("alpha"),
    text("state"),
    time("opened_at"),
    free_text("opened_by"),
    free_text("reason"),
    time("closed_at", nullable=True),
    one_of("state", DriftWatchState),
    at_least("items", 1),
    at_least("epochs", 1),
    sa.CheckConstraint("alpha > 0 AND alpha < 1", name="alpha_share"),
    sa.CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed_when"),
    sa.Index(
        "uq_drift_watch_open",
        "target",
        "suite",
        unique=True,
        sqlite_where=IS_OPEN,
        postgresql_where=IS_OPEN,
    ),
)

# One running check per watch, whichever control process starts it.
drift_check = sa.Table(
    "drift_check",
    metadata,
    sa.Column("watch", sa.ForeignKey(drift_watch.c.id), nullable=False),
    count("number"),
    sa.Column("run", sa.ForeignKey(eval_run.c.id), nullable=False),
    time("started_at"),
    text("state"),
    time("ended_at", nullable=True),
    free_text("message"),
    json_value("served"),
    json_value("scores"),
    json_value("evidence", nullable=True),
    sa.PrimaryKeyConstraint("watch", "number"),
    sa.UniqueConstraint("run"),
    one_of("state", DriftCheckState),
    at_least("number", 0),
    sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended_when"),
    sa.Index("ix_drift_check_started_at", "started_at"),
    sa.Index(
        "uq_drift_check_running",
        "watch",
        unique=True,
        sqlite_where=IS_RUNNING,
        postgresql_where=IS_RUNNING,
    ),
)


def watch_to_row(watch: DriftWatch) -> Values:
    plan = watch.plan
    return {
        "id": watch.id,
        "target": watch.target,
        "suite": watch.suite,
        "suite_digest": plan.suite_digest,
        "items": plan.items,
        "epochs": plan.epochs,
        "alpha": plan.alpha,
        "state": watch.state.value,
        "opened_at": watch.opened_at,
        "opened_by": watch.opened_by,
        "reason": watch.reason,
        "closed_at": watch.closed_at,
    }


def watch_from_row(row: Row) -> DriftWatch:
    return DriftWatch(
        id=row.id,
        target=row.target,
        suite=row.suite,
        plan=DriftPlan(row.suite_digest, row.items, row.epochs, row.alpha),
        state=DriftWatchState(row.state),
        opened_at=row.opened_at,
        opened_by=row.opened_by,
        reason=row.reason,
        closed_at=row.closed_at,
    )


def check_to_row(check: DriftCheck) -> Values:
    return {
        "watch": check.watch,
        "number": check.number,
        "run": check.run,
        "started_at": check.started_at,
        **check_end_to_row(check),
    }


def check_end_to_row(check: DriftCheck) -> Values:
    """What the end of a check changes."""
    return {
        "state": check.state.value,
        "ended_at": check.ended_at,
        "message": check.message,
        "served": list(check.served),
        "scores": [list(score) for score in check.scores],
        "evidence": check.evidence.as_json() if check.evidence else None,
    }


def check_from_row(row: Row) -> DriftCheck:
    return DriftCheck(
        watch=row.watch,
        number=row.number,
        run=row.run,
        started_at=row.started_at,
        state=DriftCheckState(row.state),
        ended_at=row.ended_at,
        message=row.message,
        served=tuple(row.served),
        scores=tuple((item, score) for item, score in row.scores),
        evidence=DriftEvidence(**row.evidence) if row.evidence else None,
    )
