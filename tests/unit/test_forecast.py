from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.online.observation import TrafficTotal
from harness.providers.target import Price
from harness.routing.reports import monthly_bill
from harness.routing.reports.monthly_bill import (
    CostForecast,
    MeasuredTokens,
    TokenCounts,
    forecast_cost,
    measure_bill,
)

pytestmark = pytest.mark.req("A3")

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
OLD = "t_old"
NEW = "t_new"
DEAR = Price(2.0, 10.0)
CHEAP = Price(0.5, 4.0, 0.1)
# 3 days of it: 3,000 requests of 1,000 input and 200 output tokens each.
TRAFFIC = TrafficTotal(
    route="support",
    arm="incumbent",
    target=OLD,
    first=NOW - timedelta(days=3),
    last=NOW,
    requests=3000,
    failed=0,
    charged=0,
    streams=0,
    input_tokens=3_000_000,
    cached_tokens=0,
    output_tokens=600_000,
    cost_usd=12.0,
    unpriced=0,
)
# Of the incumbent and the candidate, on one item.
Pair = tuple[TokenCounts, TokenCounts]
# The candidate's tokenizer makes 1.2 of it, and it writes half as much.
ITEMS = [(TokenCounts(100, 40), TokenCounts(120, 20)) for _ in range(40)]


def forecast_bill(
    items: list[Pair] = ITEMS,
    *totals: TrafficTotal,
    price: Price | None = CHEAP,
) -> CostForecast:
    bill = measure_bill(totals or (TRAFFIC,), OLD, DEAR, NOW)
    sides = ([pair[side] for pair in items] for side in (0, 1))
    return forecast_cost(bill, MeasuredTokens(len(items), *map(total, sides)), price)


def total(tokens: list[TokenCounts]) -> TokenCounts:
    return TokenCounts(
        sum(counts.input for counts in tokens),
        sum(counts.output for counts in tokens),
        sum(counts.cached for counts in tokens),
    )


def test_cached_input_is_paid_at_its_own_price() -> None:
    half = [(TokenCounts(100, 40), TokenCounts(120, 20, 60)) for _ in range(40)]

    # 600 at $0.5, 600 at $0.1, 100 at $4.
    assert forecast_bill(half).candidate_usd == pytest.approx(30_000 * (300 + 60 + 400) / 1e6)
    # Without a price of its own it costs what other input does.
    assert forecast_bill(half, price=Price(0.5, 4.0)).candidate_usd == pytest.approx(30.0)


def test_what_other_arms_asked_for_is_asked_of_the_candidate_too() -> None:
    canary = replace(
        TRAFFIC,
        arm="canary",
        target=NEW,
        requests=1000,
        cost_usd=0.5,
    )
    both = forecast_bill(ITEMS, TRAFFIC, canary)

    assert both.requests_per_month == pytest.approx(40_000)
    # The incumbent's own $0.004 a request, for all of them.
    assert both.now_usd == pytest.approx(160.0)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (forecast_bill(price=None), "price is unknown"),
        (forecast_bill([]), "no items"),
        (forecast_bill(ITEMS, replace(TRAFFIC, requests=0)), "no traffic"),
        (
            forecast_bill(ITEMS, replace(TRAFFIC, first=NOW - timedelta(hours=23))),
            "recorded (23 h)",
        ),
        (
            forecast_bill(ITEMS, replace(TRAFFIC, target=NEW)),
            "answered no request",
        ),
        (
            forecast_bill(ITEMS, replace(TRAFFIC, input_tokens=0)),
            "no tokens",
        ),
        (
            forecast_bill([(TokenCounts(0, 0), TokenCounts(1, 1))]),
            "no tokens",
        ),
    ],
)
def test_what_is_not_known_is_said_and_never_zero(given: CostForecast, why: str) -> None:
    assert given.candidate_usd is None
    assert why in given.unknown
    assert f"unknown: {given.unknown}." in monthly_bill.describe_forecast(given)


def test_requests_from_before_there_was_a_price_are_reckoned_at_todays() -> None:
    unpriced = replace(TRAFFIC, cost_usd=0.0, unpriced=3000)

    # 1,000 at $2 and 200 at $10 per million: $0.004 a request.
    assert measure_bill([unpriced], OLD, DEAR, NOW).month_usd == pytest.approx(120.0)
    assert measure_bill([unpriced], OLD, None, NOW).month_usd is None


def test_without_answers_the_incumbents_tokens_may_stand_in() -> None:
    bill = measure_bill([TRAFFIC], OLD, DEAR, NOW)
    guess = forecast_cost(bill, MeasuredTokens(), CHEAP, estimated=True)

    assert guess.estimated
    # 1,000 at $0.5 and 200 at $4 per million.
    assert guess.candidate_usd == pytest.approx(30_000 * 0.0013)
    assert "no answers yet" in monthly_bill.describe_basis(guess)


def test_one_line_says_it() -> None:
    assert monthly_bill.describe_forecast(forecast_bill()) == (
        "This route costs about $120 a month now; with the candidate about $30."
    )
    assert monthly_bill.describe_basis(forecast_bill()) == (
        "3,000 requests recorded in 3 days, extrapolated to 30 days, and the tokens of both "
        "models on the same 40 items."
    )


def test_a_month_is_unknown_below_a_day_of_traffic_and_names_its_window_above() -> None:
    young = replace(TRAFFIC, first=NOW - timedelta(minutes=17))

    assert measure_bill([young], OLD, DEAR, NOW).month_text == (
        "unknown: less than a day of traffic is recorded (17 min)"
    )
    assert measure_bill([TRAFFIC], OLD, DEAR, NOW).month_text == (
        "about $120 a month, estimated from 3 days of traffic"
    )
    day = replace(TRAFFIC, first=NOW - timedelta(days=1))
    assert measure_bill([day], OLD, DEAR, NOW).month_usd == pytest.approx(360.0)


def test_after_the_promotion_the_route_costs_what_its_new_model_costs() -> None:
    after = replace(
        TRAFFIC,
        target=NEW,
        requests=1000,
        cost_usd=1.0,
    )
    totals = (TRAFFIC, after)
    forecast = forecast_bill(ITEMS, *totals)
    promoted = replace(forecast, serving=measure_bill(totals, NEW, CHEAP, NOW))

    assert monthly_bill.describe_forecast(promoted) == (
        "This route costs about $40 a month now. On the same traffic the incumbent of this "
        "comparison would cost about $160, its candidate about $40."
    )


@given(
    factor=st.floats(0.1, 10),
    lengths=st.lists(
        st.tuples(st.integers(1, 999), st.integers(1, 999)),
        min_size=30,
        max_size=50,
    ),
)
def test_a_candidate_that_takes_so_many_times_the_tokens_costs_so_many_times_as_much(
    factor: float, lengths: list[tuple[int, int]]
) -> None:
    items = [(TokenCounts(a, b), TokenCounts(a * factor, b * factor)) for a, b in lengths]

    usd = forecast_bill(items, price=DEAR).candidate_usd

    assert usd == pytest.approx(120.0 * factor)
