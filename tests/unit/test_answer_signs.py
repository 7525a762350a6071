"""Published answers of gateways, and what they say about the model that answered (F3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.providers.answer_signs import (
    AnswerOrigin,
    is_model_chosen,
    read_origin,
    reports_no_tokens,
)

pytestmark = pytest.mark.req("F3")

SERVED = Path(__file__).parent.parent / "world/served"


def published(name: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = yaml.safe_load((SERVED / name).read_text(encoding="utf-8"))
    return found


PUBLISHED = published("answers.yaml")


@pytest.mark.parametrize(
    "request_",
    published("requests.yaml"),
    ids=lambda request: str(request["name"]),
)
def test_a_published_request_has_its_right_reading(request_: Mapping[str, Any]) -> None:
    assert request_["source"].startswith("https://")
    assert is_model_chosen(request_["body"]) is request_["right"]


@pytest.mark.parametrize("answer", PUBLISHED, ids=lambda answer: str(answer["name"]))
def test_a_published_answer_has_its_right_reading(answer: Mapping[str, Any]) -> None:
    assert "#" in answer["source"] or answer["source"].startswith("https://")
    headers = [
        (name.encode(), value.encode()) for name, value in answer.get("headers", {}).items()
    ]
    body = answer.get("body", {})
    right = answer["right"]

    assert read_origin(headers) == AnswerOrigin(right["model"], right["fallback"])
    assert reports_no_tokens(body.get("usage")) is right.get("no_tokens", False)


@pytest.mark.parametrize("value", [b"", b"None", b"0", b" 0 ", b"-1", b"true", b"1.5"])
def test_a_mark_that_counts_no_fallback_is_none(value: bytes) -> None:
    assert not read_origin([(b"x-litellm-attempted-fallbacks", value)]).is_fallback


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"total_tokens": 0},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": 0},
        {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 12,
        },
        {
            "input_tokens": 0,
            "output_tokens": 0,
            "cache_read_input_tokens": 5,
        },
    ],
)
def test_a_usage_that_lacks_a_count_reports_nothing(usage: object) -> None:
    assert not reports_no_tokens(usage)
