"""Records in the audit log who took a backup, whose file holds every key."""

from harness.control import audit
from harness.control.context import Context
from harness.domain.operations.access import Actor, Role


def record_backup(ctx: Context, actor: Actor, name: str, sha256: str) -> None:
    """Record a backup that was written. name, sha256: of its file."""
    actor.require(Role.ADMIN)
    with ctx.store.write() as tx:
        audit.record(ctx, tx, actor, "database.backup", name, {"sha256": sha256})
