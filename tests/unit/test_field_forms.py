import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.abilities import find_abilities
from harness.providers.models.capabilities import UNKNOWN_CAPABILITIES, Capabilities
from router.conversation.chat_fields import find_message_gates, fit_chat
from router.conversation.field_forms import (
    ANSWER_SHARE,
    LEAST_BUDGET_TOKENS,
    fit_message,
    fit_thinking,
)
from router.frame.failure import Untranslatable
from router.upstream.endpoint_translation import translate_message

OLD = find_abilities("anthropic", "claude-sonnet-4-5")
OPUS_4_5 = find_abilities("anthropic", "claude-opus-4-5")
NEW = find_abilities("anthropic", "claude-opus-5")
BOTH = find_abilities("anthropic", "claude-opus-4-6")
LAST = find_abilities("anthropic", "claude-opus-5-5")
BUDGET = {"type": "enabled", "budget_tokens": 4096}
Json = dict[str, Any]


def fitted(can: Capabilities, **fields: Any) -> tuple[Json, tuple[str, ...]]:
    body = json.dumps({"model": "m", "max_tokens": 32_000, **fields}).encode()
    sent, changed = fit_message(body, can)
    found: Json = json.loads(sent)
    return found, changed


def test_a_budget_becomes_adaptive_with_its_effort_and_shows_its_thinking() -> None:
    sent, changed = fitted(NEW, thinking=BUDGET)

    assert sent["thinking"] == {"display": "summarized", "type": "adaptive"}
    assert sent["output_config"] == {"effort": "medium"}
    assert changed == ("thinking",)


def test_the_client_s_effort_format_and_display_stay() -> None:
    sent, _ = fitted(
        NEW,
        thinking={**BUDGET, "display": "omitted"},
        output_config={"effort": "max", "format": {"type": "json_schema"}},
    )

    assert sent["thinking"]["display"] == "omitted"
    assert sent["output_config"] == {"effort": "max", "format": {"type": "json_schema"}}


@pytest.mark.parametrize(
    ("effort", "budget"), [("low", 2048), ("medium", 8192), ("high", 16_384), (None, 16_384)]
)
def test_adaptive_becomes_the_effort_s_budget(effort: str | None, budget: int) -> None:
    config = {"output_config": {"effort": effort}} if effort else {}

    sent, changed = fitted(OLD, thinking={"type": "adaptive"}, **config)

    assert sent["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert "output_config" not in sent
    assert changed[0] == "thinking"


def test_opus_4_5_keeps_its_effort_beside_the_budget() -> None:
    sent, _ = fitted(
        OPUS_4_5, thinking={"type": "adaptive"}, output_config={"effort": "medium"}
    )

    assert sent["output_config"] == {"effort": "medium"}
    assert sent["thinking"]["budget_tokens"] == 8192


def test_an_effort_that_the_model_lacks_becomes_the_next_lower_one() -> None:
    config = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}

    sent, changed = fitted(BOTH, **config)

    assert (sent["output_config"]["effort"], changed) == ("high", ("effort",))


