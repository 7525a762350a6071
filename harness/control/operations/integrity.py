"""Verifies what is stored: in parts the chain of the audit log and the signature of every row,
and at once what routers serve and control works on. A fault opens an alert, which ends when no
fault is left.
"""

from collections.abc import Sequence
from typing import Final

import structlog

from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.errors import SnapshotInvalid
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.audit import AuditPosition
from harness.domain.operations.integrity import MOST_FAULTS, IntegrityProgress
from harness.domain.operations.row_signatures import RowFault
from harness.ports import Transaction

log = structlog.get_logger("swapgate.integrity")

# Of a part, after which the next job has its turn: a part is verified at each housekeeping.
EVENTS_PER_PART: Final = 20_000
EVENTS_PER_PAGE: Final = 1_000
ROWS_PER_PART: Final = 10_000


def check_audit_chain(ctx: Context) -> int | None:
    """Checks the next part of the audit chain. Returns the first event that
    does not fit.
    """
    progress = ctx.integrity
    with ctx.store.read() as tx:
        if progress.broken is not None or not _part_fits(tx, progress):
            # Of a log that was put back, or was broken, a part says too little.
            progress.broken, progress.event = tx.audit.first_break(), AuditPosition()
        broken = progress.broken
    if broken is not None:
        log.error("audit_chain_broken", number=broken, next="swapgate audit verify")
    # What another process found stays until this one has read the log to its end.
    is_known = broken is not None or progress.event_rounds > 0
    if is_known and (broken is not None) != alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "log"):
        with ctx.store.write() as tx:
            update_chain_alert(ctx, tx, broken)
    return broken


def _part_fits(tx: Transaction, progress: IntegrityProgress) -> bool:
    for _ in range(EVENTS_PER_PART // EVENTS_PER_PAGE):
        events = tx.audit.after(progress.event.number, EVENTS_PER_PAGE)
        if tx.audit.break_after(progress.event, events) is not None:
            return False
        if len(events) < EVENTS_PER_PAGE:
            progress.event = AuditPosition()
            progress.event_rounds += 1
            break
        progress.event = AuditPosition(events[-1].number, events[-1].mac)
    return True


def update_chain_alert(ctx: Context, tx: Transaction, broken: int | None) -> None:
    """Opens or ends the alert of a broken audit log. broken: the number of the first event
    that does not fit; None ends the alert.
    """
    if broken is None:
        alerts.resolve_alert(ctx, tx, AlertKind.AUDIT_BROKEN, "log")
        return
    alerts.raise_alert(
        ctx,
        tx,
        AlertKind.AUDIT_BROKEN,
        "log",
        subject="audit log",
        title=f"the audit log does not fit its chain from event {broken} on",
        text="Somebody changed it in the database, or the installation's secret is another.",
    )


def check_snapshot(ctx: Context) -> bool:
    """Checks that what routers are to serve, and control works on, is signed, and alerts where
    something is not. Returns whether all of it is.
    """
    try:
        ctx.store.snapshot()
        faults = _describe_faults(ctx.store.signature_faults(working=True))
    except SnapshotInvalid as error:
        faults = str(error)
    _update_rows_alert(ctx, "snapshot", faults)
    return not faults


def check_signatures(ctx: Context) -> int:
    """Verifies the signatures of the next part of the stored rows, and of those at fault;
    raises an alert where one does not hold. Returns how many are known not to.
    """
    progress = ctx.integrity
    faults = dict(ctx.store.verify_again(progress.faults))
    left = ROWS_PER_PART
    while left > 0:
        part = ctx.store.verify_rows(progress.row)
        faults.update(part.faults)
        progress.row = part.last
        left -= part.count
        if part.last is None:
            progress.row_rounds += 1
            break
    progress.note(faults)
    # What another process found stays until this one has seen every row.
    if progress.faults or progress.is_sound:
        _update_rows_alert(ctx, "rows", _describe_faults([*progress.faults.values()]))
    return len(progress.faults)


def _describe_faults(faults: Sequence[RowFault]) -> str:
    first = "; ".join(f"{fault.name}: {fault.why}" for fault in faults[:3])
    more = " or more" if len(faults) == MOST_FAULTS else ""
    return f"{len(faults)} rows{more}, the first: {first}" if faults else ""


def _update_rows_alert(ctx: Context, name: str, found: str) -> None:
    if bool(found) == alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, name):
        return
    with ctx.store.write() as tx:
        if not found:
            alerts.resolve_alert(ctx, tx, AlertKind.AUDIT_BROKEN, name)
            return
        log.error("signature_invalid", what=name, found=found, next="swapgate db check")
        alerts.raise_alert(
            ctx,
            tx,
            AlertKind.AUDIT_BROKEN,
            name,
            subject="database",
            title="rows of the database are not as Swapgate signed them",
            text=f"{found}. Nothing is built on them, and routers serve what they had.",
        )
