"""Sends the audit log to the sinks outside the database (`send_new_events`, a periodic job):
each gets every event once or more often, in order, from where it stopped. What it has taken is
stored after it was taken, so that nothing is lost over restarts. `resend` goes back to an event
for a sink that lost some; `list_audit_sinks` says how far each has come.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import structlog

from harness.control import audit
from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.errors import DeliveryFailed, NotFound
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.audit import (
    AuditEvent,
    AuditExport,
    AuditPosition,
    require_reason,
)
from harness.domain.suggestions import did_you_mean
from harness.ports import AuditSinks, Transaction

log = structlog.get_logger("swapgate.audit_sinks")

EVENTS_AT_ONCE: Final = 500
BATCHES_PER_TURN: Final = 20
# In a row: a receiver that is started again is nobody's alert.
FAILURES_BEFORE_ALERT: Final = 3


@dataclass(frozen=True)
class AuditSinkState:
    """Says how far a sink has got the audit log."""

    sink: str
    number: int  # the last event that it has
    waiting: int  # events that it has not got yet
    at: datetime | None  # when it took the last one, or failed first since
    error: str  # of the last failure; empty where it took the last batch


def list_audit_sinks(ctx: Context) -> Sequence[AuditSinkState]:
    """Lists the configured sinks of the audit log, each with how far it has come."""
    names = ctx.audit_sinks.names() if ctx.audit_sinks is not None else ()
    with ctx.store.read() as tx:
        known = {export.sink: export for export in tx.audit_exports.all()}
        newest = next((event.number for event in tx.audit.tail(1)), 0)
    return [_sink_state(name, known.get(name), newest) for name in names]


def _sink_state(name: str, export: AuditExport | None, newest: int) -> AuditSinkState:
    """newest: the number of the log's last event."""
    if export is None:
        return AuditSinkState(name, 0, newest, None, "")
    number = export.position.number
    return AuditSinkState(name, number, newest - number, export.at, export.error)


def send_new_events(ctx: Context) -> None:
    """Sends each sink what it has not got yet. One that fails is tried again at the next turn,
    and holds up no other.
    """
    names = ctx.audit_sinks.names() if ctx.audit_sinks is not None else ()
    _end_alerts_of_removed(ctx, names)
    if ctx.audit_sinks is None:
        return
    for sink in names:
        for _ in range(BATCHES_PER_TURN):
            if not _send_batch(ctx, ctx.audit_sinks, sink):
                break


def _end_alerts_of_removed(ctx: Context, names: Sequence[str]) -> None:
    """Ends the alerts about sinks that the configuration has no more: they take no batch that
    would end them. Should one come back, it goes on from where it was.
    """
    with ctx.store.read() as tx:
        removed = [
            known
            for known in tx.audit_exports.all()
            if known.failures and known.sink not in names
        ]
    for known in removed:
        with ctx.store.write() as tx:
            if tx.audit_exports.advance(replace(known, failures=0, error=""), known.position):
                alerts.resolve_alert(ctx, tx, AlertKind.AUDIT_EXPORT, known.sink)


def resend(ctx: Context, actor: Actor, sink: str, *, after: int, reason: str) -> None:
    """Lets a sink get again what comes after an event. Raises NotFound for a sink that the
    configuration lacks, or an event that the log lacks; InputError without a reason.
    """
    actor.require(Role.ADMIN)
    because = require_reason(reason, "to send the audit log again")
    names = ctx.audit_sinks.names() if ctx.audit_sinks is not None else ()
    if sink not in names:
        raise NotFound(f"there is no audit sink {sink!r}{did_you_mean(sink, names)}")
    with ctx.store.write() as tx:
        event = tx.audit.get(after) if after else None
        if after and event is None:
            raise NotFound(f"the audit log has no event {after}")
        position = AuditPosition(event.number, event.mac) if event else AuditPosition()
        # Its failures stay: the batch that it takes next ends the alert about them.
        known = tx.audit_exports.get(sink) or AuditExport(sink, position, ctx.clock.now())
        tx.audit_exports.save(replace(known, position=position))
        audit.record(
            ctx,
            tx,
            actor,
            "audit.resend",
            f"audit sink {sink}",
            {"after": after, "reason": because},
        )


def _send_batch(ctx: Context, sinks: AuditSinks, sink: str) -> bool:
    """Whether the sink has taken a whole batch, so that there may be more."""
    with ctx.store.read() as tx:
        known = tx.audit_exports.get(sink)
        position = known.position if known is not None else AuditPosition()
        fits = _is_in_log(tx, position)
        events = tx.audit.after(position.number, EVENTS_AT_ONCE)
    if not fits:
        _note_failure(
            ctx,
            sink,
            known,
            f"it has event {position.number}, which is not in the log any more: the log was "
            "cut, or the database was restored from a backup",
        )
        return False
    if not events:
        return False
    end = AuditPosition(events[-1].number, events[-1].mac)
    try:
        sinks.send(sink, events if sinks.takes_events(sink) else (), end)
    except DeliveryFailed as error:
        _note_failure(ctx, sink, known, str(error))
        return False
    with ctx.store.write() as tx:
        # Where somebody let it go back meanwhile, it goes on from there.
        moved = tx.audit_exports.advance(AuditExport(sink, end, ctx.clock.now()), position)
        if moved and known is not None and known.failures:
            alerts.resolve_alert(ctx, tx, AlertKind.AUDIT_EXPORT, sink)
    return len(events) == EVENTS_AT_ONCE or not moved


def _is_in_log(tx: Transaction, position: AuditPosition) -> bool:
    if not position.number:
        return True
    found: Sequence[AuditEvent] = tx.audit.after(position.number - 1, 1)
    return [(event.number, event.mac) for event in found] == [(position.number, position.mac)]


def _note_failure(ctx: Context, sink: str, known: AuditExport | None, error: str) -> None:
    now = ctx.clock.now()
    before = known or AuditExport(sink, AuditPosition(), now)
    at = before.at if before.failures else now
    after = replace(before, at=at, failures=before.failures + 1, error=error)
    log.warning("audit_not_sent", sink=sink, failures=after.failures, error=error)
    with ctx.store.write() as tx:
        moved = tx.audit_exports.advance(after, before.position)
        if moved and after.failures == FAILURES_BEFORE_ALERT:
            alerts.raise_alert(
                ctx,
                tx,
                AlertKind.AUDIT_EXPORT,
                sink,
                subject=f"audit sink {sink}",
                title=f"the audit log does not reach {sink}",
                text=f"{error}. It has the events up to {after.position.number}; the others "
                "wait in the database, and are sent when it is back.",
            )
