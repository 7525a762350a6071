"""Keeps the monthly cap, and reports money on one page: spending against the cap, what canaries
cost beside their incumbents, and what promoted swaps saved.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from harness.control.context import Context
from harness.control.operations import alerts
from harness.domain.canary.observation import TargetCost, TrafficTotal
from harness.domain.evals.run import EvalRun
from harness.domain.formatting import format_date, format_month_usd, format_quantity, format_usd
from harness.domain.operations.access import SYSTEM
from harness.domain.operations.alerts import AlertKind
from harness.domain.operations.spending import (
    AT_THE_CAP,
    MonthSpending,
    PurposeSpending,
    SpendingPurpose,
    measure_extra_usd,
    month_of,
)
from harness.domain.routing.table import Arm
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
                tx.audit.append(SYSTEM, "spending.cap", "spending", details)
        did.append(f"the monthly cap is {_cap_text(ctx.monthly_cap_usd)} now")
    _watch(ctx)
    return did


def load_spending(ctx: Context) -> MonthSpending:
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
            return month.find_obstacle(unpriced_model=target.name)
    return month.find_obstacle()


def _watch(ctx: Context) -> None:
    notice: alerts.AlertNotice | None = None
    if reason := load_spending(ctx).find_obstacle():
        notice = alerts.AlertNotice(
            "spending",
            f"the monthly cap is reached: {AT_THE_CAP}",
            f"{reason[:1].upper()}{reason[1:]}. All other requests go on.",
        )
    alerts.update_alert(ctx, AlertKind.SPENDING_CAP, ALERT_KEY, notice)


def _cap_text(usd: float | None) -> str:
    return "none" if usd is None else format_usd(usd)


# Of the former incumbent, before its swap.
COMPARED: Final = timedelta(days=30)
PROMOTION: Final = "promotion"
NOTHING: Final = TargetCost(0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class RouteMoney:
    """What a route's canary cost beside its incumbent, or its swap saved, in this month."""

    route: str
    requests: int  # that the candidate answered
    usd: float | None  # None where a price is unknown, or one of the two answered nothing


@dataclass(frozen=True)
class SpendingReport:
    """The money of one month (UTC), as of a moment."""

    month: date  # its first day
    cap_usd: float | None  # None for no cap
    spent_usd: float
    left_usd: float | None  # None without a cap
    purposes: tuple[PurposeSpending, ...]
    reason: str  # why no call is made: the cap is reached; empty below it
    # canaries: extra cost, candidate's arm less incumbent's, on users' requests.
    canaries: tuple[RouteMoney, ...]
    savings: tuple[RouteMoney, ...]  # of the swaps that serve now

    @property
    def headline(self) -> str:
        """Answers whether the money lasts: the first line of page and command."""
        since = f"since {format_date(self.month)} (UTC)"
        calls = format_quantity(self.unpriced, "call")
        if self.unpriced and not self.spent_usd:
            cap = "" if self.cap_usd is None else f", below a cap of {format_usd(self.cap_usd)}"
            spent = f"{calls} {since}{cap}, none of a known price"
        else:
            share = "" if self.cap_usd is None else f" of {format_usd(self.cap_usd)}"
            more = f", beside {calls} of unknown price" if self.unpriced else ""
            spent = f"{format_usd(self.spent_usd)} spent {since}{share}{more}"
        if self.reason:
            return f"{spent}: {AT_THE_CAP}"
        return spent if self.cap_usd is not None else f"{spent}; there is no monthly cap"

    @property
    def unpriced(self) -> int:
        """Counts the calls without a known price: they are not in the sum."""
        return sum(row.unpriced for row in self.purposes)

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        since = f"since {format_date(self.month)}"
        return [
            (
                f"canaries beside their incumbents, {since}",
                _route_text(self.canaries, "no canary had requests"),
            ),
            (
                f"saved by promoted swaps, {since}",
                _route_text(self.savings, "no promoted swap serves"),
            ),
        ]


def load_report(ctx: Context) -> SpendingReport:
    """Loads the report of this month."""
    with ctx.store.read() as tx:
        routes = sorted(tx.routing.names())
        month = tx.spending.month(month_of(ctx.clock.now()))
        begun = datetime.combine(month.month, time(), UTC)
        totals = tx.observations.totals(since=begun)
        canaries = _measure_canaries(totals)
        savings = _measure_savings(tx, routes, begun, totals)
    return SpendingReport(
        month=month.month,
        cap_usd=month.cap_usd,
        spent_usd=month.spent_usd,
        left_usd=month.left_usd,
        purposes=month.purposes,
        reason=month.find_obstacle(),
        canaries=canaries,
        savings=savings,
    )


