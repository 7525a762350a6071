"""What the month's money says of itself in words."""

from datetime import date

import pytest

from harness.control.operations.spending import SpendingReport
from harness.domain.operations.spending import PurposeSpending, SpendingPurpose

pytestmark = pytest.mark.req("G5")


def report(
    spent_usd: float, unpriced: int, cap_usd: float | None = None, reason: str = ""
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


@pytest.mark.parametrize(
    ("given", "headline"),
    [
        (report(0.0, 0), "$0.00 spent since 1 Nov 2026 (UTC); there is no monthly cap"),
        (report(1.5, 0, 2.0), "$1.50 spent since 1 Nov 2026 (UTC) of $2.00"),
        (
            report(2.1, 0, 2.0, "the cap is reached"),
            (
                "$2.10 spent since 1 Nov 2026 (UTC) of $2.00: evals, judges, shadows and drift "
                "checks wait, and turns of agents are refused"
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
            report(0.0, 257, 2.0),
            "257 calls since 1 Nov 2026 (UTC), below a cap of $2.00, none of a known price",
        ),
    ],
)
def test_an_unknown_cost_is_never_said_to_be_nothing(
    given: SpendingReport, headline: str
) -> None:
    assert given.headline == headline
