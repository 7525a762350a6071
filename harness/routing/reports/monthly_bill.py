"""Computes a route's monthly bill, and forecasts it with a candidate.

`measure_bill` measures the route's recorded traffic; `forecast_cost` adds the candidate.

Models differ in their tokenizers and in the length of their answers. The evals therefore count
the tokens of candidate and incumbent on the same items. Items differ from clients' requests, so
the forecast uses only the ratio of these tokens. The length and number of requests come from
the route. A forecast has no effect on a swap: `harness.proposals.candidates.cost_ratio`
compares list prices with the canary's limit, and the gate tests a claimed saving. An unknown
price never counts as 0.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import fsum
from statistics import fmean
from typing import Final

from harness.frame.formatting import format_estimate, format_month_usd
from harness.frame.records.transaction import Transaction
from harness.gate.online.observation import TrafficTotal, observed_seconds
from harness.gate.run import AnswerColumns
from harness.gate.suite_plan import SuitePlan
from harness.providers.records import Targets
from harness.providers.registry import named_models, targets
from harness.providers.target import Price, Target
from harness.routing.context import RoutingContext
from harness.routing.control import routes
from harness.routing.records.observations import Observations
from harness.routing.records.runs import EvalRuns

MONTH: Final = timedelta(days=30)
# Less traffic gives a bad estimate: an hour times 720 has no nights and no weekends.
MIN_WINDOW: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Mean or summed tokens of requests; fractions are possible."""

    input: float
    output: float
    cached: float = 0.0  # input tokens that the provider read from its cache

    def cost_usd(self, price: Price) -> float:
        return price.cost_usd(self.input, self.output, self.cached)


