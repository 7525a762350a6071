"""Records in the audit log who took a backup, whose file holds every key of the installation,
and who takes the schema back to an earlier revision.
"""

from harness.control import audit
from harness.control.context import Context
from harness.domain.errors import InputError
from harness.domain.operations.access import Actor, Role


def record_backup(ctx: Context, actor: Actor, name: str, sha256: str) -> None:
    """Record a backup that was written. name, sha256: of its file."""
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        audit.record(ctx, tx, actor, "database.backup", name, {"sha256": sha256})


def record_downgrade(
    ctx: Context, actor: Actor, *, before: str, after: str, reason: str
) -> None:
    """Record a downgrade that begins: afterwards this version cannot write any more."""
    actor.require(Role.ADMIN)
    if not reason.strip():
        raise InputError("--reason is empty: say why, the audit log keeps it")
    details = {"from": before, "to": after, "reason": reason}
    with ctx.store.write() as tx:
        audit.record(ctx, tx, actor, "database.downgrade", "database", details)
