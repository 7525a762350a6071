"""Tables on a terminal: drawn where they fit, and rows of lines where words would be cut; times
are in UTC.
"""

import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from harness.cli.frame import output

HEADINGS = ("SUITE", "CLAIM", "ALLOWED LOSS")
ROWS = [("tickets", "superior", "5 points"), ("arithmetic", "non-inferior", None)]


def draw(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints the table as on a terminal of so many columns."""
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
