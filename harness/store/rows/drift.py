"""Converts drift watches and their checks to column values and back."""

from harness.domain.drift.watch import (
    DriftCheck,
    DriftCheckState,
    DriftEvidence,
    DriftPlan,
    DriftWatch,
    DriftWatchState,
)
from harness.store.rows import Row, Values


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
        "scores": [list(each) for each in check.scores],
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