@dataclass(frozen=True, slots=True)
class MeasuredTokens:
    """The tokens of both models on the same items, summed over the items."""

    items: int = 0
    incumbent: TokenCounts = TokenCounts(0.0, 0.0)
    candidate: TokenCounts = TokenCounts(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class RouteBill:
    """A route's recorded traffic of at most 30 days, with the incumbent's cost. Costs are US
    dollars.
    """

    since: datetime  # beginning of its recorded traffic, at most 30 days ago
    window_s: float
    requests: int  # requests of all arms in that window
    # The incumbent's mean tokens per answered request; None if it answered no request.
    tokens: TokenCounts | None
    usd_per_request: float | None  # the incumbent's recorded cost; None if unknown

    @property
    def requests_per_month(self) -> float:
        """The requests of 30 days at the window's rate; 0.0 without a request."""
        return self.requests * MONTH.total_seconds() / self.window_s if self.requests else 0.0

    @property
    def covers_month(self) -> bool:
        """Whether the traffic covers MIN_WINDOW, which is enough to estimate a month."""
        return bool(self.requests) and self.window_s >= MIN_WINDOW.total_seconds()

    @property
    def month_usd(self) -> float | None:
        """The cost of 30 days at the window's rate; None if unknown (see `unknown`)."""
        usd_per_request = self.usd_per_request
        if usd_per_request is None or not self.covers_month:
            return None
        return usd_per_request * self.requests_per_month

    @property
    def month_text(self) -> str:
        """Writes the monthly cost for people, or why it is unknown."""
        if self.month_usd is None:
            return f"unknown: {self.unknown}"
        usd = format_month_usd(self.month_usd)
        window = format_estimate(self.window_s)
        return f"about {usd} a month, estimated from {window} of traffic"

    @property
    def unknown(self) -> str:
        """The reason why `month_usd` is None; empty if it is known."""
        if not self.requests:
            return "no traffic of this route was recorded in the last 30 days"
        if not self.covers_month:
            window = format_estimate(self.window_s)
            return f"less than a day of traffic is recorded ({window})"
        if self.tokens is None:
            return "the incumbent has answered no request in the recorded traffic"
        return "" if self.usd_per_request is not None else "the incumbent's price is unknown"


@dataclass(frozen=True, slots=True)
class CostForecast:
    """A route's bill, now and with the candidate. Costs are US dollars for 30 days."""

    bill: RouteBill
    now_usd: float | None  # the incumbent's bill
    requests_per_month: float
    candidate_usd: float | None  # expected with the candidate
    candidate_tokens: TokenCounts | None  # of one request of the route
    items: int  # items that both models answered
    estimated: bool  # whether the incumbent's tokens replace those of the candidate
    unknown: str  # why candidate_usd is None; empty otherwise
    # The bill of the model that serves the route now, if it is another than the incumbent.
    serving: RouteBill | None = None

    @property
    def current(self) -> RouteBill:
        """The bill of the model that serves the route now."""
        return self.bill if self.serving is None else self.serving


def measure_bill(
    totals: Sequence[TrafficTotal],
    incumbent: str,
    price: Price | None,
    now: datetime,
) -> RouteBill:
    """Measures a route's present cost. Uses today's price for requests recorded without one.

    Args:
        totals: the route's traffic of the last 30 days.
        price: the incumbent's price today.
    """
    since = min((total.first for total in totals), default=now)
    incumbent_totals = [total for total in totals if total.target == incumbent]
    answered = sum(total.requests for total in incumbent_totals)
    tokens = _per_request(incumbent_totals, answered) if answered else None
    usd: float | None = None
    if tokens is not None and any(total.unpriced for total in incumbent_totals):
        usd = tokens.cost_usd(price) if price else None
    elif tokens is not None:
        usd = math.fsum(total.cost_usd for total in incumbent_totals) / answered
    return RouteBill(
        since,
        observed_seconds(totals, now),
        sum(total.requests for total in totals),
        tokens,
        usd,
    )


def _per_request(totals: Sequence[TrafficTotal], requests: int) -> TokenCounts:
    """Divides summed tokens by the number of requests."""
    return TokenCounts(
        sum(total.input_tokens for total in totals) / requests,
        sum(total.output_tokens for total in totals) / requests,
        sum(total.cached_tokens for total in totals) / requests,
    )


def forecast_cost(
    bill: RouteBill,
    measured: MeasuredTokens,
    price: Price | None,
    *,
    estimated: bool = False,
) -> CostForecast:
    """Forecasts a route's monthly cost with the candidate.

    Args:
        measured: tokens of the items that both models answered.
        price: the candidate's price.
        estimated: whether to use the incumbent's tokens if there are no such items.
    """
    estimated = estimated and not measured.items
    unknown = _describe_unknown(bill, measured, price, estimated=estimated)
    tokens = None if unknown else _estimate_candidate_tokens(bill, measured)
    usd: float | None = None
    if tokens is not None and price is not None and bill.covers_month:
        usd = bill.requests_per_month * tokens.cost_usd(price)
    return CostForecast(
        bill=bill,
        now_usd=bill.month_usd,
        requests_per_month=bill.requests_per_month,
        candidate_usd=usd,
        candidate_tokens=tokens,
        items=measured.items,
        estimated=estimated,
        unknown=unknown,
    )


def _describe_unknown(
    bill: RouteBill,
    measured: MeasuredTokens,
    price: Price | None,
    *,
    estimated: bool,
) -> str:
    """Returns the reason why a forecast is unknown; empty if Swapproof can compute it."""
    if bill.tokens is None or not bill.covers_month:
        return bill.unknown
    if price is None:
        return "the candidate's price is unknown"
    if not estimated and not measured.items:
        return "there are no items yet that both models have answered"
    token_counts = [bill.tokens]
    if measured.items:
        token_counts += [measured.incumbent, measured.candidate]
    if not all(tokens.input and tokens.output for tokens in token_counts):
        return "a provider reported no tokens"
    return ""


def _estimate_candidate_tokens(bill: RouteBill, measured: MeasuredTokens) -> TokenCounts | None:
    """Estimates the candidate's tokens of one request: the incumbent's, times the ratio on the
    same items.

    The share of cached tokens comes from the items: Swapproof cannot know how well another
    provider caches this route's prompts before it serves them.
    """
    if bill.tokens is None or not measured.items:
        return bill.tokens
    incumbent = measured.incumbent
    candidate = measured.candidate
    input_tokens = bill.tokens.input * candidate.input / incumbent.input
    output_tokens = bill.tokens.output * candidate.output / incumbent.output
    return TokenCounts(
        input_tokens, output_tokens, input_tokens * candidate.cached / candidate.input
    )


# Input, output and cached input tokens.
_Tokens = tuple[float, float, float]


def forecast_from_answers(
    tx: Transaction,
    route: str,
    arms: tuple[Target, Target],
    answers: Iterable[tuple[AnswerColumns, AnswerColumns]],
) -> CostForecast:
    """Forecasts a swap's bill from the answers of its comparison.

    Args:
        arms: incumbent, candidate.
        answers: of both arms, for each suite.

    If another model than the comparison's incumbent serves the route now, the forecast also has
    the bill of that model.
    Raises NotFound for an unknown route.
    """
    bill = _load_bill(tx, route, arms[0])
    price = targets.find_price(tx, arms[1])
    forecast = forecast_cost(bill, _sum_tokens(answers), price)
    if routes.require_route(tx, route).incumbent == arms[0].id:
        return forecast
    return replace(forecast, serving=bill_of_route(tx, route))


def forecast_from_history(
    ctx: RoutingContext,
    route: str,
    candidate: str,
    plans: Iterable[SuitePlan],
) -> CostForecast:
    """Forecasts a swap's bill from earlier runs or, if there are none, from the incumbent's
    tokens.

    Args:
        candidate: an id or a name.
        plans: the suites whose runs count.

    Raises NotFound, AmbiguousName, InputError.
    """
    with ctx.store.read() as tx:
        targets_by_id = Targets(tx).all()
        incumbent = targets_by_id[routes.require_route(tx, route).incumbent]
        candidate_target = named_models.find_model(ctx, tx, candidate)
        measured = _sum_tokens(
            answers
            for plan in plans
            for answers in _load_earlier_answers(tx, plan, incumbent, candidate_target)
        )
        bill = _load_bill(tx, route, incumbent)
        price = targets.find_list_price(ctx, tx, candidate_target)
        return forecast_cost(bill, measured, price, estimated=True)


def bill_of_route(tx: Transaction, route: str) -> RouteBill:
    """Measures the bill of the route's present incumbent. Raises NotFound."""
    incumbent = Targets(tx).all()[routes.require_route(tx, route).incumbent]
    return _load_bill(tx, route, incumbent)


def _load_bill(
    tx: Transaction,
    route: str,
    incumbent: Target,
) -> RouteBill:
    now = tx.now()
    totals = Observations(tx).totals(since=now - MONTH, route=route)
    return measure_bill(totals, incumbent.id, targets.find_price(tx, incumbent), now)


def _load_earlier_answers(
    tx: Transaction,
    plan: SuitePlan,
    incumbent: Target,
    candidate: Target | None,
) -> Sequence[tuple[AnswerColumns, AnswerColumns]]:
    """Returns the answers of both targets' newest runs on this version of the suite."""
    if candidate is None:
        return ()
    columns = []
    for arm in (incumbent, candidate):
        runs = EvalRuns(tx).of_suite(arm.id, plan.suite, plan.suite_digest)
        run_id = next(
            (run.id for run in runs if EvalRuns(tx).progress(run.id)[0]),
            None,
        )
        if run_id is None:
            return ()
        columns.append(AnswerColumns.from_samples(EvalRuns(tx).samples(run_id)))
    return [(columns[0], columns[1])]


def _sum_tokens(answers: Iterable[tuple[AnswerColumns, AnswerColumns]]) -> MeasuredTokens:
    """Sums the tokens of the items that both models answered, over all suites."""
    rows: list[tuple[_Tokens, _Tokens]] = []
    for incumbent, candidate in answers:
        incumbent_tokens = _tokens_by_item(incumbent)
        candidate_tokens = _tokens_by_item(candidate)
        rows += [
            (incumbent_tokens[item], candidate_tokens[item])
            for item in incumbent_tokens
            if item in candidate_tokens
        ]
    columns = [zip(*side, strict=True) for side in zip(*rows, strict=True)]
    return MeasuredTokens(len(rows), *(TokenCounts(*map(fsum, arm)) for arm in columns))


def _tokens_by_item(answers: AnswerColumns) -> Mapping[str, _Tokens]:
    """Returns the tokens of each answered item, the mean over epochs."""
    answered = answers.answered
    counts = list(
        zip(
            answered.input_tokens,
            answered.output_tokens,
            answered.cached_tokens,
            strict=True,
        )
    )
    tokens_by_item = dict(zip(answered.item, counts, strict=True))
    if len(tokens_by_item) == len(counts):
        return tokens_by_item
    repeated: dict[str, list[_Tokens]] = {}
    for item, tokens in zip(answered.item, counts, strict=True):
        repeated.setdefault(item, []).append(tokens)
    return {
        item: tuple(map(fmean, zip(*epochs, strict=True)))  # type: ignore[misc]  # of three
        for item, epochs in repeated.items()
    }


def describe_forecast(forecast: CostForecast) -> str:
    """Writes the bill now and with the candidate as sentences for people."""
    bill = forecast.current
    if not bill.covers_month:
        return f"This route's monthly cost is unknown: {bill.unknown}."
    now = f"This route's present cost is unknown: {bill.unknown}"
    if bill.month_usd is not None:
        now = f"This route costs about {format_month_usd(bill.month_usd)} a month now"
    if forecast.serving is None:
        if forecast.candidate_usd is None:
            return f"{now}; its cost with the candidate is unknown: {forecast.unknown}."
        return f"{now}; with the candidate about {format_month_usd(forecast.candidate_usd)}."
    # Another model than the comparison's incumbent serves the route now.
    if forecast.now_usd is None or forecast.candidate_usd is None:
        return f"{now}."
    former = format_month_usd(forecast.now_usd)
    candidate = format_month_usd(forecast.candidate_usd)
    return (
        f"{now}. On the same traffic the incumbent of this comparison would cost about "
        f"{former}, its candidate about {candidate}."
    )


def describe_basis(forecast: CostForecast) -> str:
    """Writes the data behind a forecast; empty if the traffic does not suffice."""
    bill = forecast.current
    if not bill.covers_month:
        return ""
    window = format_estimate(bill.window_s)
    recorded = f"{bill.requests:,} requests recorded in {window}, extrapolated to 30 days"
    if forecast.estimated:
        return f"{recorded}; the candidate has no answers yet, so the incumbent's tokens count."
    if not forecast.items:
        return f"{recorded}."
    return f"{recorded}, and the tokens of both models on the same {forecast.items:,} items."
