"""The cost forecast estimates what a route costs in a month, now and with another model (A3).

`measure_bill` takes the route's recorded traffic, `forecast_cost` adds the candidate, with a 95
% interval. Tokenizers differ, and so does how much a model writes: the candidate's tokens are
measured, beside the incumbent's, on the same items. Items are not what clients send, so only
the ratio of the two is taken from them; length and number of the requests are the route's own.
Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist, fmean
from typing import Final

from harness.domain.canary.observation import TrafficTotal, observed_seconds
from harness.domain.formatting import format_estimate
from harness.domain.routing.target import Price

MONTH: Final = timedelta(days=30)
# An hour of traffic, times 720, is no month: nights and weekends are not in it.
MIN_WINDOW: Final = timedelta(days=1)
# Below it an interval by the normal approximation says too much.
MIN_ITEMS: Final = 30
Z_95: Final = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one answer, or means of several."""

    input: float
    output: float
    cached: float = 0.0  # of the input, those read from a cache

    def cost_usd(self, price: Price) -> float:
        return price.cost_usd(self.input, self.output, self.cached)


@dataclass(frozen=True, slots=True)
class TokenColumns:
    """Tokens of one model's answers, item by item, means over the epochs of each."""

    input: Sequence[float] = ()
    output: Sequence[float] = ()
    cached: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class MeasuredTokens:
    """Holds the tokens of both models on the same items, in the same order."""

    incumbent: TokenColumns = TokenColumns()
    candidate: TokenColumns = TokenColumns()

    def __len__(self) -> int:
        return len(self.incumbent.input)


@dataclass(frozen=True, slots=True)
class RouteBill:
    """Holds a route's recorded requests, tokens and cost."""

    since: datetime  # the beginning of its recorded traffic, 30 days at most
    window_s: float
    requests: int  # in that window, of all arms
    # Of one request that the incumbent answered, None when it answered none.
    tokens: TokenCounts | None
    usd_per_request: float | None  # the incumbent's, as recorded; None where nobody knows

    @property
    def requests_per_month(self) -> float:
        return self.requests * MONTH.total_seconds() / self.window_s if self.requests else 0.0

    @property
    def reckons_month(self) -> bool:
        """Tells whether its traffic covers a day: a month is reckoned from no less."""
        return bool(self.requests) and self.window_s >= MIN_WINDOW.total_seconds()

    @property
    def month_usd(self) -> float | None:
        """The cost of 30 days at the window's rate; None where a price is unknown, or less than
        a day of traffic is recorded.
        """
        usd_per_request = self.usd_per_request
        if usd_per_request is None or not self.reckons_month:
            return None
        return usd_per_request * self.requests_per_month

    @property
    def unknown(self) -> str:
        """Says why `month_usd` is None; empty where it is known."""
        if not self.requests:
            return "no traffic of this route was recorded in the last 30 days"
        if not self.reckons_month:
            window = format_estimate(self.window_s)
            return f"less than a day of traffic is recorded ({window})"
        if self.tokens is None:
            return "the incumbent has answered nothing in the recorded traffic"
        return "" if self.usd_per_request is not None else "its model has no price"


@dataclass(frozen=True, slots=True)
class CostForecast:
    """Says what a route costs in 30 days, now and with the candidate."""

    bill: RouteBill
    now_usd: float | None  # the incumbent's bill
    requests_per_month: float
    candidate_usd: float | None  # expected with the candidate
    # low_usd, high_usd: 95 % interval of it, for the tokens that it takes; traffic as recorded.
    # None with fewer than MIN_ITEMS items.
    low_usd: float | None
    high_usd: float | None
    candidate_tokens: TokenCounts | None  # of one request of the route
    items: int  # measured with both
    estimated: bool  # it has no answers yet, the incumbent's tokens are taken
    unknown: str  # why candidate_usd is None; empty otherwise
    # The bill of the model that serves the route, where that is no longer the incumbent.
    serving: RouteBill | None = None

    @property
    def current(self) -> RouteBill:
        """Returns the bill of the model that serves the route now."""
        return self.bill if self.serving is None else self.serving


