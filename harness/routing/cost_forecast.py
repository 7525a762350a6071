"""Estimates a route's monthly cost, now and with a candidate (A3). Pure.

`measure_bill` measures the route's recorded traffic; `forecast_cost` adds the candidate.

Models differ in their tokenizers and in the length of their answers. So the evals count the
tokens of candidate and incumbent on the same items. Items differ from clients' requests, so the
forecast uses only the ratio of the two; length and number of requests come from the route.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from harness.frame.formatting import format_estimate, format_month_usd
from harness.gate.online.observation import TrafficTotal, observed_seconds
from harness.providers.target import Price

MONTH: Final = timedelta(days=30)
# An hour of traffic times 720 is a bad estimate of a month: it has no nights and weekends.
MIN_WINDOW: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    input: float
    output: float
    cached: float = 0.0  # input tokens that the provider read from its cache

    def cost_usd(self, price: Price) -> float:
        return price.cost_usd(self.input, self.output, self.cached)


@dataclass(frozen=True, slots=True)
class MeasuredTokens:
    items: int = 0
    incumbent: TokenCounts = TokenCounts(0.0, 0.0)
    candidate: TokenCounts = TokenCounts(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class RouteBill:
    since: datetime  # beginning of its recorded traffic, at most 30 days ago
    window_s: float
    requests: int  # requests of all arms in that window
    # Mean of the requests that the incumbent answered; None if it answered none.
    tokens: TokenCounts | None
    usd_per_request: float | None  # the incumbent's recorded cost; None if unknown

    @property
    def requests_per_month(self) -> float:
        return self.requests * MONTH.total_seconds() / self.window_s if self.requests else 0.0

    @property
    def reckons_month(self) -> bool:
        """Whether its traffic covers a day, the least from which a month is estimated."""
        return bool(self.requests) and self.window_s >= MIN_WINDOW.total_seconds()

    @property
    def month_usd(self) -> float | None:
        """The cost of 30 days at the window's rate; None if unknown, and `unknown` says why."""
        usd_per_request = self.usd_per_request
        if usd_per_request is None or not self.reckons_month:
            return None
        return usd_per_request * self.requests_per_month

    @property
    def month_text(self) -> str:
        if self.month_usd is None:
            return f"unknown: {self.unknown}"
        usd, window = format_month_usd(self.month_usd), format_estimate(self.window_s)
        return f"about {usd} a month, estimated from {window} of traffic"

    @property
    def unknown(self) -> str:
        """The reason why `month_usd` is None; empty if it is known."""
        if not self.requests:
            return "no traffic of this route was recorded in the last 30 days"
        if not self.reckons_month:
            window = format_estimate(self.window_s)
            return f"less than a day of traffic is recorded ({window})"
        if self.tokens is None:
            return "the incumbent has answered no request in the recorded traffic"
        return "" if self.usd_per_request is not None else "its model has no price"


@dataclass(frozen=True, slots=True)
class CostForecast:
    bill: RouteBill
    now_usd: float | None  # the incumbent's bill
    requests_per_month: float
    candidate_usd: float | None  # expected with the candidate
    candidate_tokens: TokenCounts | None  # of one request of the route
    items: int  # items that both models answered
    estimated: bool  # the candidate has no answers yet: the incumbent's tokens stand in
    unknown: str  # why candidate_usd is None; empty otherwise
    # Bill of the model that serves the route now, if it is not the incumbent any more.
    serving: RouteBill | None = None

    @property
    def current(self) -> RouteBill:
        return self.bill if self.serving is None else self.serving


def measure_bill(
    totals: Sequence[TrafficTotal], incumbent: str, price: Price | None, now: datetime
) -> RouteBill:
    """Measures a route's cost today. Requests recorded without a price cost today's price.

    totals: the route's traffic of the last 30 days.
    price: the incumbent's price today.
    """
    since = min((total.first for total in totals), default=now)
    own = [total for total in totals if total.target == incumbent]
    answered = sum(total.requests for total in own)
    tokens = _per_request(own, answered) if answered else None
    usd: float | None = None
    if tokens is not None and any(total.unpriced for total in own):
        usd = tokens.cost_usd(price) if price else None
    elif tokens is not None:
        usd = math.fsum(total.cost_usd for total in own) / answered
    return RouteBill(
        since,
        observed_seconds(totals, now),
        sum(total.requests for total in totals),
        tokens,
        usd,
    )


def _per_request(totals: Sequence[TrafficTotal], requests: int) -> TokenCounts:
    return TokenCounts(
        sum(total.input_tokens for total in totals) / requests,
        sum(total.output_tokens for total in totals) / requests,
        sum(total.cached_tokens for total in totals) / requests,
    )


def forecast_cost(
    bill: RouteBill, measured: MeasuredTokens, price: Price | None, *, estimated: bool = False
) -> CostForecast:
    """Forecasts a route's monthly cost with the candidate.

    measured: tokens of the items that both models answered.
    price: the candidate's price.
    estimated: without such items, assume that the candidate uses the incumbent's tokens.
    """
    estimated = estimated and not measured.items
    unknown = _unknown(bill, measured, price, estimated=estimated)
    tokens = None if unknown else _candidates(bill, measured)
    usd: float | None = None
    if tokens is not None and price is not None and bill.reckons_month:
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


def _unknown(
    bill: RouteBill, measured: MeasuredTokens, price: Price | None, *, estimated: bool
) -> str:
    if bill.tokens is None or not bill.reckons_month:
        return bill.unknown
    if price is None:
        return "the candidate has no price"
    if not estimated and not measured.items:
        return "there are no items yet that both models have answered"
    counted = [bill.tokens]
    if measured.items:
        counted += [measured.incumbent, measured.candidate]
    if not all(tokens.input and tokens.output for tokens in counted):
        return "a provider reported no tokens"
    return ""


def _candidates(bill: RouteBill, measured: MeasuredTokens) -> TokenCounts | None:
    """The incumbent's tokens of one request, times the candidate's tokens for each of them.

    The share of cached tokens comes from the items: Swapgate cannot know how well another
    provider caches this route's prompts before it serves them.
    """
    if bill.tokens is None or not measured.items:
        return bill.tokens
    ours, theirs = measured.incumbent, measured.candidate
    sent = bill.tokens.input * theirs.input / ours.input
    written = bill.tokens.output * theirs.output / ours.output
    return TokenCounts(sent, written, sent * theirs.cached / theirs.input)
