"""`auto` (C7): never below the floor, never dearer than need be, never without evidence."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.control.agents.auto import AutoCandidate, choose_target

pytestmark = pytest.mark.req("C7")

SUITE = "tickets"
floats = st.floats(allow_nan=True, allow_infinity=True) | st.none()
bounds = floats | st.floats(0, 1)
prices = floats | st.floats(0, 100)
floors = st.floats(0, 1)


@st.composite
def candidates(draw: st.DrawFn, name: str = "") -> AutoCandidate:
    called = name or draw(st.text("abc", min_size=1, max_size=3))
    return AutoCandidate(
        f"t_{called}",
        f"sim/{called}",
        draw(st.sampled_from((True, True, False))),
        draw(bounds),
        draw(prices),
        draw(st.sampled_from((True, True, True, False))),
    )


everybody = st.tuples(candidates("incumbent"), st.lists(candidates(), max_size=6))


def is_sound(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def reaches(candidate: AutoCandidate, floor: float) -> bool:
    return (
        candidate.has_evidence
        and candidate.can_answer
        and is_sound(candidate.low)
        and candidate.low is not None
        and candidate.low >= floor
    )


@given(everybody, floors, st.randoms())
def test_who_answers_reaches_the_floor_at_the_lowest_known_price_or_is_the_incumbent(
    everyone: tuple[AutoCandidate, list[AutoCandidate]], floor: float, random: object
) -> None:
    incumbent, others = everyone[0], list({one.name: one for one in everyone[1]}.values())
    choice = choose_target(incumbent, others, floor, SUITE)

    chosen = choice.chosen
    assert choice.is_incumbent == (chosen is incumbent)
    assert choice.reason
    known = [e for e in (incumbent, *others) if reaches(e, floor) and e.has_price]
    assert chosen is incumbent or chosen in known
    if chosen in known:
        assert chosen.usd == min(e.usd for e in known if e.usd is not None)
        assert is_sound(chosen.usd)
        assert chosen.usd >= 0
    elif known:  # it reaches the floor: no cheaper target is known
        assert reaches(incumbent, floor)
    # The order of the fallbacks changes nothing.
    random.shuffle(others)  # type: ignore[attr-defined]  # Random's
    assert choose_target(incumbent, others, floor, SUITE) == choice


BIG = AutoCandidate("t_big", "sim/big", has_evidence=True, low=0.95, usd=20.0)
SMALL = AutoCandidate("t_small", "sim/small", has_evidence=True, low=0.90, usd=1.0)


def test_the_reason_says_floor_suite_score_and_price() -> None:
    choice = choose_target(BIG, [SMALL], 0.85, SUITE)
    assert choice.reason == (
        "the cheapest of 2 known to reach 0.85 on tickets: 0.9 with 95 percent confidence, "
        "$1.00 for 1,000 answers"
    )
    alike = [replace(SMALL, name="sim/tiny"), SMALL]
    assert choose_target(BIG, alike, 0.85, SUITE).chosen is SMALL
    # What costs nothing is a price; of equal prices the incumbent's is taken.
    assert choose_target(BIG, [replace(SMALL, usd=0.0)], 0.85, SUITE).chosen.usd == 0.0
    as_dear = replace(SMALL, name="sim/a", usd=20.0)
    assert choose_target(BIG, [as_dear], 0.85, SUITE).chosen is BIG
    nothing = choose_target(replace(BIG, low=None), [], 0.85, SUITE)
    assert nothing.reason == "the incumbent: nothing is known to reach 0.85 on tickets"