def measure_bill(
    totals: Sequence[TrafficTotal], incumbent: str, price: Price | None, now: datetime
) -> RouteBill:
    """Measures what a route costs today. totals: of one route, of the last 30 days. price: the
    incumbent's of today.

    Requests that were recorded while it had no price are reckoned at today's.
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
    bill: RouteBill,
    measured: MeasuredTokens,
    price: Price | None,
    *,
    estimated: bool = False,
) -> CostForecast:
    """Forecasts a route's monthly cost with the candidate. measured: items that both have
    answered. price: the candidate's.

    estimated: without any, take the candidate's tokens to be the incumbent's.
    """
    estimated = estimated and not measured
    unknown = _unknown(bill, measured, price, estimated=estimated)
    tokens = None if unknown else _candidates(bill, measured)
    usd = low = high = None
    if tokens is not None and price is not None and bill.reckons_month:
        usd = bill.requests_per_month * tokens.cost_usd(price)
        half = _half_width(bill, measured, price)
        if half is not None:
            low, high = max(0.0, usd - half), usd + half
    return CostForecast(
        bill=bill,
        now_usd=bill.month_usd,
        requests_per_month=bill.requests_per_month,
        candidate_usd=usd,
        low_usd=low,
        high_usd=high,
        candidate_tokens=tokens,
        items=len(measured),
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
    if not estimated and not measured:
        return "there are no items yet that both models have answered"
    counted = bill.tokens.input and bill.tokens.output
    if not counted or any(not sum(column) for column in _columns(measured)):
        return "a provider reported no tokens"
    return ""


def _columns(measured: MeasuredTokens) -> list[Sequence[float]]:
    """Input and output of either; none without items."""
    if not measured:
        return []
    sides = measured.incumbent, measured.candidate
    return [column for side in sides for column in (side.input, side.output)]


def _candidates(bill: RouteBill, measured: MeasuredTokens) -> TokenCounts | None:
    """The incumbent's tokens of one request, times how many the candidate takes for one.

    What comes from a cache is as on the items: how well another provider would cache this
    route's prompts is not known before it serves them.
    """
    if bill.tokens is None or not measured:
        return bill.tokens
    given, made, own_given, own_made = (math.fsum(column) for column in _columns(measured))
    sent = bill.tokens.input * own_given / given
    cached = math.fsum(measured.candidate.cached) / own_given
    return TokenCounts(sent, bill.tokens.output * own_made / made, sent * cached)


def _half_width(bill: RouteBill, measured: MeasuredTokens, price: Price) -> float | None:
    """Returns half the width of the month's cost interval: two ratios of means over the same
    items, linearised.

    Source: Cochran, Sampling Techniques (1977), 6.4: the variance of a ratio estimator.
    """
    n = len(measured)
    if n < MIN_ITEMS or bill.tokens is None:
        return None
    given, made, _, _ = _columns(measured)
    theirs = measured.candidate
    paid_in = [
        price.cost_usd(given_, 0, cached)
        for given_, cached in zip(theirs.input, theirs.cached, strict=True)
    ]
    paid_out = [price.cost_usd(0, made_) for made_ in theirs.output]
    influence = [
        bill.tokens.input * one + bill.tokens.output * other
        for one, other in zip(
            _residuals(paid_in, given), _residuals(paid_out, made), strict=True
        )
    ]
    variance = math.fsum(influence_value**2 for influence_value in influence) / (n - 1)
    return Z_95 * math.sqrt(variance / n) * bill.requests_per_month


def _residuals(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """How far each item moves the ratio of the means."""
    ratio, mean = math.fsum(above) / math.fsum(below), fmean(below)
    return [(a - ratio * b) / mean for a, b in zip(above, below, strict=True)]
