"""What is looked after now and then: the audit chain, and evals of incumbents by schedule."""

from datetime import timedelta

import structlog

from harness.control import alerts, credentials, work
from harness.control.context import Context
from harness.domain.access import SYSTEM
from harness.domain.alerts import AlertKind
from harness.domain.evaluation import EvalRun
from harness.ports import Transaction

log = structlog.get_logger("swapgate.housekeeping")


def tidy(ctx: Context) -> int | None:
    """Check the audit chain. Returns the number of the first event that does not fit."""
    with ctx.store.read() as tx:
        broken = tx.audit.first_break()
    if broken is not None:
        log.error("audit_chain_broken", number=broken, next="swapgate audit verify")
    if (broken is not None) != alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "log"):
        with ctx.store.write() as tx:
            _tell_of_chain(ctx, tx, broken)
    return broken


def _tell_of_chain(ctx: Context, tx: Transaction, broken: int | None) -> None:
    if broken is None:
        alerts.end(ctx, tx, AlertKind.AUDIT_BROKEN, "log")
        return
    alerts.tell(
        ctx,
        tx,
        AlertKind.AUDIT_BROKEN,
        "log",
        subject="audit log",
        title=f"the audit log does not fit its chain from event {broken} on",
        text="Somebody changed it in the database, or the installation's secret is another.",
    )


def forget(ctx: Context, *, alerts_days: float, failovers_days: float) -> None:
    """Delete alerts that ended, and failovers, when they are as old as that; and captured
    requests at their own end. Keys of providers that expired are taken away.
    """
    now = ctx.clock.now()
    with ctx.store.write() as tx:
        tx.alerts.forget(now - timedelta(days=alerts_days))
        tx.failovers.forget(now - timedelta(days=failovers_days))
        tx.captures.forget(now)
    credentials.expire(ctx)


def evaluate_incumbents(ctx: Context, *, suite: str) -> list[EvalRun]:
    """Queue a run of the suite on each incumbent of the routes that use it."""
    with ctx.store.read() as tx:
        routes = tx.routing.table().routes.values()
    targets = {
        route.incumbent
        for route in routes
        if any(each.suite == suite for each in route.settings.suites)
    }
    return [work.start_by_hand(ctx, SYSTEM, suite, target) for target in sorted(targets)]
