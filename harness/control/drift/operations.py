"""Lets people measure a route's watched suites for drift at once (`start_checks`), or accept
the model as it answers now, which measures a new baseline (`accept_baseline`).
"""

from harness.control.context import Context
from harness.control.drift import watches
from harness.control.drift.watches import WatchedPair
from harness.control.routing import routes
from harness.domain.drift.watch import DriftCheck, DriftWatch, DriftWatchState
from harness.domain.errors import Conflict, InputError, NotFound
from harness.domain.operations.access import Actor, Role
from harness.ports import Transaction


def start_checks(
    ctx: Context, actor: Actor, route: str, *, suite: str = ""
) -> list[DriftCheck]:
    """Ask again at once, whatever the schedule says. What runs already is given as it is.

    Raises NotFound where nothing is watched, Conflict while found drift waits for a person.
    """
    actor.require(Role.PROPOSER)
    started = []
    with ctx.store.write() as tx:
        for pair in _of_route(ctx, tx, route, suite):
            watch = watches.find_open_watch(tx, pair)
            if watch is not None and watch.state is DriftWatchState.DRIFTED:
                raise Conflict(
                    f"suite {pair.suite} has found drift on route {route}: see `swapgate drift "
                    f"status {route}`, then `swapgate drift accept {route} --reason …`"
                )
            if watch is None:
                watch = watches.begin_watch(
                    ctx, tx, actor, pair, watches.plan_watch(ctx, pair), "asked for by hand"
                )
            else:
                watches.start_check(ctx, tx, pair, watch)
            if watch is not None:
                started.append(tx.drift.checks(watch.id)[-1])
                watches.record_watch_event(
                    ctx, tx, actor, "drift.run", watch, {"run": started[-1].run}
                )
    return started


def accept_baseline(
    ctx: Context, actor: Actor, route: str, *, reason: str, suite: str = ""
) -> list[DriftWatch]:
    """Take the model as it answers now for the one to compare with: a new baseline is measured.

    The run that raised the alarm is not it: a baseline chosen for its scores is biased.
    Raises NotFound where nothing is watched, InputError without a reason, NotAllowed.
    """
    actor.require(Role.APPROVER)
    if not reason.strip():
        raise InputError("a new baseline needs a reason: the audit log keeps it")
    opened = []
    with ctx.store.write() as tx:
        for pair in _of_route(ctx, tx, route, suite):
            before = watches.find_open_watch(tx, pair)
            if before is not None:
                watches.close_watch(ctx, tx, before)
            watch = watches.begin_watch(
                ctx, tx, actor, pair, watches.plan_watch(ctx, pair), reason
            )
            if watch is not None:
                opened.append(watch)
    return opened


def _of_route(ctx: Context, tx: Transaction, route: str, suite: str) -> list[WatchedPair]:
    routes.require_route(tx, route)
    pairs = [
        pair
        for pair in watches.list_watched_pairs(ctx, tx)
        if route in pair.routes and suite in ("", pair.suite)
    ]
    if not pairs:
        which = f"suite {suite!r}" if suite else "no suite"
        raise NotFound(
            f"{which} watches route {route!r}: give a suite of the route a `drift` section in "
            "the configuration (`swapgate docs open explanation/drift`)"
        )
    return pairs
