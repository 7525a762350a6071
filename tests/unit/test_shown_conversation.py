"""A labeller reads the history of a request: its last messages whole, and what is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.proposals.labels.shown_conversation import (
    MOST_CHARACTERS,
    write_answer,
    write_conversation,
)

pytestmark = pytest.mark.req("F2")

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}


def test_a_turn_is_shown_from_its_last_message_with_calls_and_results() -> None:
    shown = write_conversation(
        [
            {"role": "user", "content": "Where is order 7?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "on its way"},
        ]
    )

    assert shown == (
        "(the last message comes first)\n\nTOOL\non its way\n\n"
        'ASSISTANT\ncalls find({"a": 1})\n\nUSER\nWhere is order 7?'
    )


def test_one_message_is_shown_as_it_is() -> None:
    assert write_conversation([{"role": "user", "content": "Hello"}]) == "Hello"


@given(st.lists(st.integers(0, 2 * MOST_CHARACTERS), min_size=2, max_size=12))
def test_the_last_messages_have_the_place_and_the_others_are_counted(sizes: list[int]) -> None:
    texts = [f"{number}:" + "x" * size for number, size in enumerate(sizes)]
    shown = write_conversation([{"role": "user", "content": text} for text in texts])

    assert texts[-1][-100:] in shown
    assert len(shown) < 2 * MOST_CHARACTERS
    kept = shown.count("USER\n") or 1
    if kept < len(texts):
        assert f"({len(texts) - kept} earlier message" in shown


def test_an_answer_with_calls_is_shown_without_its_json() -> None:
    calls = '{"content": "", "tool_calls": [{"name": "find", "arguments": {"a": 1}}]}'

    assert write_answer(calls) == 'calls find({"a":1})'
    assert write_answer("Hello") == "Hello"
    assert write_answer('{"content": "data of the user"}') == '{"content": "data of the user"}'
    assert write_answer("{broken") == "{broken"
