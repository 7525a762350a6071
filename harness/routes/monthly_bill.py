"""Computes a route's monthly bill, and forecasts it with a candidate (A3)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import fsum
from statistics import fmean

from harness.frame.formatting import format_estimate, format_month_usd
from harness.frame.records.transaction import Transaction
from harness.gate.run import AnswerColumns
from harness.gate.suite_plan import SuitePlan
from harness.providers.target import Target
from harness.registry import named_models, targets
from harness.routes import routes
from harness.routing.context import Context
from harness.routing.cost_forecast import (
    MONTH,
    CostForecast,
    MeasuredTokens,
    RouteBill,
    TokenCounts,
    forecast_cost,
    measure_bill,
)
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.records.runs import EvalRuns

# Input, output and cached input tokens.
_Tokens = tuple[float, float, float]


def forecast_from_answers(
    tx: Transaction,
    route: str,
    arms: tuple[Target, Target],
    answers: Iterable[tuple[AnswerColumns, AnswerColumns]],
) -> CostForecast:
    bill, price = _bill(tx, route, arms[0]), targets.find_price(tx, arms[1])
    forecast = forecast_cost(bill, _measure(answers), price)
    if routes.require_route(tx, route).incumbent == arms[0].id:
        return forecast
    return replace(forecast, serving=bill_of_route(tx, route))


def forecast_from_history(
    ctx: Context, route: str, candidate: str, plans: Iterable[SuitePlan]
) -> CostForecast:
    """Forecasts a swap's bill from earlier runs or, if there are none, from the incumbent's
    tokens.
    """
    with ctx.store.read() as tx:
        known = Routing(tx).targets()
        ours = known[routes.require_route(tx, route).incumbent]
        theirs = named_models.find_model(ctx, tx, candidate)
        measured = _measure(both for plan in plans for both in _earlier(tx, plan, ours, theirs))
        bill, price = _bill(tx, route, ours), targets.find_list_price(ctx, tx, theirs)
        return forecast_cost(bill, measured, price, estimated=True)


def bill_of_route(tx: Transaction, route: str) -> RouteBill:
    incumbent = Routing(tx).targets()[routes.require_route(tx, route).incumbent]
    return _bill(tx, route, incumbent)


def _bill(tx: Transaction, route: str, incumbent: Target) -> RouteBill:
    now = tx.now()
    totals = Observations(tx).totals(since=now - MONTH, route=route)
    return measure_bill(totals, incumbent.id, targets.find_price(tx, incumbent), now)


def _earlier(
    tx: Transaction, plan: SuitePlan, ours: Target, theirs: Target | None
) -> Sequence[tuple[AnswerColumns, AnswerColumns]]:
    """Returns the answers of both targets' newest runs on this version of the suite."""
    if theirs is None:
        return ()
    columns = []
    for arm in (ours, theirs):
        runs = EvalRuns(tx).of_suite(arm.id, plan.suite, plan.suite_digest)
        answered = next((run.id for run in runs if EvalRuns(tx).progress(run.id)[0]), None)
        if answered is None:
            return ()
        columns.append(AnswerColumns.from_samples(EvalRuns(tx).samples(answered)))
    return [(columns[0], columns[1])]


def _measure(answers: Iterable[tuple[AnswerColumns, AnswerColumns]]) -> MeasuredTokens:
    rows: list[tuple[_Tokens, _Tokens]] = []
    for incumbent, candidate in answers:
        ours, theirs = _tokens(incumbent), _tokens(candidate)
        rows += [(ours[item], theirs[item]) for item in ours if item in theirs]
    columns = [zip(*side, strict=True) for side in zip(*rows, strict=True)]
    return MeasuredTokens(len(rows), *(TokenCounts(*map(fsum, arm)) for arm in columns))


def _tokens(answers: AnswerColumns) -> Mapping[str, _Tokens]:
    came = answers.answered
    counts = list(zip(came.input_tokens, came.output_tokens, came.cached_tokens, strict=True))
    first = dict(zip(came.item, counts, strict=True))
    if len(first) == len(counts):
        return first
    repeated: dict[str, list[_Tokens]] = {}
    for item, tokens in zip(came.item, counts, strict=True):
        repeated.setdefault(item, []).append(tokens)
    return {
        item: tuple(map(fmean, zip(*several, strict=True)))  # type: ignore[misc]  # of three
        for item, several in repeated.items()
    }


def describe_forecast(forecast: CostForecast) -> str:
    bill = forecast.current
    if not bill.reckons_month:
        return f"This route's monthly cost is unknown: {bill.unknown}."
    now = f"This route's present cost is unknown: {bill.unknown}"
    if bill.month_usd is not None:
        now = f"This route costs about {format_month_usd(bill.month_usd)} a month now"
    if forecast.serving is None:
        if forecast.candidate_usd is None:
            return f"{now}; its cost with the candidate is unknown: {forecast.unknown}."
        return f"{now}; with the candidate about {format_month_usd(forecast.candidate_usd)}."
    # The incumbent of the comparison no longer serves the route.
    if forecast.now_usd is None or forecast.candidate_usd is None:
        return f"{now}."
    former = format_month_usd(forecast.now_usd)
    candidate = format_month_usd(forecast.candidate_usd)
    return (
        f"{now}. On the same traffic the incumbent of this comparison would cost about "
        f"{former}, its candidate about {candidate}."
    )


def describe_basis(forecast: CostForecast) -> str:
    bill = forecast.current
    if not bill.reckons_month:
        return ""
    window = format_estimate(bill.window_s)
    recorded = f"{bill.requests:,} requests recorded in {window}, extrapolated to 30 days"
    if forecast.estimated:
        return f"{recorded}; the candidate has no answers yet, so the incumbent's tokens count."
    if not forecast.items:
        return f"{recorded}."
    return f"{recorded}, and the tokens of both models on the same {forecast.items:,} items."
