"""Numbers as people read them: one minus sign, one way to round, a unit each."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import page_frame
from dashboard.text import labels
from dashboard.text.labels import Tone
from dashboard.views import proposals
from harness.domain.evals.verdict import VERDICTS
from harness.domain.formatting import MINUS, format_signed
from harness.domain.proposals.proposal import ProposalPhase
from harness.domain.routing.route_changes import CHANGE_KINDS
from harness.gate.text.change_text import CHANGE_WORDS

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
finite = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("share", "text"),
    [(-0.022, "−2.2"), (0.026, "+2.6"), (0.0, "0.0"), (-0.0001, "0.0"), (None, "unknown")],
)
def test_points_carry_a_real_minus_sign_and_none_on_nothing(
    share: float | None, text: str
) -> None:
    assert labels.points(share) == text


@given(finite)
def test_a_signed_number_reads_back_as_what_python_rounds_to(value: float) -> None:
    text = format_signed(value)

    read = float(text.replace(MINUS, "-").replace(",", ""))
    assert math.isclose(read, round(value, 1), abs_tol=0.051)
    assert "-" not in text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.41, "$0.41"),
        (1234.5, "$1,234.50"),
        (0.0193, "$0.019"),
        (0.00001, "under $0.0001"),
        (0.0, "$0.00"),
        (None, "unknown"),
    ],
)
def test_an_unknown_price_is_unknown_and_never_nothing(amount: float | None, text: str) -> None:
    assert labels.usd(amount) == text


@pytest.mark.parametrize(
    ("past_s", "text"),
    [(3, "just now"), (45, "45 s ago"), (23 * 60, "23 min ago"), (2.6 * 3600, "2 h ago"),
     (3 * 86_400 + 9000, "3 d ago")],
)  # fmt: skip
def test_an_age_is_told_in_its_largest_unit(past_s: float, text: str) -> None:
    assert labels.age(NOON - timedelta(seconds=past_s), NOON) == text


def test_times_are_told_in_utc() -> None:
    assert labels.date_time(datetime(2026, 11, 2, 5, 41, tzinfo=UTC)) == "2 Nov 2026 05:41 UTC"
    assert labels.left(NOON + timedelta(days=6, hours=4), NOON) == "6 d 4 h left"
    assert labels.left(NOON, NOON) == "no time left"


def test_less_cost_is_better_and_says_what_it_was() -> None:
    change = labels.relative_change(0.41, 1.12, less="cheaper", more="dearer", was="was $1.12")

    assert (change.symbol, change.words, change.tone) == ("▼", "63 % cheaper,", Tone.BETTER)
    assert change.was == "was $1.12"


def test_an_unknown_figure_is_not_compared() -> None:
    change = labels.relative_change(None, 1.0, less="l", more="m", was="was $1.00")

    assert (change.tone, change.words) == (Tone.NEUTRAL, "cannot be compared,")


@given(st.floats(0.001, 100), st.floats(0.001, 100))
def test_slower_is_worse_and_faster_is_better(new: float, old: float) -> None:
    change = labels.latency_change(new, old)

    expected = {"▲": Tone.WORSE, "▼": Tone.BETTER, "=": Tone.NEUTRAL}[change.symbol]
    assert change.tone is expected
    if change.tone is not Tone.NEUTRAL:
        assert (new > old) == (change.tone is Tone.WORSE)


def test_every_state_has_its_words() -> None:
    assert set(labels.VERDICT_LABELS) == {*VERDICTS, "running"}
    assert set(labels.PHASE_LABELS) == set(ProposalPhase)
    assert set(CHANGE_WORDS) == set(CHANGE_KINDS.values())
    for outcome, kind in VERDICTS.items():
        assert labels.VERDICT_LABELS[outcome].words == kind.words


@pytest.mark.parametrize(
    ("advice", "words"),
    [
        (None, "its evaluation starts within seconds"),
        ("no control process answers", "it waits, as no control process answers"),
    ],
)
def test_a_proposal_that_was_just_made_is_told_whether_anybody_evaluates_it(
    advice: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_frame, "missing_control", lambda: advice)
    assert proposals._what_follows() == words
