"""Keeps the clients of a project within the budget that the configuration gives it for a month:
what its keys may spend together never exceeds that, since routers stop each key at its own.
"""

from harness.control.context import Context
from harness.domain.errors import Conflict
from harness.domain.formatting import format_usd
from harness.domain.operations.access import ApiKey
from harness.domain.operations.spending import fits, month_of
from harness.domain.reliability.spend import SpendTotals
from harness.ports import Transaction


def check_project_budget(ctx: Context, tx: Transaction, project: str) -> None:
    """Checks what the data keys of a project may spend in this month (UTC), in the unit of work
    that has just changed one: such units of work wait for each other.

    A key counts with its monthly budget, or with what it has spent where that is more; a
    revoked one with what it spent. Raises Conflict where they may spend too much together, and
    where a key has no monthly budget.
    """
    budget_usd = ctx.project_budgets.get(project)
    if budget_usd is None:
        return
    now = ctx.clock.now()
    first_day = month_of(now)
    keys = [
        key
        for key in tx.keys.data_keys(project)
        if key.revoked_at is None or key.revoked_at.date() >= first_day
    ]
    ids, today = [key.id for key in keys], now.date()
    spent = tx.observations.spend_totals(today=today, keys=ids)
    taken_usd = 0.0
    for key in keys:
        spent_usd = spent.get(key.id, SpendTotals(today)).month_usd
        taken_usd += max(spent_usd, _budget_usd(key, project, budget_usd))
    if not fits(budget_usd, taken_usd, 0.0):
        raise Conflict(
            f"clients of the project {project!r} may spend {format_usd(budget_usd)} a month "
            f"together, and so they could spend {format_usd(taken_usd)} in this one: give the "
            "key a smaller `--budget-month`, or lower another key's first"
        )


def _budget_usd(key: ApiKey, project: str, budget_usd: float) -> float:
    """What the key may spend in a month; 0 for a revoked one."""
    if key.revoked_at is not None:
        return 0.0
    own_usd = key.limits.budget_month_usd if key.limits is not None else None
    if own_usd is None:
        raise Conflict(
            f"clients of the project {project!r} may spend {format_usd(budget_usd)} a month "
            f"together, so that each of its keys needs a `--budget-month`; {key.name!r} "
            f"({key.id}) has none"
        )
    return own_usd
