"""What routers stopped by themselves: the control plane makes it final.

A router's own guard needs no database. What it did arrives as an alert, perhaps much later,
from its spool; until then the weights that the database has are not what users get.
"""

from dataclasses import replace

from harness.domain.canary.rollout import ActionKind, Rollout, RolloutSignal
from harness.domain.operations.alerts import AlertKind
from harness.gate.online.decision import RolloutAction
from harness.ports import Transaction


def confirm_worker_abort(
    tx: Transaction, rollout: Rollout, action: RolloutAction
) -> RolloutAction:
    """The action, or the rollback that a router has begun.

    It may be told of as late as in the bake.
    """
    if not (rollout.live or rollout.baking) or action.signal is RolloutSignal.HARM:
        return action
    found = tx.alerts.newest(f"{AlertKind.LOCAL_ABORT.value}:{rollout.id}")
    if found is None:
        return action
    return replace(
        action,
        kind=ActionKind.ROLLBACK,
        signal=RolloutSignal.HARM,
        reason=f"A router's own guard stopped the canary. {found.text}",
        figures=replace(action.figures, local_abort=found.id),
    )
