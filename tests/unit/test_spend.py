import math
from datetime import date

import pytest

from harness.evals.month_spending import PurposeSpending, SpendingPurpose
from harness.evals.spending import SpendingReport
from harness.frame.errors import InputError
from harness.frame.people.limits import (
    SpendBudget,
    SpendLevel,
    SpendTotals,
    check_budget,
    totals_on,
)

DAY = date(2026, 3, 31)
FINE, WARNING, STOPPED = SpendLevel


@pytest.mark.parametrize(
    ("day_usd", "level"),
    [
        (0.0, FINE),
        (7.99, FINE),
        (8.0, WARNING),
        (9.99, WARNING),
        (10.0, STOPPED),
        (99.0, STOPPED),
    ],
)
def test_a_budget_warns_at_its_share_and_stops_at_its_whole(
    day_usd: float, level: SpendLevel
) -> None:
    decision = check_budget(SpendBudget(day_usd=10), SpendTotals(DAY, day_usd), DAY)

    assert decision.level is level
    assert decision.allowed is (level is not STOPPED)
    assert decision.until == (None if level is FINE else date(2026, 4, 1))


def test_the_decision_says_what_was_spent_and_when_it_starts_anew() -> None:
    decision = check_budget(
        SpendBudget(month_usd=50), SpendTotals(date(2026, 12, 5), 1, 50), DAY
    )

    assert decision.reason == (
        "this key spent 50.00 of its 50.00 US dollars per month; "
        "the next budget starts on 2027-01-01 (UTC)"
    )


def test_of_day_and_month_the_worse_decides_and_then_the_longer() -> None:
    budget = SpendBudget(day_usd=10, month_usd=100)

    def until(day_usd: float, month_usd: float) -> date | None:
        return check_budget(
            budget,
            SpendTotals(date(2026, 3, 5), day_usd, month_usd),
            DAY.replace(day=5),
        ).until

    assert until(10, 80) == date(2026, 3, 6)
    assert until(8, 100) == date(2026, 4, 1)
    assert until(10, 100) == date(2026, 4, 1)
    assert until(8, 80) == date(2026, 4, 1)


def test_a_budget_of_nothing_stops_everything_and_no_budget_nothing() -> None:
    assert check_budget(SpendBudget(day_usd=0), SpendTotals(DAY), DAY).level is STOPPED
    assert check_budget(SpendBudget(), SpendTotals(DAY, 1e9, 1e9), DAY).level is FINE


def test_a_new_day_and_a_new_month_start_anew() -> None:
    spent = SpendTotals(date(2026, 3, 30), 5.0, 20.0, 3)

    assert totals_on(spent, DAY) == SpendTotals(DAY, 0.0, 20.0, 3)
    assert totals_on(spent, date(2026, 4, 1)) == SpendTotals(date(2026, 4, 1))
    assert totals_on(spent, date(2027, 3, 31)) == SpendTotals(date(2027, 3, 31))
    assert totals_on(spent, date(2026, 3, 29)) == spent


def test_the_share_of_the_budget_is_told() -> None:
    budget = SpendBudget(day_usd=10, month_usd=100)

    assert check_budget(budget, SpendTotals(DAY, 8.3, 20), DAY).share == pytest.approx(0.83)
    assert check_budget(budget, SpendTotals(DAY, 1, 20), DAY).share == 0
    assert check_budget(SpendBudget(day_usd=0), SpendTotals(DAY), DAY).share == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"day_usd": -1.0},
        {"month_usd": math.nan},
        {"day_usd": math.inf},
        {"warn_share": 0.0},
        {"warn_share": 1.1},
    ],
)
def test_what_is_no_budget_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        SpendBudget(**wrong)


def report(
    spent_usd: float,
    unpriced: int,
    cap_usd: float | None = None,
    reason: str = "",
) -> SpendingReport:
    evals = PurposeSpending(SpendingPurpose.EVALS, spent_usd, 257, unpriced)
    return SpendingReport(
        month=date(2026, 11, 1),
        cap_usd=cap_usd,
        spent_usd=spent_usd,
        left_usd=None,
        purposes=(evals,),
        reason=reason,
    )


SINCE = "since 1 Nov 2026 (UTC)"
NO_CAP = "there is no monthly cap"


@pytest.mark.req("G5")
@pytest.mark.parametrize(
    ("given", "headline"),
    [
        (report(0.0, 0), f"$0.00 spent {SINCE}; {NO_CAP}"),
        (report(1.5, 0, 2.0), f"$1.50 spent {SINCE} of $2.00"),
        (
            report(2.1, 0, 2.0, "the cap is reached"),
            (
                f"$2.10 spent {SINCE} of $2.00: evals, judges, shadows and drift checks wait, "
                "and Swapproof refuses turns of agents"
            ),
        ),
        (
            report(1.5, 3),
            f"$1.50 spent {SINCE}, plus 3 calls of unknown price; {NO_CAP}",
        ),
        (
            report(0.0, 257),
            f"257 calls {SINCE}, all of unknown price; {NO_CAP}",
        ),
        (
            report(0.0, 257, 2.0),
            f"257 calls {SINCE}, below a cap of $2.00, all of unknown price",
        ),
    ],
)
def test_an_unknown_cost_is_never_said_to_be_nothing(
    given: SpendingReport, headline: str
) -> None:
    assert given.headline == headline
