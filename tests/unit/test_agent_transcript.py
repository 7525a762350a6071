from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agents.message import (
    Content,
    MessageRole,
    MessageState,
    MessageToolCall,
    MessageUsage,
    ServedBy,
    SessionMessage,
    build_context,
    estimate_tokens,
    find_open_calls,
    list_misfits,
    list_omissions,
)
from harness.providers.models.capabilities import Capabilities

pytestmark = pytest.mark.req("C5")

NOW = datetime(2026, 7, 1, tzinfo=UTC)
THOUGHT: Mapping[str, object] = {"thinking_blocks": [{"thinking": "…", "signature": "s"}]}
SIGNED = MessageToolCall("c1", "search", "{}", {"extra_content": {"google": 1}})
PICTURE = (
    {
        "type": "image_url",
        "image_url": {"url": "https://example.com/cat.png"},
    },
)


def message(
    position: int,
    role: str,
    content: Content = "",
    **fields: Any,
) -> SessionMessage:
    return SessionMessage(
        "se_1",
        position,
        f"ms_{position}",
        MessageRole(role),
        NOW,
        content,
        **fields,
    )


def answer(
    position: int,
    target: str = "claude/opus",
    **fields: object,
) -> SessionMessage:
    return message(
        position,
        "assistant",
        "yes",
        served=ServedBy(model_requested="chat", target=target),
        **fields,
    )


def test_what_a_model_refused_at_once_is_not_sent_again() -> None:
    def refused(
        position: int,
        turn: str,
        **extra: object,
    ) -> SessionMessage:
        state = MessageState.FAILED
        return answer(
            position,
            state=state,
            turn=turn,
            extra=extra,
        )

    told = [
        message(1, "user", "Hello", turn="t1"),
        answer(2, turn="t1", tool_calls=(SIGNED,)),
        message(
            3,
            "tool",
            "42",
            turn="t1",
            response_to="c1",
        ),
        refused(4, "t1", refused=True),
        message(5, "user", "a broken picture", turn="t2"),
        refused(6, "t2", refused=True),
        message(7, "user", "while all is down", turn="t3"),
        refused(8, "t3"),
        message(9, "user", "Go on", turn="t4"),
    ]

    shown = [part["content"] for part in build_context(told, ["claude/opus"])]
    assert shown == ["Hello", "yes", "42", "while all is down", "Go on"]


@pytest.mark.parametrize(
    ("name", "arguments", "sent"),
    [
        ("find order!", "{}", ("find_order_", "{}")),
        ("", "", ("unnamed", "")),
        ("f" * 70, "{}", ("f" * 64, "{}")),
        ("search", '{"q": "a', ("search", '{"no_json": "{\\"q\\": \\"a"}')),
        ("search", "[1]", ("search", '{"no_json": "[1]"}')),
    ],
)
def test_a_call_that_a_provider_would_refuse_is_sent_as_one_that_it_takes(
    name: str,
    arguments: str,
    sent: tuple[str, str],
) -> None:
    wrong = MessageToolCall("c1", name, arguments, {"extra_content": 1})
    told = [
        answer(1, tool_calls=(wrong,)),
        message(2, "tool", "no", response_to="c1"),
    ]

    call = build_context(told, ["claude/opus"])[0]["tool_calls"][0]
    assert (call["function"]["name"], call["function"]["arguments"]) == sent


