"""Keeps the monthly cap, reports Swapproof's spending, and adds up costs of eval runs. A
missing price makes a run's cost unknown, never 0.

The cap's rule is in `harness.evals.month_spending`. Processes that call models check it by
`harness.evals.spending_meter`, not here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import compress

from harness.evals.context import EvalsContext
from harness.evals.month_spending import (
    EFFECTS_OF_CAP,
    MonthSpending,
    PurposeSpending,
    SpendingPurpose,
    month_of,
)
from harness.evals.records import Drift, Spending
from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.formatting import format_date, format_quantity, format_usd
from harness.frame.people.access import SYSTEM
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.run import AnswerColumns, EvalRun
from harness.providers.records import Providers, Targets
from harness.providers.target import Target, find_price
from harness.providers.target_price import list_unpriced
from harness.routing.records.runs import EvalRuns

ALERT_KEY = "spending"


def run_once(ctx: EvalsContext) -> list[str]:
    """Stores the configured cap if it changed, and updates the alert. Returns log lines."""
    log_lines = []
    with ctx.store.read() as tx:
        stored = Spending(tx).cap_usd()
    if stored != ctx.monthly_cap_usd:
        with ctx.store.write() as tx:
            if Spending(tx).set_cap(ctx.monthly_cap_usd, ctx.clock.now()):
                details = {
                    "before_usd": stored,
                    "after_usd": ctx.monthly_cap_usd,
                }
                AuditLog(tx).append(SYSTEM, "spending.cap", "spending", details)
        log_lines.append(f"the monthly cap is {_format_cap(ctx.monthly_cap_usd)} now")
    _update_alert(ctx)
    return log_lines


def load_spending(ctx: EvalsContext) -> MonthSpending:
    """Loads the present month's spending and the stored cap."""
    with ctx.store.read() as tx:
        return Spending(tx).month(month_of(ctx.clock.now()))


def spending_purpose(tx: Transaction, run: str) -> SpendingPurpose:
    """Returns the purpose under which a run's calls count: a drift check, or an eval."""
    return SpendingPurpose.DRIFT if Drift(tx).is_checking(run) else SpendingPurpose.EVALS


def find_money_obstacle(
    tx: Transaction,
    month: MonthSpending,
    run: EvalRun,
    judge: str,
) -> str:
    """Explains why a run may not call a model now; empty if it may.

    Args:
        judge: id of its target.
    """
    if month.cap_usd is None:
        return ""
    targets = Targets(tx).all()
    providers = Providers(tx).all()
    for id_ in filter(None, (run.target, judge)):
        target: Target | None = targets.get(id_)
        if target and target.provider in providers and list_unpriced(providers, [target.name]):
            return month.find_obstacle(unpriced_model=target.name)
    return month.find_obstacle()


def _update_alert(ctx: EvalsContext) -> None:
    """Raises the alert while the cap is reached, and ends it afterwards."""
    notice: alerts.AlertNotice | None = None
    if reason := load_spending(ctx).find_obstacle():
        notice = alerts.AlertNotice(
            "spending",
            f"the monthly cap is reached: {EFFECTS_OF_CAP}",
            f"{reason[:1].upper()}{reason[1:]}. All other requests continue.",
        )
    alerts.update_alert(ctx, AlertKind.SPENDING_CAP, ALERT_KEY, notice)


def _format_cap(usd: float | None) -> str:
    return "none" if usd is None else format_usd(usd)


@dataclass(frozen=True)
class SpendingReport:
    """This month's spending for people."""

    month: date  # its first day
    cap_usd: float | None  # None for no cap
    spent_usd: float
    left_usd: float | None  # None without a cap
    purposes: tuple[PurposeSpending, ...]
    reason: str  # says that the cap is reached; empty below the cap

    @property
    def headline(self) -> str:
        """Summarizes the month in one line; names calls of unknown price separately."""
        since = f"since {format_date(self.month)} (UTC)"
        calls = format_quantity(self.unpriced, "call")
        if self.unpriced and not self.spent_usd:
            cap = "" if self.cap_usd is None else f", below a cap of {format_usd(self.cap_usd)}"
            summary = f"{calls} {since}{cap}, all of unknown price"
        else:
            of_cap = "" if self.cap_usd is None else f" of {format_usd(self.cap_usd)}"
            unpriced_calls = f", plus {calls} of unknown price" if self.unpriced else ""
            summary = f"{format_usd(self.spent_usd)} spent {since}{of_cap}{unpriced_calls}"
        if self.reason:
            return f"{summary}: {EFFECTS_OF_CAP}"
        return summary if self.cap_usd is not None else f"{summary}; there is no monthly cap"

    @property
    def unpriced(self) -> int:
        return sum(row.unpriced for row in self.purposes)


def load_report(ctx: EvalsContext) -> SpendingReport:
    """Reports what Swapproof itself spent this month, by purpose, and the monthly cap."""
    month = load_spending(ctx)
    return SpendingReport(
        month=month.month,
        cap_usd=month.cap_usd,
        spent_usd=month.spent_usd,
        left_usd=month.left_usd,
        purposes=month.purposes,
        reason=month.find_obstacle(),
    )


@dataclass(frozen=True, slots=True)
class JudgingCost:
    """The calls of one run's judge, and their cost."""

    calls: int  # of the judge
    usd: float | None  # 0 without a judge, None if its price is unknown


def sum_judging_cost(answers: AnswerColumns, *, judged: bool) -> JudgingCost:
    """Sums the calls of a run's judge, and their cost.

    Args:
        judged: whether the suite has a judge.

    Answers from before Swapproof counted judge calls have no calls and an unknown cost.
    """
    if not judged:
        return JudgingCost(0, 0.0)
    calls = sum(answers.judge_calls)
    costs = list(compress(answers.judge_cost_usd, answers.judge_calls))
    known_usd = [usd for usd in costs if usd is not None]
    return JudgingCost(
        calls,
        math.fsum(known_usd) if costs and len(known_usd) == len(costs) else None,
    )


def sum_cost_so_far(tx: Transaction, runs: Iterable[str]) -> float | None:
    """Sums the cost of runs in US dollars; None if an answering target has no price."""
    providers = Providers(tx).all()
    targets = Targets(tx).all()
    usd = 0.0
    for run in runs:
        answers, cost, _, _ = EvalRuns(tx).progress(run)
        target = targets.get(EvalRuns(tx).get(run).target)
        if answers and (target is None or find_price(providers, target.name) is None):
            return None
        usd += cost
    return usd
