"""Finds promotions that were undone. After the bake, a person can restore a former model: this
later rollback does not change the promoted rollout, so pages show it separately.
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
    """Describes who undid the promotion, and why; empty without a rollback."""
    return describe_abort(rollback.actor, rollback.reason, baking=True) if rollback else ""


def find_taken_back(
    tx: Transaction, name: str, target: str, history: Sequence[RouteRecord]
) -> Rollout | None:
    if target in standing_incumbents(history):
        return None
    last = next(iter(Rollouts(tx).list(route=name, candidate=target, limit=1)), None)
    return last if last is not None and last.state is RolloutState.ROLLED_BACK else None


def standing_incumbents(history: Sequence[RouteRecord]) -> list[str]:
    """Lists the incumbents whose promotion was not undone, oldest first."""
    chain: list[str] = []
    for record in reversed(history):
        incumbent = record.route.incumbent
        if record.kind == CHANGE_KINDS[RestoreIncumbent] and incumbent in chain:
            while chain[-1] != incumbent:
                chain.pop()
        elif chain[-1:] != [incumbent]:
            chain.append(incumbent)
    return chain
