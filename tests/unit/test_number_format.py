import doctest
import re
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame import formatting
from harness.frame.formatting import (
    format_answer_price,
    format_number,
    format_price_pair,
)
from harness.interfaces.cli.frame import output


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (2.0, "2"),
        (0.0000111, "0.0000111"),
        (12_345.0, "12,300"),
        (1.5e9, "1,500,000,000"),
        (1e300, "more than 1,000,000,000,000,000"),
        (-0.5, "-0.5"),
    ],
)
def test_a_figure_has_three_digits_and_no_exponent(value: float, said: str) -> None:
    assert format_number(value) == said


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 6))
def test_no_figure_ever_has_an_exponent(value: float, digits: int) -> None:
    assert "e" not in format_number(value, digits).removeprefix("more than")


def test_a_small_price_is_told_by_the_thousand_and_so_is_the_one_beside_it() -> None:
    assert format_answer_price(1.11e-05, 2.21e-05) == "$0.0111 per 1,000 answers"
    assert format_answer_price(0.25, 0.00001) == "$0.25"
    assert format_answer_price(0.00001, 0.25) == "$0.00001"


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
def test_every_pair_of_prices_is_written_without_exponents(ours: float, theirs: float) -> None:
    assert not re.search(r"\de[+-]", format_price_pair(ours, theirs))


def test_the_examples_of_every_format_hold() -> None:
    file = Path(__file__).with_name("number_formats.txt")
    examples = file.read_text(encoding="utf-8")

    names = [name for name in vars(formatting) if name.startswith(("format_", "escape_"))]
    assert [name for name in names if f"{name}(" not in examples] == []
    assert doctest.testfile(str(file), module_relative=False, encoding="utf-8").failed == 0


HEADINGS = ("SUITE", "CLAIM", "ALLOWED LOSS")
ROWS = [
    ("tickets", "superior", "5 points"),
    ("arithmetic", "non-inferior", None),
]


def draw(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.table(HEADINGS, ROWS, empty="none")


def test_a_table_that_fits_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(80, monkeypatch)

    assert "\N{BOX DRAWINGS LIGHT HORIZONTAL}" in capsys.readouterr().out


def test_further_lines_of_a_fact_do_not_look_like_another_fact(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.facts([("why", "cheap\nverdict  FAILED \u202exis"), ("verdict", "PASSED")])

    assert capsys.readouterr().out.splitlines() == [
        "why      cheap",
        "         verdict  FAILED \N{REPLACEMENT CHARACTER}xis",
        "verdict  PASSED",
    ]


def test_on_a_narrow_terminal_no_word_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(30, monkeypatch)

    assert capsys.readouterr().out.splitlines() == [
        "SUITE         tickets",
        "CLAIM         superior",
        "ALLOWED LOSS  5 points",
        "",
        "SUITE         arithmetic",
        "CLAIM         non-inferior",
        "ALLOWED LOSS  –",
    ]


def test_a_moment_given_in_another_zone_is_written_in_utc() -> None:
    given = datetime(2026, 12, 20, 0, 30, tzinfo=timezone(timedelta(hours=1)))

    assert output.timestamp(given) == "2026-12-19 23:30:00"
    assert output.timestamp(given.astimezone(UTC)) == "2026-12-19 23:30:00"
