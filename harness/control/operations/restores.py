"""Handles a database that was restored from a backup: nothing is built on it until a person
accepts it. `is_unaccepted` says whether it went back in its history; `accept_restore` opens a
new epoch, with revisions above all that routers served.
"""

from collections.abc import Iterable
from typing import Final

from harness.control import audit
from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.errors import InputError
from harness.domain.operations.access import Actor, Role
from harness.domain.operations.alerts import AlertKind
from harness.domain.routing.snapshot_lineage import Lineage
from harness.ports import Transaction

MAX_REVISION: Final = 2**53


def accept_restore(ctx: Context, actor: Actor, *, reason: str, above: int) -> Lineage:
    """Open a new epoch, which routers follow; revisions go on above `above`.

    above: the highest revision that any router served. What no router served since the backup
    is lost. Raises InputError without a reason, or for a number that is none.
    """
    actor.require(Role.ADMIN)
    if not reason.strip():
        raise InputError("accepting a restored database needs a reason; the audit log keeps it")
    if not 0 <= above <= MAX_REVISION:
        raise InputError(
            f"the highest revision that routers served is from 0 to {MAX_REVISION}, not {above}"
        )
    with ctx.store.write() as tx:
        before = tx.installation.lineage()
        after = tx.installation.open_epoch(above=max(above, before.revision))
        if tx.audit.first_break() is None:
            # What is there fits; what is missing, a person has accepted.
            alerts.resolve_alert(ctx, tx, AlertKind.AUDIT_BROKEN, "log")
        # Also where a router that raised it was killed since, and cannot say that it is over.
        alerts.end_alert(ctx, tx, AlertKind.DATABASE_RESTORED.value)
        audit.record(
            ctx,
            tx,
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
    """The highest revision that this database, or `more`, knows to have been served."""
    with ctx.store.read() as tx:
        return max(
            tx.installation.lineage().revision, tx.installation.highest_served(), *more, 0
        )


def is_unaccepted(tx: Transaction) -> bool:
    """Whether a router says that this database went back in its history."""
    record = tx.alerts.newest(AlertKind.DATABASE_RESTORED.value)
    return record is not None and record.resolved_at is None
