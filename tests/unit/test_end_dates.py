"""Published statements about ends of models, and their right reading (F11)."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.end_dates import parse_end_headers
from harness.providers.models.listed_ends import (
    LISTED_FIELDS,
    FieldMeaning,
    describe_unknown_fields,
    find_unknown_fields,
    parse_listed_end,
    tells_end,
    walk_fields,
)
from harness.providers.models.model_ends import NO_DATES, EndDates
from harness.providers.models.model_match import parse_listed_models
from harness.providers.target import Provider

pytestmark = pytest.mark.req("F11")

FILE = Path(__file__).parent.parent / "world/ends/examples.yaml"
PUBLISHED: list[Mapping[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
ENTRIES = [example for example in PUBLISHED if "entry" in example]
PAGE = Path(__file__).parent.parent.parent / "docs/how-to/model-ends.md"
GITHUB = "https://github.com/"
VERIFIED_FOR = timedelta(days=183)


def raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


@pytest.mark.parametrize("example", PUBLISHED, ids=lambda example: str(example["name"]))
def test_a_published_statement_has_its_right_reading(example: Mapping[str, Any]) -> None:
    assert "#" in example["source"] or example["source"].startswith("https://")
    right = example["right"]
    expected = EndDates(
        right.get("ends_on"),
        right.get("deprecated_on"),
        right.get("deprecated", False),
        right.get("replacement", ""),
    )
    if "entry" in example:
        entry = example["entry"]
        assert parse_listed_end(entry) == expected
        assert tells_end(entry) == right.get("tells_ends", False)
        assert find_unknown_fields([entry]) == {}
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


def name_fields(examples: Iterable[Mapping[str, Any]], *meanings: FieldMeaning) -> str:
    """The known fields of published entries with these meanings, for the page."""
    published = {name for one in examples for name, _ in walk_fields(one["entry"])}
    fields = [
        f"`{field}`"
        for meaning in meanings
        for field, of_field in LISTED_FIELDS.items()
        if of_field is meaning and field in published
    ]
    return ", ".join(fields) or "no"


def test_every_field_of_the_table_is_in_a_published_entry() -> None:
    published = {name for example in ENTRIES for name, _ in walk_fields(example["entry"])}
    assert LISTED_FIELDS.keys() <= published


def test_the_page_has_a_row_for_each_list_with_its_fields_and_the_day_of_its_form() -> None:
    examples: dict[str, list[Mapping[str, Any]]] = {}
    for example in ENTRIES:
        if "list" in example:
            examples.setdefault(example["list"], []).append(example)
    last_seen = {
        name: max((one["seen"] for one in found if one["seen"]), default=None)
        for name, found in examples.items()
    }
    newest = max(day for day in last_seen.values() if day)
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)

    assert [name for name, _, _ in rows] == list(examples)
    for name, link, cells in rows:
        seen = last_seen[name]
        is_verified = seen is not None and newest - seen <= VERIFIED_FOR
        day = seen.isoformat() if seen else "day unknown"
        assert cells.split(" | ") == [
            name_fields(examples[name], FieldMeaning.END),
            name_fields(examples[name], FieldMeaning.DEPRECATED, FieldMeaning.STATE),
            name_fields(examples[name], FieldMeaning.REPLACEMENT),
            day if is_verified else f"{day}: unverified",
        ]
        sources = {one["source"] for one in examples[name]}
        assert {link, link.removeprefix(GITHUB).replace("/issues/", "#")} & sources


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retirement_date", "2027-01-01"),
        ("sunset_at", 1_800_000_000),
        ("expires", None),
        ("lifecycle.shutdownTime", "2027-01-01"),
        ("retirement.on", "2027-01-01"),
        ("endpoints.deprecated", True),
        ("shutdown_date", "end of 2026"),  # a known field of another form
        ("deprecation_date", 1_800_000_000_000),  # not in seconds
    ],
)
def test_a_field_that_may_state_an_end_and_cannot_be_read_is_found_and_is_no_all_clear(
    field: str, value: object
) -> None:
    outer, _, inner = field.rpartition(".")
    further = {outer: {inner: value}} if outer else {field: value}
    entries = [
        {"id": "a", "shutdown_date": None},
        {"id": "b", "shutdown_date": None, **further},
    ]

    assert find_unknown_fields(entries) == {field: value}
    content = json.dumps({"data": entries}).encode()
    provider = Provider("up", "openai", "http://up.test/v1")
    models = parse_listed_models(content, provider, datetime(2026, 12, 1, tzinfo=UTC)).models
    assert [(model.model, model.tells_ends) for model in models] == [("a", True), ("b", False)]


def test_an_unknown_field_has_an_example_of_its_values_in_ascii() -> None:
    entries = [
        {"retire_on": None},
        {"retire_on": "2026-12-11\x1b[31m\u202e"},
        {"retire_on": "2026-12-12"},
        {f"date_{number}": [[number]] for number in range(9)},
        "no entry",
    ]
    text = describe_unknown_fields(find_unknown_fields(entries))
    assert text.startswith("date_0 (a list), date_1 (a list)")
    assert text.endswith(" and 5 more")
    found = {"retire_on": find_unknown_fields(entries)["retire_on"]}
    assert describe_unknown_fields(found) == ('retire_on ("2026-12-11\\u001b[31m\\u202e")')


@pytest.mark.parametrize("name", ["", "two words", "gpt-\u0435", "x" * 201, 7, None, {}])
def test_a_replacement_that_people_could_confuse_or_not_type_is_left_out(name: object) -> None:
    entry = {"is_deprecated": True, "deprecation_replacement_model": name}
    assert parse_listed_end(entry) == EndDates(is_deprecated=True)


def test_a_replacement_of_a_model_that_does_not_end_says_nothing() -> None:
    entry = {"lifecycleStatus": "Preview", "replacementConfig": {"targetModelName": "gpt-4.1"}}
    assert parse_listed_end(entry) == NO_DATES
    entry["lifecycleStatus"] = "Legacy"
    assert parse_listed_end(entry).replacement == "gpt-4.1"


@given(
    st.dictionaries(
        st.sampled_from(
            ["expiration_date", "deprecation", "modelLifecycle", "is_deprecated", "model"]
        ),
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
    text = describe_unknown_fields(find_unknown_fields([entry]))
    assert text.replace("…", "").isascii()


@pytest.mark.parametrize("value", [0, 1, 1e30, float("nan"), True, "0", "next year", [], -5])
def test_a_value_that_is_no_day_of_a_list_is_unknown(value: object) -> None:
    assert parse_listed_end({"expiration_date": value}) == NO_DATES


@pytest.mark.parametrize(
    "entry",
    [
        {"status": True},
        {"lifecycle": True},
        {"is_deprecated": False},
        {"shutdown_date": "0001-01-01T00:00:00Z"},
        {"shutdown_date": "1970-01-01"},
        {"expiration_date": "9999-12-31"},
    ],
)
def test_a_ready_state_and_an_absent_time_state_nothing(entry: Mapping[str, object]) -> None:
    assert parse_listed_end(entry) == NO_DATES
    assert parse_listed_end({"is_deprecated": True}).is_deprecated
