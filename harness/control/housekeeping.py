"""What is looked after now and then: the audit chain, and evals of incumbents by schedule."""

import structlog

from harness.control import work
from harness.control.context import Context
from harness.domain.access import SYSTEM
from harness.domain.evaluation import EvalRun

log = structlog.get_logger("swapgate.housekeeping")


def tidy(ctx: Context) -> int | None:
    """Check the audit chain. Returns the number of the first event that does not fit."""
    with ctx.store.read() as tx:
        broken = tx.audit.first_break()
    if broken is not None:
        log.error("audit_chain_broken", event=broken, next="swapgate audit verify")
    return broken


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