def test_reasoning_goes_to_the_provider_that_wrote_it_alone() -> None:
    messages = [
        answer(1, "claude/opus", extra=THOUGHT),
        answer(2, "google/gemini", tool_calls=(SIGNED,)),
        message(3, "tool", "r", response_to="c1"),
    ]

    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "search", "arguments": "{}"},
    }
    said = {"role": "assistant", "content": "yes"}
    for targets, of_first, of_call in (
        (["claude/opus", "claude/sonnet"], THOUGHT, {}),
        (["google/gemini"], {}, SIGNED.extra),
        (
            ["claude/opus", "google/gemini"],
            {},
            {},
        ),
        (
            ["other/m"],
            {},
            {},
        ),
    ):
        first, second, _ = build_context(messages, targets)
        assert first == {**said, **of_first}
        assert second == {**said, "tool_calls": [{**of_call, **call}]}
    # The router keeps what it marked from all targets but one, and nothing else.
    marked = {"thinking_blocks": [{"thinking": "…", "signature": "sg.abcdefgh.s"}]}
    details = {"reasoning_details": [{"type": "reasoning.text", "text": '"sg.abcdefgh.s"'}]}
    (both,) = build_context([answer(1, extra=marked | details)], ["other/m"])
    assert both == {**said, **marked}
    assert list_omissions(messages, "openai") == (
        "the reasoning of claude in the messages 1 is left out: only claude can read it",
        "the reasoning of google in the messages 2 is left out: only google can read it",
    )
    assert not list_omissions(messages[:1], "claude")


def test_calls_of_the_client_are_open_until_each_has_its_result() -> None:
    calls = (
        MessageToolCall("c1", "open_door", "{}"),
        MessageToolCall("c2", "open_door", "{}"),
    )
    asked = [message(1, "user", "Open both"), answer(2, tool_calls=calls)]
    one = [*asked, message(3, "tool", "done", response_to="c2")]
    both = [*one, message(4, "tool", "done", response_to="c1")]

    assert find_open_calls(asked, ["open_door"]) == calls
    assert find_open_calls(one, ["open_door"]) == calls[:1]
    assert find_open_calls(both, ["open_door"]) == ()
    assert find_open_calls([*both, answer(5)], ["open_door"]) == ()


def test_what_a_target_cannot_hold_is_a_sentence_each() -> None:
    messages = [
        message(1, "user", PICTURE),
        answer(2, usage=MessageUsage(9000, 100)),
    ]
    small = Capabilities(vision=False, tools=False, context_window=8192)

    misfits = list_misfits(
        messages,
        small,
        tools=True,
        target="local/llama",
    )

    assert misfits == (
        "local/llama has no tools, and the agent's conversation needs them",
        "local/llama accepts no images, and there are images in the messages 1",
        (
            "local/llama lacks a context window of about 9100 tokens (it has 8192) that the "
            "conversation needs"
        ),
    )
    assert not list_misfits(
        messages,
        Capabilities(),
        tools=True,
        target="local/llama",
    )


def test_the_conversation_is_as_long_as_the_last_answer_was_counted_and_what_came_since() -> (
    None
):
    messages = [
        message(1, "user", "x" * 4000),
        answer(2, usage=MessageUsage(5000, 50)),
        message(3, "user", "y" * 400),
    ]

    assert estimate_tokens(messages) == 5150
    assert estimate_tokens(messages[:1]) == 1000


rows = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant", "tool"]),
        st.sampled_from(list(MessageState)),
        st.lists(st.sampled_from(["a", "b"]), unique=True, max_size=2),
    ),
    max_size=12,
)


@given(rows)
def test_whatever_was_stored_each_call_has_one_result_and_each_result_its_call(
    stored: list[tuple[str, MessageState, list[str]]],
) -> None:
    messages = [
        message(
            place,
            role,
            f"{place}",
            state=state,
            tool_calls=tuple(MessageToolCall(id_, "t", "{}") for id_ in ids)
            if role == "assistant"
            else (),
            response_to=ids[0] if role == "tool" and ids else "",
        )
        for place, (role, state, ids) in enumerate(stored, 1)
    ]

    context = build_context(messages, ["claude/opus"])

    expected: list[str] = []
    places = []
    for part in context:
        if part["role"] == "tool":
            assert part["tool_call_id"] == expected.pop(0)
            continue
        assert not expected
        expected = [call["id"] for call in part.get("tool_calls", ())]
        places.append(int(part["content"]))
    assert not expected
    assert places == sorted(places)
    assert all(messages[place - 1].state is MessageState.COMPLETE for place in places)
    shown = [m.position for m in messages if m.is_whole and m.role is not MessageRole.TOOL]
    assert places == shown
