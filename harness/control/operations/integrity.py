"""Verifies what is stored: the audit log's chain as it grows, and the signatures of what
routers serve and control works on. A fault opens the alert `audit_broken`, which ends with it.
"""

from collections.abc import Sequence
from typing import Final

import structlog

from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.errors import SnapshotInvalid
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.audit import AuditPosition, AuditReading
from harness.domain.operations.row_signatures import RowFault
from harness.ports import Transaction

log = structlog.get_logger("swapgate.integrity")

# Of one turn, after which the next job has its own.
PAGES_PER_TURN: Final = 20
EVENTS_PER_PAGE: Final = 1_000


def check_audit_log(ctx: Context) -> list[str]:
    """Verifies the events since the last call. Returns what it found broken, in words."""
    reading = ctx.audit_reading
    with ctx.store.read() as tx:
        broken = _read_on(tx, reading)
    if broken is not None:
        log.error("audit_chain_broken", number=broken, next="swapgate audit verify")
    # A break that another process found stays until this one has read the log to its end.
    is_known = broken is not None or reading.is_whole
    if is_known and (broken is not None) != alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "log"):
        with ctx.store.write() as tx:
            _update_chain_alert(ctx, tx, broken)
    return [] if broken is None else [f"the audit log is broken from event {broken} on"]


def _read_on(tx: Transaction, reading: AuditReading) -> int | None:
    position = reading.position
    if position.number:
        last = tx.audit.get(position.number)
        if last is None or last.mac != position.mac:
            reading.position = position = AuditPosition()  # the database is another one now
    reading.is_whole = False
    for _ in range(PAGES_PER_TURN):
        events = tx.audit.after(reading.position.number, EVENTS_PER_PAGE)
        broken = tx.audit.break_after(reading.position, events)
        if broken is not None:
            return broken
        if events:
            reading.position = AuditPosition(events[-1].number, events[-1].mac)
        if len(events) < EVENTS_PER_PAGE:
            reading.is_whole = True
            break
    return None


def _update_chain_alert(ctx: Context, tx: Transaction, broken: int | None) -> None:
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
    if bool(faults) == alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "snapshot"):
        return not faults
    with ctx.store.write() as tx:
        if not faults:
            alerts.resolve_alert(ctx, tx, AlertKind.AUDIT_BROKEN, "snapshot")
            return True
        log.error("signature_invalid", found=faults, next="swapgate db check")
        alerts.raise_alert(
            ctx,
            tx,
            AlertKind.AUDIT_BROKEN,
            "snapshot",
            subject="database",
            title="rows of the database are not as Swapgate signed them",
            text=f"{faults}. Nothing is built on them, and routers serve what they had.",
        )
    return False


def _describe_faults(faults: Sequence[RowFault]) -> str:
    first = "; ".join(f"{fault.name}: {fault.why}" for fault in faults[:3])
    return f"{len(faults)} rows, the first: {first}" if faults else ""
