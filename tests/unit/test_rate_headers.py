"""Published headers about rate limits, and what they say (F2)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.routing.reliability.rate_headers import RateKind, RateReading, read_rates

pytestmark = pytest.mark.req("F2")

FILE = Path(__file__).parent.parent / "world/rates/headers.yaml"
PUBLISHED: list[Mapping[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("answer", PUBLISHED, ids=lambda answer: str(answer["name"]))
def test_published_headers_have_their_right_reading(answer: Mapping[str, Any]) -> None:
    assert "#" in answer["source"] or answer["source"].startswith("https://")
    rates = read_rates(answer["headers"], answer.get("at", NOW))

    found = {rate.kind.value: [rate.remaining, rate.limit, rate.reset_s] for rate in rates}
    assert found == {
        kind: [remaining, limit, reset_s if reset_s is None else pytest.approx(reset_s)]
        for kind, (remaining, limit, reset_s) in answer["right"].items()
    }


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        ("1772366459", 59.0),
        ("1772366459500", 59.5),
        ("26.28409242630005", 26.28409242630005),
        ("Sun, 01 Mar 2026 12:00:09 GMT", None),
        ("-1", None),
    ],
)
def test_a_time_of_renewal_has_several_forms(reset: str, expected: float | None) -> None:
    headers = {"x-ratelimit-remaining": "1", "x-ratelimit-reset": reset}
    assert read_rates(headers, NOW) == (RateReading(RateKind.REQUESTS, 1.0, None, expected),)


def test_of_several_limits_the_one_with_the_least_rest_counts() -> None:
    headers = {
        "anthropic-ratelimit-input-tokens-remaining": "9000",
        "anthropic-ratelimit-output-tokens-remaining": "70",
        "anthropic-ratelimit-tokens-remaining": "9070",
    }
    assert read_rates(headers, NOW) == (RateReading(RateKind.TOKENS, 70.0),)


@given(
    st.sampled_from(["x-ratelimit-{}-requests", "anthropic-ratelimit-tokens-{}"]),
    st.lists(st.text(max_size=80), min_size=3, max_size=3),
)
def test_any_header_is_read_without_an_error(form: str, texts: list[str]) -> None:
    names = (form.format(part) for part in ("remaining", "limit", "reset"))
    for rate in read_rates(dict(zip(names, texts, strict=True)), NOW):
        assert rate.remaining >= 0
        assert rate.reset_s is None or rate.reset_s >= 0
