"""Runs the reconcile loop: each turn drives every open proposal and every bake, supervises eval
workers and ends finished shadows.

Each is looked at on its own; a conflict means that somebody else was first, and the next turn
decides again. Everything it knows is in the store, so it can die at any point.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from harness.control.canary import driver
from harness.control.context import Context
from harness.control.evals import fair_queue, worker_supervision
from harness.control.operations import integrity, restores, spending
from harness.control.proposals.driver import drive_proposal
from harness.control.routing import break_glass
from harness.control.shadow import shadows
from harness.domain.errors import SwapgateError
from harness.domain.evals.run import RUNNABLE_STATES

log = structlog.get_logger("swapgate.reconcile")


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What one turn did, in words, and what it could not do."""

    did: tuple[str, ...]
    failed: tuple[str, ...]
    is_idle: bool = False  # nothing is under way: the next turn has nothing to do, either


def reconcile(ctx: Context) -> ReconcileResult:
    """Runs one turn over every open proposal, bake and worker. Raises StoreUnavailable.

    Nothing moves on a database that was restored and that nobody has accepted.
    """
    did: list[str] = []
    failed: list[str] = []

    def run_step(name: str, look_at: Callable[[], list[str]]) -> None:
        try:
            did.extend(look_at())
        except SwapgateError as error:
            # A conflict means that another writer was first: the next turn decides again.
            if error.retryable:
                raise
            failed.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - one that is broken must not stop the others
            failed.append(f"{name}: {type(error).__name__}: {error}")

    # First: a broken log raises its alert even where it stops all that follows.
    run_step("the audit log", partial(integrity.check_audit_log, ctx))
    try:
        with ctx.store.read() as tx:
            if restores.is_unaccepted(tx):
                restored = "this database was restored from a backup"
                return ReconcileResult((), (f"all holds: {restored}",))
    except Exception as error:
        if isinstance(error, SwapgateError) and error.retryable:
            raise
        # Nothing that is read here may stop a canary's end.
        failed.append(f"what is told of the database cannot be read: {error}")
    run_step("the monthly cap", partial(spending.run_once, ctx))
    # Before the proposals: one for a route that is served without proof has lost its base.
    run_step("break-glass", partial(break_glass.run_once, ctx))
    with ctx.store.read() as tx:
        proposals = tx.proposals.open()
    for proposal in proposals:
        run_step(proposal.id, partial(drive_proposal, ctx, proposal))
    # After the proposals: a promotion of this turn bakes from now on.
    with ctx.store.read() as tx:
        baking = tx.rollouts.baking()
    for rollout in baking:
        run_step(rollout.proposal, partial(driver.drive_bake, ctx, rollout))
    did.extend(
        worker_supervision.run_once(ctx)
        if ctx.run_queue is None
        else fair_queue.run_once(ctx, ctx.run_queue)
    )
    did.extend(shadows.end_finished(ctx))
    is_idle = not (did or failed or proposals or baking or _is_busy(ctx))
    return ReconcileResult(tuple(did), tuple(failed), is_idle)


def _is_busy(ctx: Context) -> bool:
    """Tells whether something goes on beside proposals and bakes that a turn looks after."""
    if not ctx.audit_reading.is_whole or (ctx.workers is not None and ctx.workers.alive()):
        return True
    with ctx.store.read() as tx:
        runs = tx.runs.list(states=RUNNABLE_STATES, limit=1)
        return bool(runs or tx.shadows.live() or tx.break_glasses.open())


def run_once(ctx: Context) -> ReconcileResult:
    """Runs `reconcile` once, and logs what it did."""
    done = reconcile(ctx)
    for words in done.did:
        log.info("reconciled", did=words)
    for words in done.failed:
        log.warning("reconcile_failed", reason=words)
    return done
