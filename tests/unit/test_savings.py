"""What early stopping saved."""

from hypothesis import given
from hypothesis import strategies as st

from harness.control.evals.run_costs import ArmCosts, compute_savings

costs = st.lists(st.floats(0, 10), max_size=30)


def test_what_was_not_asked_is_valued_at_each_sides_own_price() -> None:
    cheap, dear = (
        ArmCosts(500, [0.001] * 212),
        ArmCosts(500, [0.01] * 220),
    )
    savings = compute_savings([cheap, dear])

    assert savings is not None
    assert (
        savings.text
        == "432 of 1,000 planned answers were asked for; saved about $3.09 of $5.50"
    )


def test_nothing_was_saved_where_everything_was_asked() -> None:
    assert compute_savings([ArmCosts(2, [1.0, 1.0]), ArmCosts(2, [1.0, 2.0])]) is None


def test_an_unknown_price_is_said_and_not_taken_for_nothing() -> None:
    savings = compute_savings([ArmCosts(3, [1.0]), ArmCosts(3, [None, 1.0])])

    assert savings is not None
    assert (savings.saved_usd, savings.planned_usd) == (None, None)
    assert "a price is missing" in savings.text


@given(incumbent=costs, candidate=costs, planned=st.integers(1, 30))
def test_what_was_saved_and_what_was_paid_are_the_whole(
    incumbent: list[float], candidate: list[float], planned: int
) -> None:
    savings = compute_savings([ArmCosts(planned, arm) for arm in (incumbent, candidate)])
    if savings is None or savings.saved_usd is None or savings.planned_usd is None:
        return
    paid = sum(incumbent) + sum(candidate)
    assert 0 <= savings.saved_usd <= savings.planned_usd + 1e-9
    assert abs(savings.planned_usd - savings.saved_usd - paid) < 1e-6
