"""Finds promotions that were taken back. A later rollback is that of a promotion whose bake is
over: a person brought a former model back. Its rollout stays promoted; who looks at it wants to
know that it does not serve any more.
"""

from collections.abc import Sequence

from harness.frame.records.transaction import Transaction
from harness.gate.online.rollout import Rollout, RolloutState, describe_abort
from harness.routing.records.rollouts import Rollouts
from harness.routing.records.routes import Routing
from harness.routing.route_changes import CHANGE_KINDS, RestoreIncumbent
from harness.routing.table import RouteRecord


def find_later_rollback(tx: Transaction, rollout: Rollout) -> RouteRecord | None:
    if not is_over(rollout):
        return None
    record = Routing(tx).first_after(rollout.id)
    restored = record is not None and record.kind == CHANGE_KINDS[RestoreIncumbent]
    return record if restored else None


def is_over(rollout: Rollout) -> bool:
    return rollout.state is RolloutState.PROMOTED and not rollout.baking


def describe_later_rollback(rollback: RouteRecord | None) -> str:
    """Says who took the promotion back, and why; empty for none."""
    return describe_abort(rollback.actor, rollback.reason, baking=True) if rollback else ""


def find_taken_back(
    tx: Transaction, name: str, target: str, history: Sequence[RouteRecord]
) -> Rollout | None:
    if target in standing_incumbents(history):
        return None
    last = next(iter(Rollouts(tx).list(route=name, candidate=target, limit=1)), None)
    return last if last is not None and last.state is RolloutState.ROLLED_BACK else None


def standing_incumbents(history: Sequence[RouteRecord]) -> list[str]:
    """Incumbents, oldest first, without those whose promotion was taken back."""
    chain: list[str] = []
    for record in reversed(history):
        incumbent = record.route.incumbent
        if record.kind == CHANGE_KINDS[RestoreIncumbent] and incumbent in chain:
            while chain[-1] != incumbent:
                chain.pop()
        elif chain[-1:] != [incumbent]:
            chain.append(incumbent)
    return chain