def _measure_canaries(totals: Sequence[TrafficTotal]) -> tuple[RouteMoney, ...]:
    """What users' requests on each canary cost more than they would have on the incumbent. Once
    a candidate is promoted, its own requests are the incumbent's, and are not compared.
    """
    of_route: dict[str, list[TrafficTotal]] = {}
    for total in totals:
        of_route.setdefault(total.route, []).append(total)
    found = []
    for route, here in sorted(of_route.items()):
        canary = [total for total in here if total.arm == Arm.CANARY.value]
        candidates = {total.target for total in canary}
        incumbent = [
            total
            for total in here
            if total.arm == Arm.INCUMBENT.value and total.target not in candidates
        ]
        if canary:
            found.append(_compare(route, _add_up(canary), _add_up(incumbent)))
    return tuple(found)


def _measure_savings(
    tx: Transaction, routes: Sequence[str], begun: datetime, totals: Sequence[TrafficTotal]
) -> tuple[RouteMoney, ...]:
    """What the swaps that serve now saved: the former incumbent's cost of a request in the 30
    days before less the new one's since, for each request that the new one answered in this
    month. totals: of the month, and all these routes.
    """
    swaps = {
        name: swap
        for name, swap in tx.routing.last_swaps(routes).items()
        if swap.kind == PROMOTION
    }
    # Of a swap in this month, what its model answered as a canary saved nothing.
    new = _costs_of_month(
        {name: s.incumbent for name, s in swaps.items() if s.at <= begun}, totals
    )
    later = {(name, s.incumbent): (s.at, None) for name, s in swaps.items() if s.at > begun}
    new |= {name: cost for (name, _), cost in tx.observations.costs_of_targets(later).items()}
    before = {
        (name, swaps[name].former): (swaps[name].at - COMPARED, swaps[name].at) for name in new
    }
    old = {name: cost for (name, _), cost in tx.observations.costs_of_targets(before).items()}
    found = []
    for name in sorted(swaps):
        measured = _compare(name, new.get(name, NOTHING), old.get(name, NOTHING))
        # From nought: the opposite of 0.0 is written "-0.00".
        saved_usd = None if measured.usd is None else 0.0 - measured.usd
        found.append(RouteMoney(name, measured.requests, saved_usd))
    return tuple(found)


def _costs_of_month(
    targets: Mapping[str, str], totals: Iterable[TrafficTotal]
) -> dict[str, TargetCost]:
    own: dict[str, list[TrafficTotal]] = {}
    for total in totals:
        if targets.get(total.route) == total.target:
            own.setdefault(total.route, []).append(total)
    return {name: _add_up(parts) for name, parts in own.items()}


def _add_up(totals: Sequence[TrafficTotal]) -> TargetCost:
    return TargetCost(
        sum(total.requests for total in totals),
        sum(total.cost_usd for total in totals),
        sum(total.unpriced for total in totals),
    )


def _compare(route: str, new: TargetCost, old: TargetCost) -> RouteMoney:
    if new.unpriced or old.unpriced or not old.requests:
        return RouteMoney(route, new.requests, None if new.requests else 0.0)
    usd = measure_extra_usd(new.cost_usd, new.requests, old.cost_usd, old.requests)
    return RouteMoney(route, new.requests, usd)


def _sum(rows: Sequence[RouteMoney]) -> float | None:
    """None where one of them is unknown."""
    known = [row.usd for row in rows if row.usd is not None]
    return sum(known) if len(known) == len(rows) else None


def _route_text(rows: Sequence[RouteMoney], nothing: str) -> str:
    if not rows:
        return nothing
    parts = [
        f"{row.route} {'unknown' if row.usd is None else _signed(row.usd)} "
        f"({row.requests:,} requests)"
        for row in rows
    ]
    return ", ".join(parts)


def _signed(usd: float) -> str:
    return f"\N{MINUS SIGN}{format_month_usd(-usd)}" if usd < 0 else format_month_usd(usd)
