import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.providers.models.abilities import find_abilities
from harness.providers.models.capabilities import UNKNOWN_CAPABILITIES, Capabilities
from router.conversation.thinking_forms import (
    ANSWER_SHARE,
    LEAST_BUDGET_TOKENS,
    fit_message,
)

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
