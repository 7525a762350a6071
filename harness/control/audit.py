"""Appends events to the audit log (`record`)."""

from collections.abc import Mapping

from harness.control.context import Context
from harness.domain.operations.access import Actor
from harness.domain.operations.audit import AuditEvent
from harness.store.transaction import Transaction


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
