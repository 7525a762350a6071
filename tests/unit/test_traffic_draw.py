"""The draw of a suite of traffic: which records, and what a log cannot show (F2, F9)."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.traffic.draw import Draw, DrawRule, describe_draw, draw_dates, draw_records, is_named
from evals.traffic.items import (
    has_left_out_part,
    is_dated,
    logged_answer,
)
from harness.frame.errors import InputError
from harness.providers.models.makers import find_shared_maker, maker_of_model
from harness.routing.capture import CapturedRequest
from harness.routing.request_settings import read_settings

pytestmark = pytest.mark.req("F2", "F9")

NOW = datetime(2026, 11, 30, 10, 30, tzinfo=UTC)
FIRST, LAST = draw_dates(NOW, 5)
RULE = DrawRule(FIRST, LAST, "seed")
NAMES = frozenset({"gpt-4o"})


def record(number: int, **changed: Any) -> CapturedRequest:
    at = datetime(2026, 11, 25 + number % 5, 12, tzinfo=UTC)
    content = {
        "messages": [
            {"role": "user", "content": f"Where is order {number}, and item {number}x?"}
        ],
        "answer": {"role": "assistant", "content": f"Order {number} is here."},
    }
    plain = CapturedRequest(
        id=f"drw_{number:04}",
        at=at,
        expires_at=at,
        route="support",
        request=f"r{number}",
        endpoint="chat",
        stream=False,
        arm="",
        target="gpt-4o-2024-08-06",
        revision=0,
        data_class="",
        user_hash="",
        share_bps=0,
        rules="",
        redactions={},
        content=content,
        caller=f"caller-{number}",
    )
    return replace(plain, **changed)


def drawn(records: list[CapturedRequest], rule: DrawRule = RULE, **known: Any) -> Draw:
    return draw_records(records, rule, model_names=NAMES, **known)


def test_whole_days_end_yesterday_and_begin_at_most_14_days_ago() -> None:
    assert (FIRST.isoformat(), LAST.isoformat()) == ("2026-11-25", "2026-11-29")
    with pytest.raises(InputError, match="1 to 14 whole days, not 15"):
        draw_dates(NOW, 15)


def test_a_record_of_today_or_of_an_older_day_is_left_out() -> None:
    today = record(100, at=NOW)
    old = record(101, at=NOW - timedelta(days=20))

    draw = drawn([*map(record, range(40)), today, old])

    assert len(draw.records) == 40
    assert draw.left_out == {"outside the dates of the draw": 2}
    assert sum(draw.per_day.values()) == 40


def test_only_records_of_todays_served_model_count() -> None:
    earlier = [record(n, target="gpt-4o-2024-05-13") for n in range(10)]
    later = [record(n) for n in range(10, 30)]

    draw = drawn([*earlier, *later], served_today="gpt-4o-2024-08-06")

    assert draw.served == "gpt-4o-2024-08-06"
    assert {entry.record.id for entry in draw.records} == {entry.id for entry in later}


def test_a_log_without_todays_model_is_refused() -> None:
    with pytest.raises(InputError, match="no record of the incumbent's model"):
        drawn([*map(record, range(30))], served_today="gpt-4o-2025-01-01")


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        ("gpt-4o", True),
        ("openai/gpt-4o", True),
        ("gpt-4o-2024-08-06", True),
        ("gpt-4o-20240806", True),
        ("gpt-4o-mini", False),
        ("gpt-4o-mini-2024-07-18", False),
        ("gpt-4", False),
    ],
)
def test_a_dated_name_is_the_model_and_another_size_is_not(model: str, fits: bool) -> None:  # noqa: FBT001 - a table
    assert is_named(model, NAMES) is fits


@given(st.lists(st.sampled_from(["good", "bad", None]), min_size=30, max_size=30))
def test_no_answer_changes_the_draw(answers: list[str | None]) -> None:
    plain = [*map(record, range(30))]
    other = [
        replace(
            one,
            outcome="ok" if answer else "failed",
            content={
                **one.content,
                "answer": {"role": "assistant", "content": answer} if answer else None,
            },
        )
        for one, answer in zip(plain, answers, strict=True)
    ]
    if not any(answers):
        return
    rule = replace(RULE, max_items=12)

    assert [entry.record.id for entry in drawn(other, rule).records] == [
        entry.record.id for entry in drawn(plain, rule).records
    ]


def test_a_refused_a_cut_and_a_failed_answer_stay() -> None:
    refused = record(0, content={**record(0).content, "answer": {"content": "I cannot."}})
    failed = record(1, outcome="failed", content={"messages": record(1).content["messages"]})

    draw = drawn([refused, failed, *map(record, range(2, 30))])

    assert {"drw_0000", "drw_0001"} <= {entry.record.id for entry in draw.records}
    assert draw.failed == 1


def test_a_caller_counts_once_and_a_heavy_caller_by_conversation() -> None:
    heavy = [record(n, caller="batch", conversation=f"talk-{n % 4}") for n in range(100, 140)]
    twice = [record(n, caller="caller-0") for n in range(200, 203)]

    draw = drawn([*map(record, range(60)), *heavy, *twice])

    units = Counter(entry.unit for entry in draw.records)
    assert units["caller-0"] == 2
    assert {unit for unit in units if unit.startswith("talk")} == {
        f"talk-{n}" for n in range(4)
    }
    assert "batch" not in units
    assert draw.split_callers == 1
    assert (
        "each conversation of 1 caller with more than 5 % of the requests counts as a caller"
        in describe_draw(draw)
    )
    weights = {entry.unit: entry.requests for entry in draw.records}
    assert (weights["caller-0"], weights["talk-0"]) == (4, 10)


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([record(n, caller="one") for n in range(30)], "all records are one caller's"),
        (
            [
                record(n, content={"messages": record(1).content["messages"]} | {"answer": {}})
                for n in range(30)
            ],
            "all requests are alike",
        ),
        (
            [record(n, content={"messages": record(n).content["messages"]}) for n in range(30)],
            "no record has an answer",
        ),
        ([record(n, target="gpt-4o-mini") for n in range(30)], "no record of the incumbent's"),
    ],
)
def test_a_log_that_cannot_show_anything_is_refused_by_a_sentence(
    records: list[CapturedRequest], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        drawn(records)


def test_a_logged_answer_has_the_form_of_a_runs_answer() -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "find", "arguments": '{"a": 1}'},
    }

    assert logged_answer({"content": "Hello."}) == "Hello."
    assert logged_answer({"content": None, "refusal": "No."}) == "No."
    assert logged_answer({"content": None, "tool_calls": [call]}) == (
        '{"content": "", "tool_calls": [{"name": "find", "arguments": {"a": 1}}]}'
    )


def test_a_copy_has_the_requests_own_settings_and_no_others() -> None:
    assert read_settings({"max_output_tokens": 40, "top_p": 0.5, "user": "u"}) == {
        "temperature": None,
        "max_tokens": 40,
        "top_p": 0.5,
    }


@pytest.mark.parametrize(
    ("model", "maker"),
    [
        ("gpt-4o", "openai"),
        ("openrouter/anthropic/claude-sonnet-4.5", "anthropic"),
        ("eu.anthropic.claude-sonnet-4-5-v1:0", "anthropic"),
        ("meta-llama/Llama-3.3-70B-Instruct", "meta"),
        ("qwen3:8b", "alibaba"),
        ("our-deployment", ""),
        ("ft:gpt-4o-mini-2024-07-18:novabank::abc", "openai"),
        ("azure/ft:gpt-4o:claude-judge::x", "openai"),
    ],
)
def test_a_models_name_shows_its_maker_or_nothing(model: str, maker: str) -> None:
    assert maker_of_model(model) == maker


def test_a_judge_of_a_compared_family_or_of_an_unknown_one_is_named() -> None:
    assert find_shared_maker("claude-opus-4", ["gpt-4o", "gemini-2.5-pro"]) == ""
    assert "both of openai" in find_shared_maker("gpt-5", ["claude-opus-4", "gpt-4o-mini"])
    assert "does not show" in find_shared_maker("gpt-5", ["our-deployment"])


def test_a_record_that_lost_a_picture_is_known_by_its_placeholder() -> None:
    plain = record(1)
    parts = [{"type": "text", "text": "What is this?\n[image_url left out]"}]
    pictured = record(2, content={"messages": [{"role": "user", "content": parts}]})

    assert not has_left_out_part(plain)
    assert has_left_out_part(pictured)


@pytest.mark.parametrize(
    ("text", "dated"),
    [
        ("Today is a good day for it.", True),
        ("Since 2026-11-03 it is late.", True),
        ("My order of Nov 3, 2026 is late.", True),
        ("Where is order 2026, item 11?", False),
    ],
)
def test_a_prompt_with_a_date_is_counted_apart(text: str, dated: bool) -> None:  # noqa: FBT001 - a table
    assert (
        is_dated(record(1, content={"messages": [{"role": "user", "content": text}]})) is dated
    )


def test_the_result_of_a_tool_may_have_expired() -> None:
    result = {"role": "tool", "tool_call_id": "c1", "content": "in stock"}

    assert is_dated(record(1, content={"messages": [result]}))
