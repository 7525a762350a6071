"""The table of abilities: the facts about models and kinds that decide how a request is sent.

A row has kinds, a pattern of model names, values of `Capabilities`, and the page that documents
them. For each ability, the first fitting row with a value counts, so a specific row stands
above a general one. An ability without a row is unknown, and counts as present.

Precedence: the provider's own `models` (configuration or registry), then a refusal that the
router learned (`router.upstream.learned_repairs`), then this table.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Prefill,
    StrictSchema,
    ThinkingForm,
)

# A region or vendor before the name, and a cloud's version after it.
_NAME_PREFIX: Final = r"(?:.*[./])?"
_NAME_SUFFIX: Final = r"(?:[-@:].*)?"
_ANY_MODEL: Final = r".*"


def _model(name: str) -> re.Pattern[str]:
    """Compiles a pattern of a model's name, without its vendor, region and version."""
    return re.compile(f"{_NAME_PREFIX}(?:{name}){_NAME_SUFFIX}", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class AbilityRow:
    """Abilities of some models. kinds: empty for all kinds.

    source: an https page, or owner/repo#number of an issue. shown: the models' name for people;
    empty for all models of the kinds.
    """

    kinds: frozenset[str]
    models: re.Pattern[str]
    values: Mapping[str, object]
    source: str
    shown: str
    api_base_end: str = ""  # only for addresses with this ending

    def fits(self, kind: str, model: str, api_base: str) -> bool:
        """Tells whether the row is about a model.

        Args:
            api_base: the provider's address.
        """
        return (
            (not self.kinds or kind in self.kinds)
            and api_base.rstrip("/").endswith(self.api_base_end)
            and self.models.fullmatch(model) is not None
        )


def _row(
    kinds: str,
    models: str,
    source: str,
    shown: str = "",
    *,
    api_base_end: str = "",
    **values: object,
) -> AbilityRow:
    return AbilityRow(
        frozenset(kinds.split()),
        _model(models),
        MappingProxyType(values),
        source,
        shown,
        api_base_end,
    )


_DOCS: Final = "https://platform.claude.com/docs/en"
_OPENAIS: Final = "openai azure_openai"
_CLAUDE_FAMILIES: Final = r"claude-(?:opus|sonnet|haiku|fable|mythos)"

_EFFORTS: Final = ("low", "medium", "high")
_MAX: Final = (*_EFFORTS, "max")
_XHIGH: Final = (*_EFFORTS, "xhigh", "max")

ROWS: Final[tuple[AbilityRow, ...]] = (
    _row(
        "",
        r"claude-(?:opus|sonnet|haiku)-5[-.]5|claude-(?:fable|mythos)-.*",
        f"{_DOCS}/models/opus-5-5/whats-new-opus-5-5",
        "Claude 5.5, Fable, Mythos",
        thinks_always=True,
    ),
    _row(
        "",
        r"claude-(?:opus|sonnet)-4[-.]6",
        f"{_DOCS}/build-with-claude/adaptive-thinking",
        "Claude Opus and Sonnet 4.6",
        thinking=ThinkingForm.BOTH,
        efforts=_MAX,
        prefill=Prefill.REFUSES,
        max_output_tokens=128_000,
    ),
    _row(
        "",
        r"claude-opus-4[-.][789]|claude-mythos-preview",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html",
        "Claude Opus 4.7 to 4.9, Mythos Preview",
        thinking=ThinkingForm.ADAPTIVE,
        efforts=_XHIGH,
        prefill=Prefill.REFUSES,
        sampling=False,
        max_output_tokens=128_000,
    ),
    _row(
        "",
        _CLAUDE_FAMILIES + r"-(?:[5-9]|[1-9]\d)(?:[-.]\d)?",
        f"{_DOCS}/about-claude/models/whats-new-opus-5",
        "Claude 5 and later",
        thinking=ThinkingForm.ADAPTIVE,
        efforts=_XHIGH,
        prefill=Prefill.REFUSES,
        sampling=False,
        max_output_tokens=128_000,
    ),
    _row(
        "",
        r"claude-opus-4[-.][156]|claude-(?:sonnet|haiku)-4[-.][56]",
        "SalesforceAIResearch/MCP-Universe#49",
        "Claude 4.1 to 4.6",
        temperature_with_top_p=False,
    ),
    _row(
        "",
        r"claude-opus-4[-.]5",
        f"{_DOCS}/build-with-claude/effort",
        "Claude Opus 4.5",
        efforts=_EFFORTS,
    ),
    _row(
        "",
        r"claude-(?:sonnet|haiku)-4(?:[-.][05])?|claude-opus-4[-.]5",
        f"{_DOCS}/about-claude/models/overview",
        "Claude Sonnet 4 and 4.5, Haiku 4.5, Opus 4.5",
        max_output_tokens=64_000,
    ),
    _row(
        "",
        r"claude-opus-4(?:[-.][01])?",
        f"{_DOCS}/about-claude/models/overview",
        "Claude Opus 4 and 4.1",
        max_output_tokens=32_000,
    ),
    _row(
        "",
        r"claude-3[-.]7-sonnet|claude-(?:opus|sonnet|haiku)-4(?:[-.][0-5])?",
        f"{_DOCS}/build-with-claude/extended-thinking",
        "Claude 3.7 to 4.5",
        thinking=ThinkingForm.BUDGET,
        efforts=(),
        prefill=Prefill.CONTINUES,
    ),
    _row(
        "",
        r"claude-(?:[12]|3|instant).*",
        "https://docs.anthropic.com/en/docs/build-with-claude/prompt-engineering/prefill-claudes-response",
        "Claude 3.5 and earlier",
        efforts=(),
        prefill=Prefill.CONTINUES,
    ),
    _row(
        "anthropic",
        r"claude-.*",
        f"{_DOCS}/build-with-claude/structured-outputs",
        "Claude",
        strict_schema=StrictSchema.CLOSED,
    ),
    _row(
        "anthropic",
        _ANY_MODEL,
        f"{_DOCS}/api/openai-sdk",
        seed=False,
        logprobs=False,
        audio=False,
        several_choices=False,
    ),
    _row(
        _OPENAIS,
        r"gpt-5(?:\.\d)?-chat",
        "https://developers.openai.com/api/docs/models/gpt-5-chat-latest",
        "GPT-5's chat models",
        sampling=True,
        max_stop_sequences=4,
    ),
    _row(
        _OPENAIS,
        r"gpt-5\.[12]",
        "https://developers.openai.com/api/docs/guides/latest-model",
        "GPT-5.1 and 5.2",
        reasons_by_default=False,
    ),
    _row(
        _OPENAIS,
        r"gpt-5(?:-mini|-nano|-pro|-codex)?|o[134](?:-mini|-pro)?",
        "cline/cline#7224",
        "GPT-5, o1, o3 and o4",
        sampling=False,
        max_stop_sequences=0,
    ),
    _row(
        _OPENAIS,
        r"gpt-5\.\d.*",
        "https://developers.openai.com/api/docs/guides/latest-model",
        "GPT-5.1 and later",
        sampling_while_reasoning=False,
    ),
    _row(
        _OPENAIS,
        r"gpt-5\.[56]",
        "BerriAI/litellm#34569",
        "GPT-5.5 and 5.6",
        tools_with_reasoning=False,
        reasons_by_default=True,
    ),
    _row(
        _OPENAIS,
        r"gpt-5\.4",
        "openai/openai-openapi#541",
        "GPT-5.4",
        tools_with_reasoning=False,
        reasons_by_default=False,
    ),
    _row(
        _OPENAIS,
        r"gpt-(?:3\.5|4).*|chatgpt-4o.*",
        "https://developers.openai.com/api/docs/guides/reasoning",
        "GPT-3.5 and GPT-4",
        reasoning=False,
    ),
    _row(
        _OPENAIS,
        _ANY_MODEL,
        "https://developers.openai.com/api/docs/guides/structured-outputs",
        top_k=False,
        max_stop_sequences=4,
        prefill=Prefill.BEGINS_ANEW,
        strict_schema=StrictSchema.ALL_REQUIRED,
    ),
    _row(
        f"{_OPENAIS} groq mistral deepseek",
        _ANY_MODEL,
        "helixml/helix#2751",
        loose_forms=False,
    ),
    _row(
        "deepseek",
        _ANY_MODEL,
        "https://api-docs.deepseek.com/api/create-chat-completion",
        max_stop_sequences=16,
    ),
    _row(
        "gemini vertex",
        _ANY_MODEL,
        "https://ai.google.dev/api/generate-content",
        max_stop_sequences=5,
    ),
    _row(
        "gemini vertex",
        r"gemini-(?:1\.\d|2\.\d|3|3\.1)(?:-.*)?|gemini-pro-latest",
        "pipecat-ai/pipecat#5821",
        "Gemini to 3.1",
        prefill=Prefill.CONTINUES,
    ),
    _row(
        "gemini vertex",
        r"gemini-.*",
        "pipecat-ai/pipecat#5821",
        "Gemini after 3.1",
        prefill=Prefill.REFUSES,
    ),
    _row(
        "mistral",
        _ANY_MODEL,
        "https://docs.mistral.ai/capabilities/completion/usage",
        # Mistral refuses unknown fields.
        seed=False,
        logprobs=False,
        service_tier=False,
        top_k=False,
        prefill=Prefill.PREFIX,
    ),
    _row(
        "deepseek",
        _ANY_MODEL,
        "https://api-docs.deepseek.com/guides/chat_prefix_completion",
        prefill=Prefill.PREFIX,
        api_base_end="/beta",
    ),
    _row(
        "deepseek",
        _ANY_MODEL,
        "https://api-docs.deepseek.com/guides/chat_prefix_completion",
        prefill=Prefill.BEGINS_ANEW,
    ),
    _row(
        "groq",
        _ANY_MODEL,
        "https://console.groq.com/docs/prefilling",
        logprobs=False,
        top_k=False,
        max_stop_sequences=4,
        prefill=Prefill.CONTINUES,
    ),
    _row(
        "llama_cpp",
        _ANY_MODEL,
        "ggml-org/llama.cpp#13174",
        prefill=Prefill.CONTINUES,
    ),
    _row(
        "ovms",
        _ANY_MODEL,
        "openvinotoolkit/model_server#3877",
        prefill=Prefill.BEGINS_ANEW,
    ),
    _row(
        "custom",
        r"(?:kimi|moonshot)-.*",
        "https://platform.kimi.ai/docs/guide/use-partial-mode-feature-of-kimi-api",
        "Kimi",
        prefill=Prefill.PARTIAL,
    ),
    _row(
        "custom",
        r"qwen-(?:max|plus|flash|turbo).*|qwen3-max.*|qwen3?-coder-(?:plus|flash|turbo).*",
        "https://help.aliyun.com/zh/model-studio/partial-mode",
        "Qwen's own models",
        prefill=Prefill.PARTIAL,
    ),
    _row(
        "vllm sglang",
        _ANY_MODEL,
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        prefill=Prefill.FLAGS,
    ),
)

_UNKNOWN_VALUES: Final = {ability.name: ability.default for ability in fields(Capabilities)}


@lru_cache(maxsize=4096)
def find_abilities(kind: str, model: str, api_base: str = "") -> Capabilities:
    """Returns the table's abilities of a model.

    Args:
        kind: of the provider.
        api_base: the provider's address.

    The result is UNKNOWN_CAPABILITIES itself if no row fits.
    """
    values: dict[str, Any] = {}
    for row in ROWS:
        if row.fits(kind, model, api_base):
            values = {**row.values, **values}
    return replace(UNKNOWN_CAPABILITIES, **values) if values else UNKNOWN_CAPABILITIES


def kinds_with(ability: str, value: object) -> frozenset[str]:
    """Returns the kinds with a row that gives an ability this value."""
    rows = (row for row in ROWS if row.values.get(ability) == value)
    return frozenset(kind for row in rows for kind in row.kinds)


def merge_abilities(own: Capabilities, known: Capabilities) -> Capabilities:
    """Returns a model's abilities. A declared value precedes the table's; a default value
    counts as unknown.

    Args:
        own: declared by the operator.
        known: from the table.
    """
    if known is UNKNOWN_CAPABILITIES:
        return own
    if own is UNKNOWN_CAPABILITIES:
        return known
    declared = {
        name: value
        for name, default in _UNKNOWN_VALUES.items()
        if (value := getattr(own, name)) != default
    }
    return replace(known, **declared)
