"""Published statements about ends of models, and their right reading (F11)."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.end_dates import parse_end_headers, parse_listed_end
from harness.providers.models.model_ends import NO_DATES, EndDates

pytestmark = pytest.mark.req("F11")

FILE = Path(__file__).parent.parent / "world/ends/examples.yaml"
PUBLISHED: list[Mapping[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


@pytest.mark.parametrize("example", PUBLISHED, ids=lambda example: str(example["name"]))
def test_a_published_statement_has_its_right_reading(example: Mapping[str, Any]) -> None:
    assert "#" in example["source"] or example["source"].startswith("https://")
    right = example["right"]
    expected = EndDates(
        right.get("ends_on"), right.get("deprecated_on"), right.get("deprecated", False)
    )
    if "entry" in example:
        assert parse_listed_end(example["entry"]) == expected
    else:
        found = parse_end_headers(raw(example["headers"]))
        assert found == (expected, right.get("malformed", 0))


@pytest.mark.parametrize(
    "sunset",
    [
        "",
        "@1795000000",  # the form of the other header
        "1795000000",
        "soon",
        "2026-12-31",
        "Thu, 31 Dec 2026 23:59:59 CET",
        "Thu, 32 Dec 2026 23:59:59 GMT",
        "Thu, 31 Dec 2026 23:59:59 GMT, Fri, 01 Jan 2027 23:59:59 GMT",
        "Thu, 31 Dec 2026 23:59:59 GMT" + " " * 80 + "x",
    ],
)
def test_a_malformed_header_is_counted_and_never_a_date(sunset: str) -> None:
    assert parse_end_headers(raw({"Sunset": sunset})) == (NO_DATES, 1)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_a_sunset_has_the_three_forms_of_an_http_date(text: str) -> None:
    assert parse_end_headers(raw({"Sunset": text})).dates == EndDates(date(1994, 11, 6))


def test_a_header_that_is_sent_twice_counts_if_both_agree() -> None:
    first, second = (
        (b"sunset", b"Thu, 31 Dec 2026 23:59:59 GMT"),
        (b"sunset", b"Fri, 01 Jan 2027 00:00:00 GMT"),
    )
    assert parse_end_headers([first, first]).dates.ends_on == date(2026, 12, 31)
    assert parse_end_headers([first, second]) == (NO_DATES, 1)


@given(
    name=st.sampled_from([b"deprecation", b"sunset"]),
    value=st.one_of(
        st.binary(max_size=80),
        st.from_regex(r"\A@-?[0-9]{1,30}(;a=1)?\Z").map(lambda text: text.encode("latin-1")),
    ),
)
def test_any_bytes_are_dates_or_counted(name: bytes, value: bytes) -> None:
    dates, malformed = parse_end_headers([(name, value)])
    assert malformed == (1 if dates.is_empty else 0)


@given(st.integers(0, 7_226_582_400))
def test_a_well_formed_header_has_its_day(seconds: int) -> None:
    whole = datetime.fromtimestamp(seconds, UTC)
    headers = {
        "Sunset": format_datetime(whole, usegmt=True),
        "Deprecation": f"@{int(whole.timestamp())}",
    }
    dates = parse_end_headers(raw(headers)).dates
    assert dates == EndDates(whole.date(), whole.date(), is_deprecated=True)


@given(
    st.dictionaries(
        st.sampled_from(["expiration_date", "deprecation", "modelLifecycle", "is_deprecated"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda values: st.dictionaries(
                st.sampled_from(["inference", "endOfLifeTime", "status"]), values
            ),
            max_leaves=4,
        ),
    )
)
def test_no_entry_of_a_list_breaks_the_reading(entry: dict[str, object]) -> None:
    found = parse_listed_end(entry)
    assert found.ends_on is None or isinstance(found.ends_on, date)


@pytest.mark.parametrize("value", [0, 1, 1e30, float("nan"), True, "0", "next year", [], -5])
def test_a_value_that_is_no_day_of_a_list_is_unknown(value: object) -> None:
    assert parse_listed_end({"expiration_date": value}) == NO_DATES
