"""One sentence says what a verdict decided, whatever the suites' roles."""

import pytest

from harness.domain.evals.suite_plan import SuitePlan
from harness.domain.evals.verdict import VerdictBasis
from harness.gate.text.claim_sentence import describe_claim
from tests.unit.test_gate_verdicts import (
    ALIKE,
    BETTER,
    GUARD,
    OPEN,
    WORSE,
    Sides,
    any_of,
    ask,
    leaning,
    named,
    plan,
    weighted,
)

pytestmark = pytest.mark.req("F2", "F5")

TITLES = {"math": "Arithmetic", "s0": "Tickets", "s1": "Replies"}
MEAN = "Better on the weighted mean of 2 suites (Tickets and Replies)"


@pytest.mark.parametrize(
    ("plans", "answers", "says"),
    [
        ([plan()], {"math": BETTER}, "Better on Arithmetic."),
        ([plan()], {"math": WORSE}, "Worse than the current model: Arithmetic."),
        ([plan()], {"math": OPEN}, "Still open: Arithmetic."),
        (
            [plan(), GUARD],
            {"math": BETTER, "safety": OPEN},
            "Better on Arithmetic; not shown worse on safety.",
        ),
        (
            weighted(1.0, 1.0),
            named(BETTER, leaning(50, 0)),
            f"{MEAN}; both suites point the same way.",
        ),
        (
            weighted(1.0, 1.0),
            named(BETTER, ALIKE),
            f"{MEAN}; 1 of 2 suites point the same way.",
        ),
        (
            weighted(3.0, 1.0),
            named(leaning(50, 0), WORSE),
            "Worse than the current model: Replies. 0 of 2 claims shown.",
        ),
        (
            any_of(2),
            named(leaning(60, 0), ALIKE),
            "Better on Tickets; one of 2 suites was enough.",
        ),
    ],
)
def test_a_claim_is_said_in_one_sentence(
    plans: list[SuitePlan], answers: dict[str, Sides], says: str
) -> None:
    verdict = ask(plans, answers)
    assert verdict is not None

    assert describe_claim(VerdictBasis.from_verdict(verdict), TITLES) == says
