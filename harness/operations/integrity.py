"""Verifies stored rows; a fault opens the alert `audit_broken`. The control plane does not act
on a database that was restored from a backup until a person accepts it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.errors import InputError, SnapshotInvalid
from harness.frame.people.access import Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit import AuditPosition, AuditReading
from harness.frame.signing.audit_log import AuditLog
from harness.frame.signing.signed_rows import Lineage, RowFault
from harness.routing.context import Context
from harness.routing.records.installation import Installations

log = structlog.get_logger("swapgate.integrity")

# Pages of one turn, so that the next job is not delayed.
PAGES_PER_TURN: Final = 20
EVENTS_PER_PAGE: Final = 1_000


def check_audit_log(ctx: Context) -> list[str]:
    """Verifies the events since the last call. Returns the faults for people."""
    reading = ctx.audit_reading
    with ctx.store.read() as tx:
        broken = _read_on(tx, reading)
    if broken is not None:
        log.error("audit_chain_broken", number=broken, next="swapgate audit verify")
    # The alert of another process stays until this process has read the whole log.
    is_known = broken is not None or reading.is_whole
    if is_known:
        notice = alerts.AlertNotice(
            "audit log",
            f"the audit log does not fit its chain from event {broken} on",
            "A person changed it in the database, or the installation's secret has changed.",
        )
        alerts.update_alert(
            ctx, AlertKind.AUDIT_BROKEN, "log", notice if broken is not None else None
        )
    return [] if broken is None else [f"the audit log is broken from event {broken} on"]


def _read_on(tx: Transaction, reading: AuditReading) -> int | None:
    position = reading.position
    if position.number:
        last = AuditLog(tx).find(position.number)
        if last is None or last.mac != position.mac:
            reading.position = position = AuditPosition()  # the database was replaced
    reading.is_whole = False
    for _ in range(PAGES_PER_TURN):
        events = AuditLog(tx).after(reading.position.number, EVENTS_PER_PAGE)
        broken = AuditLog(tx).break_after(reading.position, events)
        if broken is not None:
            return broken
        if events:
            reading.position = AuditPosition(events[-1].number, events[-1].mac)
        if len(events) < EVENTS_PER_PAGE:
            reading.is_whole = True
            break
    return None


def check_snapshot(ctx: Context) -> bool:
    """Verifies the signatures of the routers' snapshot, with an alert for faults."""
    try:
        ctx.store.snapshot()
        faults = _describe_faults(ctx.store.signature_faults(working=True))
    except SnapshotInvalid as error:
        faults = str(error)
    if faults and not alerts.is_open(ctx, AlertKind.AUDIT_BROKEN, "snapshot"):
        log.error("signature_invalid", found=faults, next="swapgate db check")
    notice = alerts.AlertNotice(
        "database",
        "rows of the database have invalid signatures",
        f"{faults}. Swapgate does not use them; routers serve the last valid snapshot.",
    )
    alerts.update_alert(ctx, AlertKind.AUDIT_BROKEN, "snapshot", notice if faults else None)
    return not faults


def _describe_faults(faults: Sequence[RowFault]) -> str:
    first = "; ".join(f"{fault.name}: {fault.why}" for fault in faults[:3])
    return f"{len(faults)} rows, the first: {first}" if faults else ""


MAX_REVISION: Final = 2**53


def accept_restore(ctx: Context, actor: Actor, *, reason: str, above: int) -> Lineage:
    """Opens an epoch, which routers follow, with revisions above `above`. Changes after the
    backup are lost. Raises InputError without a reason, or for a wrong number.

    above: the highest revision that any router served.
    """
    actor.require(Role.ADMIN)
    if not reason.strip():
        raise InputError("accepting a restored database needs a reason; the audit log keeps it")
    if not 0 <= above <= MAX_REVISION:
        raise InputError(
            f"the highest revision that routers served is from 0 to {MAX_REVISION}, not {above}"
        )
    with ctx.store.write() as tx:
        before = Installations(tx).lineage()
        after = Installations(tx).open_epoch(above=max(above, before.revision))
        if AuditLog(tx).first_break() is None:
            # The stored events fit the chain, and a person accepted the loss of later events.
            alerts.resolve_alert(tx, AlertKind.AUDIT_BROKEN, "log")
        # Ends it for all routers, because a router that raised it may be dead.
        alerts.end_alert(tx, AlertKind.DATABASE_RESTORED)
        AuditLog(tx).append(
            actor,
            "database.accept_restore",
            f"installation {before.installation}",
            {
                "reason": reason.strip(),
                "epoch": after.epoch,
                "revision": before.revision,
                "revisions_above": max(above, before.revision),
            },
        )
    return after


def highest_known_revision(ctx: Context, more: Iterable[int] = ()) -> int:
    with ctx.store.read() as tx:
        return max(
            Installations(tx).lineage().revision, Installations(tx).highest_served(), *more, 0
        )


def is_unaccepted(tx: Transaction) -> bool:
    """Whether a router reports a restored database that a person has not accepted."""
    record = Alerts(tx).newest(AlertKind.DATABASE_RESTORED.value)
    return record is not None and record.resolved_at is None
