"""Keeps the monthly cap: `run_once`, a part of the reconcile loop, puts the file's cap into the
database, and alerts while work waits for money.
`find_money_obstacle` says why a run waits, `load_spending` what was spent in this month.
"""

from harness.control import audit
from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.evals.run import EvalRun
from harness.domain.formatting import format_usd
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.spending import (
    MonthSpending,
    SpendingPurpose,
    describe_refusal,
    describe_unpriced,
    describe_waiting,
    month_of,
)
from harness.domain.routing.target import Target
from harness.store.transaction import Transaction

ALERT_KEY = "spending"


def run_once(ctx: Context) -> list[str]:
    """Keeps cap and alert as they should be; what it did, in words."""
    did = []
    with ctx.store.read() as tx:
        stored = tx.spending.cap_usd()
    if stored != ctx.monthly_cap_usd:
        with ctx.store.write() as tx:
            if tx.spending.set_cap(ctx.monthly_cap_usd, ctx.clock.now()):
                details = {"before_usd": stored, "after_usd": ctx.monthly_cap_usd}
                audit.record(ctx, tx, SYSTEM, "spending.cap", "spending", details)
        did.append(f"the monthly cap is {_cap_text(ctx.monthly_cap_usd)} now")
    _watch(ctx)
    return did


def load_spending(ctx: Context) -> MonthSpending:
    """Loads what was spent in this month."""
    with ctx.store.read() as tx:
        return tx.spending.month(month_of(ctx.clock.now()))


def spending_purpose(tx: Transaction, run: str) -> SpendingPurpose:
    """Tells what a run's answers are for: an eval, or a check for drift."""
    return SpendingPurpose.DRIFT if tx.drift.is_checking(run) else SpendingPurpose.EVALS


def find_money_obstacle(tx: Transaction, month: MonthSpending, run: EvalRun, judge: str) -> str:
    """Says why a run may ask nothing now; empty where it may. judge: id of its judge's target,
    empty without one.
    """
    if month.cap_usd is None:
        return ""
    known, providers = tx.routing.targets(), tx.providers.all()
    for id_ in filter(None, (run.target, judge)):
        target: Target | None = known.get(id_)
        provider = providers.get(target.provider) if target else None
        if target and provider and target.model not in provider.prices:
            return describe_unpriced(target.name, month.cap_usd)
    purposes = {spending_purpose(tx, run.id)} | ({SpendingPurpose.JUDGES} if judge else set())
    waits = any(month.waits(purpose) for purpose in purposes)
    return describe_refusal(month) if waits else ""


def _watch(ctx: Context) -> None:
    month = load_spending(ctx)
    notice: alerts.AlertNotice | None = None
    if month.waiting:
        reason = describe_refusal(month)
        refused = SpendingPurpose.AGENTS in month.waiting
        others = "All other requests" if refused else "Users' requests"
        notice = alerts.AlertNotice(
            "spending",
            f"the monthly cap is reached: {describe_waiting(month.waiting)}",
            f"{reason[:1].upper()}{reason[1:]}. {others} go on.",
        )
    alerts.update_alert(ctx, AlertKind.SPENDING_CAP, ALERT_KEY, notice)


def _cap_text(usd: float | None) -> str:
    return "none" if usd is None else format_usd(usd)