def test_a_model_that_always_thinks_is_forced_to_no_tool() -> None:
    """https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5"""
    choice = {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    sent, changed = fitted(LAST, tool_choice=choice)
    free = {"type": "auto", "disable_parallel_tool_use": True}
    assert (sent["tool_choice"], changed) == (free, ("tool_choice",))
    assert fitted(NEW, tool_choice=choice) == (
        {"model": "m", "max_tokens": 32_000, "tool_choice": choice},
        (),
    )
    gates = find_message_gates(LAST)
    body = json.dumps({"tool_choice": choice}).encode()
    assert any(gate.field in body and gate.form.search(body) for gate in gates)


@pytest.mark.parametrize(
    ("efforts", "sent"),
    [
        (("minimal", "low"), {"effort": "low"}),
        (("minimal",), None),
        (("high", "low"), {"effort": "low"}),
    ],
)
def test_an_operators_own_names_of_efforts_break_no_request(
    efforts: tuple[str, ...], sent: Json | None
) -> None:
    fields: Json = {"output_config": {"effort": "medium"}}
    assert fit_thinking(fields, Capabilities(efforts=efforts), None) == ["effort"]
    assert fields.get("output_config") == sent


@pytest.mark.parametrize("kind", ["openai", "bedrock", "mistral"])
@pytest.mark.parametrize(
    "turns", [{"a": 1}, 5, "x", [5], [{"role": "assistant", "content": 5}]]
)
def test_messages_in_another_form_are_no_fault_of_the_router(kind: str, turns: object) -> None:
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode()
    with suppress(Untranslatable):
        assert not translate_message(body, kind).prefill


@given(st.integers(1, 100_000), st.sampled_from([None, "low", "high", "max"]))
def test_a_budget_leaves_the_answer_its_share_or_thinking_goes(
    limit: int, effort: str | None
) -> None:
    sent, changed = fitted(
        OLD,
        max_tokens=limit,
        thinking={"type": "adaptive"},
        output_config={"effort": effort} if effort else {},
    )

    assert "thinking" in changed
    if (thinking := sent.get("thinking")) is not None:
        budget = thinking["budget_tokens"]
        assert LEAST_BUDGET_TOKENS <= budget <= limit * (1 - ANSWER_SHARE)


@pytest.mark.parametrize("can", [OLD, BOTH, UNKNOWN_CAPABILITIES])
def test_a_budget_stays_where_the_model_takes_it_or_is_unknown(can: Capabilities) -> None:
    assert fitted(can, thinking=BUDGET)[0]["thinking"] == BUDGET


@pytest.mark.parametrize("can", [NEW, BOTH, UNKNOWN_CAPABILITIES])
def test_adaptive_stays_where_the_model_takes_it_or_is_unknown(can: Capabilities) -> None:
    sent, changed = fitted(can, thinking={"type": "adaptive"})

    assert (sent["thinking"], changed) == ({"type": "adaptive"}, ())


def test_thinking_off_stays_off_unless_the_model_always_thinks() -> None:
    off = {"type": "disabled"}

    assert fitted(OLD, thinking=off)[0]["thinking"] == off
    assert fitted(NEW, thinking=off)[0]["thinking"] == off
    sent, changed = fitted(LAST, thinking=off)
    assert "thinking" not in sent
    assert changed == ("thinking",)


def test_sampling_goes_where_the_model_refuses_it() -> None:
    sent, changed = fitted(NEW, temperature=0.2, top_p=0.5, top_k=4)

    assert {"temperature", "top_p", "top_k"}.isdisjoint(sent)
    assert changed == ("temperature", "top_p", "top_k")
    assert fitted(NEW, temperature=1)[1] == ()
    assert fitted(OLD, temperature=0.2)[1] == ()


def test_sampling_goes_beside_a_budget_unless_it_suits_thinking() -> None:
    sent, changed = fitted(OLD, thinking=BUDGET, temperature=0, top_p=0.97, top_k=3)

    assert (sent["top_p"], changed) == (0.97, ("temperature", "top_k"))


def test_a_body_that_suits_the_model_stays_the_same_object() -> None:
    body = b'{"model": "m", "max_tokens": 9, "temperature": 0.3,  "messages": []}'

    assert fit_message(body, OLD)[0] is body


@given(
    st.sampled_from([OLD, OPUS_4_5, NEW, BOTH, LAST]),
    st.sampled_from([BUDGET, {"type": "adaptive"}, {"type": "disabled"}, None]),
    st.sampled_from([None, "low", "xhigh", "max"]),
    st.sampled_from([None, 0.2, 1]),
)
def test_a_fitted_request_suits_its_model(
    can: Capabilities, thinking: Json | None, effort: str | None, temperature: float | None
) -> None:
    fields: Json = {"max_tokens": 9000}
    fields |= {"thinking": thinking} if thinking else {}
    fields |= {"output_config": {"effort": effort}} if effort else {}
    fields |= {"temperature": temperature} if temperature is not None else {}
    body = json.dumps({"model": "m", **fields}).encode()

    sent, _ = fit_message(body, can)

    assert fit_message(sent, can) == (sent, ())


def as_chat(kind: str, model: str, **fields: Any) -> tuple[Json, tuple[str, ...]]:
    message = {"model": model, "max_tokens": 32_000, "messages": [], **fields}
    chat = translate_message(json.dumps(message).encode(), kind)
    found: Json = json.loads(chat.body)
    return found, chat.dropped


def test_a_budget_goes_to_converse_as_it_is_and_to_openai_as_an_effort() -> None:
    converse, _ = as_chat("bedrock", "us.anthropic.claude-sonnet-4-5-v1:0", thinking=BUDGET)
    openai, _ = as_chat("openai", "gpt-5", thinking=BUDGET)

    assert (converse["thinking"], converse["reasoning_effort"]) == (BUDGET, None)
    assert (openai.get("thinking"), openai["reasoning_effort"]) == (None, "medium")


def test_adaptive_goes_to_an_older_claude_at_converse_as_a_budget_and_is_named() -> None:
    old = "us.anthropic.claude-sonnet-4-5-v1:0"

    chat, dropped = as_chat("bedrock", old, thinking={"type": "adaptive"})

    assert chat["thinking"] == {"type": "enabled", "budget_tokens": 16_384}
    assert dropped == ("thinking",)


def test_an_effort_alone_turns_no_thinking_on_at_converse() -> None:
    config = {"output_config": {"effort": "medium"}}

    converse, _ = as_chat("bedrock", "us.anthropic.claude-opus-4-7", **config)
    openai, _ = as_chat("openai", "gpt-5", **config)

    assert converse["reasoning_effort"] is None
    assert openai["reasoning_effort"] == "medium"


def test_a_chat_keeps_as_many_stop_sequences_as_its_model_takes() -> None:
    gpt = find_abilities("openai", "gpt-4o")
    body = json.dumps({"model": "m", "stop": ["a", "b", "c", "d", "e"]}).encode()

    sent, changed = fit_chat(body, gpt)

    assert json.loads(sent)["stop"] == ["a", "b", "c", "d"]
    assert changed == ("stop",)
    assert fit_chat(body, UNKNOWN_CAPABILITIES) == (body, ())


def test_a_chat_keeps_its_temperature_where_only_one_sampler_is_taken() -> None:
    body = json.dumps({"model": "m", "temperature": 0.2, "top_p": 0.4}).encode()

    sent, changed = fit_chat(body, OLD)

    assert (json.loads(sent), changed) == ({"model": "m", "temperature": 0.2}, ("top_p",))


@pytest.mark.parametrize(
    ("model", "limit", "sent"),
    [
        ("claude-sonnet-4-5-20250929", 128_000, 64_000),
        ("claude-sonnet-4-5", 64_000, 64_000),
        ("claude-opus-4-1", 64_000, 32_000),
        ("claude-opus-4-6", 128_000, 128_000),
        ("claude-opus-5", 200_000, 128_000),
    ],
)
def test_a_limit_above_the_models_largest_is_lowered_and_named(
    model: str, limit: int, sent: int
) -> None:
    """litellm's default limit is 128,000 tokens."""
    request, changed = fitted(find_abilities("anthropic", model), max_tokens=limit)

    assert request["max_tokens"] == sent
    assert ("max_tokens" in changed) is (sent < limit)


def test_a_budget_fits_below_a_lowered_limit() -> None:
    budget = {"type": "enabled", "budget_tokens": 100_000}

    request, changed = fitted(OLD, max_tokens=128_000, thinking=budget)

    assert request["max_tokens"] == 64_000
    assert request["thinking"]["budget_tokens"] == 48_000
    assert set(changed) == {"max_tokens", "thinking"}
