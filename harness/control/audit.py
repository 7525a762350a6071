"""Appends events to the audit log, and compares the log with its end kept outside the database:
the number and MAC of its last event, in a file (`Context.anchor`).

A log that has no such event was cut or replaced; what is behind the kept end is held by the
chain of events alone.
"""

from collections.abc import Mapping

from harness.control.context import Context
from harness.domain.operations.access import Actor
from harness.domain.operations.audit import AuditEvent, AuditPosition
from harness.ports import Transaction


def record(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    action: str,
    subject: str,
    details: Mapping[str, object],
) -> AuditEvent:
    """Append an event to the audit log: who did what to which subject, in the caller's unit."""
    return tx.audit.append(
        at=ctx.clock.now(), actor=actor, action=action, subject=subject, details=details
    )


def find_first_break(ctx: Context, tx: Transaction) -> int | None:
    """The number of the first event that does not fit the chain, or the kept end of the log."""
    broken = tx.audit.first_break()
    return broken if broken is not None else find_anchor_break(ctx, tx)


def find_anchor_break(ctx: Context, tx: Transaction) -> int | None:
    """The number of the kept end where the log has no such event; None where it has.

    Raises SignatureInvalid where what is kept was not signed by control.
    """
    kept = ctx.anchor.read() if ctx.anchor is not None else None
    if kept is None or not kept.number:
        return None
    last = tx.audit.after(kept.number - 1, 1)
    same = [event.mac for event in last] == [kept.mac] and last[0].number == kept.number
    return None if same else kept.number


def advance_anchor(ctx: Context, mark: AuditPosition) -> None:
    """Moves the log's end that is kept outside the database on to `mark`, never back."""
    if ctx.anchor is None:
        return
    kept = ctx.anchor.read()
    if kept is None or kept.number < mark.number:
        ctx.anchor.keep(mark)
