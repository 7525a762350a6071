import dataclasses
import re

import pytest

from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.abilities import ROWS, find_abilities, merge_abilities
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Prefill,
    ThinkingForm,
)
from harness.providers.target import Provider

BUDGET, ADAPTIVE, BOTH = ThinkingForm.BUDGET, ThinkingForm.ADAPTIVE, ThinkingForm.BOTH


@pytest.mark.parametrize(
    ("kind", "model", "form", "prefill"),
    [
        ("anthropic", "claude-3-7-sonnet-20250219", BUDGET, Prefill.CONTINUES),
        ("anthropic", "claude-sonnet-4-20250514", BUDGET, Prefill.CONTINUES),
        ("anthropic", "claude-opus-4-5-20251101", BUDGET, Prefill.CONTINUES),
        ("anthropic", "claude-opus-4-6", BOTH, Prefill.REFUSES),
        ("vertex", "claude-sonnet-4-6@20260205", BOTH, Prefill.REFUSES),
        ("anthropic", "claude-opus-4-7", ADAPTIVE, Prefill.REFUSES),
        ("openrouter", "anthropic/claude-opus-4.7", ADAPTIVE, Prefill.REFUSES),
        ("bedrock", "us.anthropic.claude-opus-5-v1:0", ADAPTIVE, Prefill.REFUSES),
        ("anthropic", "claude-haiku-5-5", ADAPTIVE, Prefill.REFUSES),
    ],
)
def test_each_generation_of_claude_has_its_form_of_thinking_at_every_kind(
    kind: str, model: str, form: ThinkingForm, prefill: Prefill
) -> None:
    found = find_abilities(kind, model)

    assert (found.thinking, found.prefill) == (form, prefill)


def test_a_model_without_a_row_has_unknown_abilities() -> None:
    assert find_abilities("custom", "a-model-of-ours") is UNKNOWN_CAPABILITIES


def test_tools_beside_reasoning_are_known_to_be_missing_at_gpt_5_4_to_5_6() -> None:
    chats = {name: find_abilities("openai", name) for name in ("gpt-5.4", "gpt-5.6-terra")}

    assert [can.tools_with_reasoning for can in chats.values()] == [False, False]
    assert [can.reasons_by_default for can in chats.values()] == [False, True]
    assert find_abilities("openai", "gpt-5").tools_with_reasoning is None


def test_the_operator_s_own_value_precedes_the_table() -> None:
    own = Capabilities(prefill=Prefill.CONTINUES, tools=False)
    provider = Provider("p", "openai", "https://x", models={"gpt-4o": own})

    found = provider.abilities("gpt-4o")

    assert (found.prefill, found.tools) == (Prefill.CONTINUES, False)
    assert found.strict_schema is find_abilities("openai", "gpt-4o").strict_schema


def test_a_known_denial_of_the_operator_stays_although_the_table_allows() -> None:
    known = Capabilities(documents=True)

    assert merge_abilities(Capabilities(documents=False), known).documents is False
    assert merge_abilities(UNKNOWN_CAPABILITIES, known) is known


def test_deepseek_continues_an_answer_only_at_its_beta_address() -> None:
    beta = find_abilities("deepseek", "deepseek-chat", "https://api.deepseek.com/beta/")
    usual = find_abilities("deepseek", "deepseek-chat", "https://api.deepseek.com/v1")

    assert (beta.prefill, usual.prefill) == (Prefill.PREFIX, Prefill.BEGINS_ANEW)


def test_each_row_names_its_source_and_sets_known_fields() -> None:
    names = {field.name for field in dataclasses.fields(Capabilities)}
    for row in ROWS:
        assert re.match(r"https://|[\w.-]+/[\w.-]+#\d+$", row.source), row.source
        assert set(row.values) <= names
        assert row.kinds <= set(PROVIDER_KINDS)
