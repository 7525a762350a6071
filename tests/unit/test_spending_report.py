"""What the month's money says of itself in words."""

from datetime import date

import pytest

from harness.control.operations.spending import SpendingReport
from harness.domain.operations.spending import PurposeSpending, SpendingPurpose

EVALS, JUDGES, AGENTS = SpendingPurpose.EVALS, SpendingPurpose.JUDGES, SpendingPurpose.AGENTS

pytestmark = pytest.mark.req("G5")


def report(
    spent_usd: float,
    unpriced: int,
    cap_usd: float | None = None,
    waiting: tuple[SpendingPurpose, ...] = (),
) -> SpendingReport:
    evals = PurposeSpending(SpendingPurpose.EVALS, spent_usd, 257, unpriced)
    return SpendingReport(
        month=date(2026, 11, 1),
        cap_usd=cap_usd,
        spent_usd=spent_usd,
        left_usd=None,
        purposes=(evals,),
        waiting=waiting,
        reason="",
        forecast_usd=None,
        canaries=(),
        canary_forecast_usd=None,
        savings=(),
    )


def test_a_forecast_says_the_one_reason_for_which_it_is_unknown() -> None:
    priceless, first_day = report(0.0, 257), report(1.5, 0)
    forecast = "forecast until 1 Dec 2026"
    assert dict(priceless.facts)[forecast] == "unknown: calls have no price"
    assert dict(first_day.facts)[forecast] == "unknown in the month's first day"


@pytest.mark.parametrize(
    ("given", "headline"),
    [
        (report(0.0, 0), "$0.00 spent since 1 Nov 2026 (UTC); there is no monthly cap"),
        (report(1.5, 0, 2.0), "$1.50 spent since 1 Nov 2026 (UTC) of $2.00"),
        (
            report(1.5, 0, 2.0, (EVALS, JUDGES)),
            "$1.50 spent since 1 Nov 2026 (UTC) of $2.00: evals, judges wait",
        ),
        (
            report(1.5, 0, 2.0, (AGENTS,)),
            "$1.50 spent since 1 Nov 2026 (UTC) of $2.00: turns of agents are refused",
        ),
        (
            report(1.5, 0, 2.0, (EVALS, AGENTS)),
            (
                "$1.50 spent since 1 Nov 2026 (UTC) of $2.00: evals wait, "
                "turns of agents are refused"
            ),
        ),
        (
            report(1.5, 3),
            (
                "$1.50 spent since 1 Nov 2026 (UTC), beside 3 calls of unknown price; "
                "there is no monthly cap"
            ),
        ),
        (
            report(0.0, 257),
            "257 calls since 1 Nov 2026 (UTC), none of a known price; there is no monthly cap",
        ),
        (
            report(0.0, 257, 2.0, (EVALS,)),
            (
                "257 calls since 1 Nov 2026 (UTC), below a cap of $2.00, none of a known "
                "price: evals wait"
            ),
        ),
    ],
)
def test_an_unknown_cost_is_never_said_to_be_nothing(
    given: SpendingReport, headline: str
) -> None:
    assert given.headline == headline
