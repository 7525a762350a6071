"""Watches, in a control process that does not lead, whether the one that leads still runs. On
PostgreSQL the database drops a silent leader; a lock on a SQLite file stays with a process
that is stopped, and only a person can end it.
"""

from typing import Final

import structlog

from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.formatting import format_span
from harness.domain.operations.alerts import AlertKind

SILENT_AFTER_S: Final = 10.0
KEY: Final = "leader"

log = structlog.get_logger("swapgate.leader")


def watch_leader(ctx: Context, silence_s: float) -> None:
    """Alerts people while the leader's heartbeat is missing, and delivers that in the leader's
    place. silence_s: how long it is missing; 0 of one that runs.
    """
    silent = silence_s > SILENT_AFTER_S
    if not silent:
        if alerts.is_open(ctx, AlertKind.LEADER_SILENT, KEY):
            with ctx.store.write() as tx:
                alerts.resolve_alert(ctx, tx, AlertKind.LEADER_SILENT, KEY)
        return
    if alerts.is_open(ctx, AlertKind.LEADER_SILENT, KEY):
        alerts.run_once(ctx)
        return
    with ctx.store.write() as tx:
        owner = tx.installation.leader()
        log.error("leader_silent", leader=owner, silent_s=round(silence_s))
        alerts.raise_alert(
            ctx,
            tx,
            AlertKind.LEADER_SILENT,
            KEY,
            subject=f"process {owner}",
            title=f"the control process that leads, {owner}, is stopped or hangs",
            text=(
                f"No sign of it for {format_span(silence_s)}. It holds the lock of the SQLite "
                "database, so that no other control process can take its place: evals, "
                "canaries and alerts stand still. Routers serve on, and their own guard still "
                "stops a canary that fails grossly."
            ),
        )
    alerts.run_once(ctx)
