"""Computes a route's monthly bill, and forecasts it with a candidate (A3): from recorded
traffic, prices, and both models' tokens on the same items, in a proposal's answers or in
earlier runs. `describe_…` and `format_…` put it in words. Decides nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from harness.control.context import Context
from harness.control.routing import routes, targets
from harness.domain.evals.cost_forecast import (
    MONTH,
    CostForecast,
    ItemTokens,
    RouteBill,
    TokenCounts,
    forecast_cost,
    measure_bill,
)
from harness.domain.evals.run import Sample, SampleError, SuitePlan
from harness.domain.formatting import format_estimate, format_usd
from harness.domain.routing.target import Price, Target
from harness.ports import Transaction


def forecast_from_answers(
    ctx: Context,
    tx: Transaction,
    route: str,
    arms: tuple[Target, Target],
    answers: Iterable[tuple[Sequence[Sample], Sequence[Sample]]],
) -> CostForecast:
    """Forecasts a swap's monthly bill from both models' answers. arms: incumbent and candidate.
    answers: of both, suite by suite.
    """
    pairs = [pair for ours, theirs in answers for pair in _pairs(ours, theirs)]
    return forecast_cost(_bill(ctx, tx, route, arms[0]), pairs, find_price(tx, arms[1]))


def forecast_from_history(
    ctx: Context, route: str, candidate: str, plans: Iterable[SuitePlan]
) -> CostForecast:
    """Forecasts a swap's monthly bill before it is proposed, from what earlier runs measured,
    or from the incumbent's own tokens.

    candidate: a target's id or name, registered or not. plans: as a proposal would have them.
    Raises NotFound for an unknown route.
    """
    with ctx.store.read() as tx:
        known = tx.routing.targets()
        ours = known[routes.require_route(tx, route).incumbent]
        theirs = targets.find_known_target(tx, candidate) or targets.plain_target(candidate)
        pairs = [pair for plan in plans for pair in _earlier(tx, plan, ours, theirs)]
        bill = _bill(ctx, tx, route, ours)
        return forecast_cost(bill, pairs, find_price(tx, theirs), estimated=True)


def bill_of_route(ctx: Context, tx: Transaction, route: str) -> RouteBill:
    """Estimates a route's monthly bill with the model that serves it now. Raises NotFound."""
    incumbent = tx.routing.targets()[routes.require_route(tx, route).incumbent]
    return _bill(ctx, tx, route, incumbent)


def _bill(ctx: Context, tx: Transaction, route: str, incumbent: Target) -> RouteBill:
    now = ctx.clock.now()
    totals = tx.observations.totals(since=now - MONTH, route=route)
    return measure_bill(totals, incumbent.id, find_price(tx, incumbent), now)


def find_price(tx: Transaction, target: Target | None) -> Price | None:
    """Finds a model's price; None where nobody said what it costs."""
    provider = tx.providers.all().get(target.provider) if target else None
    return provider.prices.get(target.model) if provider and target else None


def _earlier(
    tx: Transaction, plan: SuitePlan, ours: Target, theirs: Target | None
) -> Sequence[ItemTokens]:
    """Of the newest runs of both on this very suite; runs may differ in their order."""
    newest: dict[str, str] = {}
    arms = {target.id for target in (ours, theirs) if target is not None}
    for run in tx.runs.of_targets(arms):
        if run.suite_digest == plan.suite_digest and tx.runs.progress(run.id)[0]:
            newest.setdefault(run.target, run.id)
    if theirs is None or not {ours.id, theirs.id} <= newest.keys():
        return ()
    return _pairs(tx.runs.samples(newest[ours.id]), tx.runs.samples(newest[theirs.id]))


def _pairs(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Sequence[ItemTokens]:
    one, other = _tokens(ours), _tokens(theirs)
    return [ItemTokens(one[item], other[item]) for item in one if item in other]


def _tokens(samples: Sequence[Sample]) -> Mapping[str, TokenCounts]:
    """By item, of the answers that came."""
    items: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.error is not SampleError.INFRA:
            items.setdefault(sample.item, []).append(sample)
    return {
        item: TokenCounts(
            fmean(sample.input_tokens for sample in of),
            fmean(sample.output_tokens for sample in of),
            fmean(sample.cached_tokens for sample in of),
        )
        for item, of in items.items()
    }


def describe_forecast(forecast: CostForecast) -> str:
    """Says in one line what the route costs now, and what it would cost after the swap."""
    if not forecast.bill.requests:
        return f"What this route costs a month is unknown: {forecast.unknown}."
    now = "What this route costs now is unknown: its model has no price"
    if forecast.now_usd is not None:
        now = f"This route costs {format_usd(forecast.now_usd)} a month now"
    if forecast.candidate_usd is None:
        return f"{now}; what it costs with the candidate is unknown: {forecast.unknown}."
    then = format_usd(forecast.candidate_usd)
    if forecast.low_usd is not None and forecast.high_usd is not None:
        then += f" ({format_usd(forecast.low_usd)} to {format_usd(forecast.high_usd)})"
    return f"{now}; with the candidate about {then}."


def describe_basis(forecast: CostForecast) -> str:
    """Says what a cost forecast rests on; empty without traffic."""
    bill = forecast.bill
    if not bill.requests:
        return ""
    window = format_estimate(bill.window_s)
    recorded = f"{bill.requests:,} requests recorded in {window}, reckoned for 30 days"
    if forecast.estimated:
        return (
            f"{recorded}; the candidate has no answers yet: the incumbent's tokens are taken."
        )
    if not forecast.items:
        return f"{recorded}."
    return f"{recorded}, and the tokens of both models on the same {forecast.items:,} items."
