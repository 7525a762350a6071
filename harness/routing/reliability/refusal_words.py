"""Lists the words with which providers refuse a field or a length, and the fields that the
router may change. A table without logic, for `request_repair`.

Each pattern is a message that a provider has sent; add a provider's new message here.
"""

import re
from collections.abc import Mapping
from typing import Final

# Optional fields of a request.
HINTS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "repetition_penalty",
    "seed",
    "reasoning_effort",
    "reasoning.effort",
    "reasoning.summary",
    "include",
    "verbosity",
    "text.verbosity",
    "parallel_tool_calls",
    "service_tier",
    "store",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "stream_options",
    "encoding_format",  # the router writes vectors in the encoding that the client asked for
)
# Common words, which count as field names only if the provider quotes them.
COMMON: Final = frozenset({"user", "store", "metadata", "include"})
# Fields that determine the answer. If a provider does not know one of them, the router does not
# remove it. It may remove a field inside it, and `max_tokens` for vLLM (`REST`).
NEEDED: Final = frozenset(
    {
        "container",
        "conversation",
        "input",
        "instructions",
        "max_tokens",
        "mcp_servers",
        "messages",
        "model",
        "n",
        "previous_response_id",
        "prompt",
        "response_format",
        "stream",
        "system",
        "text",
        "thread",
        "tool_choice",
        "tools",
    }
)
# Fields inside the history and the tools that determine the answer.
NEEDED_INSIDE: Final = frozenset(
    {"arguments", "content", "function", "messages", "parameters", "role", "tool_calls", "type"}
)
# The protocols' names for the limit of an answer's length.
LENGTHS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
REFUSES: Final = re.compile(
    r"unsupported|(not|n't) (yet )?support|unrecogni[sz]ed|"
    r"unknown (parameter|name|field|argument)|"
    r"not (enabled|available|allowed|permitted)|no longer|deprecated|extra inputs|"
    r"cannot both|only one|may only be|may not be|is immutable|only \S+ is allowed|"
    r"must be (unset|strictly positive|> 0|one of)|or unset|must be verified|"
    r"only (be )?(allowed|defined|supported|valid) (when|if|with)",
    re.IGNORECASE,
)
# Refusals by the endpoint's schema, which do not depend on other fields.
OF_THE_SCHEMA: Final = re.compile(
    r"extra inputs|unrecogni[sz]ed|unknown (parameter|name|field|argument)|unsupported field|"
    r"cannot find field|extraneous key|^property \S+ is unsupported",
    re.IGNORECASE,
)
SCHEMA_CODES: Final = frozenset({"unknown_parameter", "extra_forbidden"})
# Refusals of one value, or of fields that exclude or require one another.
OF_A_VALUE: Final = re.compile(
    r"supported values are|must be|positive|may only be|only \S+ is allowed|"
    r"only the default|unsupported value|does not support ['\"]?[\d.]|greater than|less than|"
    r"one of",
    re.IGNORECASE,
)
VALUE_CODE: Final = "unsupported_value"
JOINT: Final = re.compile(
    r"cannot both|only one|together|combin|\b(when|while|if|unless|without|requires?)\b",
    re.IGNORECASE,
)
# The remedy that a refusal suggests, with a field and its value. From OpenAI.
WAY_OUT: Final = re.compile(r"\bset [`'\"]?([\w.]+)[`'\"]? to [`'\"](\w+)[`'\"]", re.IGNORECASE)
# The same refusal of older models, without a remedy.
TOOLS_WITH_EFFORT: Final = re.compile(
    r"^function tools with reasoning_effort are not supported", re.IGNORECASE
)
CODES: Final = frozenset(
    {
        "unsupported_value",
        "unsupported_parameter",
        "unknown_parameter",
        "extra_forbidden",
    }
)
# Messages with the path of an unknown field, by Anthropic, OpenAI, OpenAI's older versions
# and Groq.
UNKNOWN: Final = (
    re.compile(r"([\w.\[\]-]+): Extra inputs are not permitted"),
    re.compile(r"Unknown parameter: '([\w.\[\]-]+)'"),
    re.compile(r"Unrecognized request argument supplied: ([\w.-]+)"),
    re.compile(r"('?[\w.]+' : property '[\w.-]+)' is unsupported"),
    re.compile(r"property '([\w.\[\]-]+)' is unsupported"),
)
BETAS: Final = re.compile(
    r"unexpected value\(s\) (.+?) for the `?anthropic-beta", re.IGNORECASE
)
INSTEAD: Final = re.compile(r"\buse [`'\"]?(max_\w+)", re.IGNORECASE)
# Messages with window and prompt tokens, by vLLM, Anthropic, OpenAI and OpenRouter.
WINDOWS: Final = (
    re.compile(r"> (?P<window>\d+) - (?P<prompt>\d+)"),
    re.compile(r"limit: (?P<prompt>\d+) \+ \d+ > (?P<window>\d+)"),
    re.compile(
        r"maximum context length is (?P<window>\d+) tokens\b.*?"
        r"\((?P<prompt>\d+) (?:in the messages, \d+ in the completion|of text input, "
        r"(?:(?P<tools>\d+) of tool input, )?\d+ in)"
    ),
    # From SGLang.
    re.compile(
        r"maximum context length of (?P<window>\d+) tokens\. You requested a total of \d+ "
        r"tokens: (?P<prompt>\d+) tokens"
    ),
    # From TGI.
    re.compile(r"must be <= (?P<window>\d+)\. Given: (?P<prompt>\d+) `inputs`"),
)
# Since 0.13, vLLM does not report the prompt's tokens. The repair removes the limit: vLLM then
# uses the whole rest of its window.
REST: Final = re.compile(
    r"requested [1-9]\d* output tokens"
    r"( and your prompt contains at least|\. However, the model's context length is only)"
)
# Google excludes the upper end of the range.
BELOW: Final = re.compile(r"range is from \d+ \(inclusive\) to (\d+) \(exclusive\)")
# Bedrock's words for the limit of an answer.
MAXIMUM_TOKENS: Final = re.compile(r"^the maximum tokens you requested", re.IGNORECASE)
MOST: Final = re.compile(
    r"(?:at most|<=|less than or equal to|\d >|tokens >(?= \d+ must)|up to|"
    r"(?:maximum|limit) (?:value )?(?:of|is)|"
    r"(?:range|should|between)\D{0,40}\d+\s*(?:,|and|to))\s*[`'\"]?(\d[\d,]*)",
    re.IGNORECASE,
)
LEAST: Final = re.compile(
    r"(?:at least|>=|greater than or equal to|minimum (?:value )?(?:of|is))\s*[`'\"]?(\d+)",
    re.IGNORECASE,
)
# Ollama's and Google's names, and the names of these fields in a chat request.
OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "thinking": ("reasoning_effort",),
    "think": ("reasoning_effort",),
    "penalty": ("presence_penalty", "frequency_penalty"),
}
