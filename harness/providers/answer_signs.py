"""Reads the signs that another model than the requested one gave an answer. Pure.

There are three signs: a gateway's mark that its fallback answered, a header that names another
model, and a usage of 0 tokens. Evals and the router both read answers by these rules, so that
an answer has one meaning in a verdict and in a canary. `tests/world/served` has the published
answers that the rules come from. Bedrock's answers name no model, so no rule reads them.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

# Headers with the number of targets that a gateway tried in vain before one answered. LiteLLM
# repeats the headers of a LiteLLM below it with a prefix.
_FALLBACK_HEADERS: Final = frozenset(
    {
        b"x-litellm-attempted-fallbacks",
        b"llm_provider-x-litellm-attempted-fallbacks",
        b"cf-aig-step",
        b"helicone-fallback-index",
    }
)
# Headers with the name of the model that answered. The body may only repeat the request's name.
_MODEL_HEADERS: Final = frozenset({b"x-ms-served-model", b"ngrok-aig-model"})
# The headers that `read_origin` reads.
ORIGIN_HEADERS: Final = _FALLBACK_HEADERS | _MODEL_HEADERS
# Request fields that let a gateway choose another model. OpenRouter reads `models` and
# `route`, LiteLLM and Anthropic read `fallbacks`, LiteLLM reads `mock_testing_fallbacks`.
# Vercel's gateway reads `providerOptions`, which may list models.
_PROVIDER_OPTIONS: Final = "providerOptions"
CHOOSING_FIELDS: Final = frozenset(
    {"models", "route", "fallbacks", "mock_testing_fallbacks", _PROVIDER_OPTIONS}
)
LONGEST_NAME: Final = 200
_TOKEN_FIELDS: Final = (
    ("prompt_tokens", "completion_tokens"),
    ("input_tokens", "output_tokens"),
)


class AnswerOrigin(NamedTuple):
    """Where a gateway says that its answer comes from.

    model: from a header; empty without one. is_fallback: whether the gateway says that its
    fallback answered.
    """

    model: str = ""
    is_fallback: bool = False


NO_ORIGIN: Final = AnswerOrigin()


def read_origin(headers: Iterable[tuple[bytes, bytes]]) -> AnswerOrigin:
    """Reads the headers of an answer.

    Args:
        headers: names in lower case.
    """
    model = ""
    is_fallback = False
    for name, value in headers:
        if name in _FALLBACK_HEADERS:
            is_fallback = is_fallback or _is_positive(value)
        elif name in _MODEL_HEADERS:
            model = model or value.decode("utf-8", "replace").strip()[:LONGEST_NAME]
    return AnswerOrigin(model, is_fallback) if model or is_fallback else NO_ORIGIN


def is_model_chosen(body: Mapping[str, object]) -> bool:
    """Tells whether a caller's request lets a gateway choose another model.

    The name in its answer is then no evidence about the model that the router asked.

    Args:
        body: the request's fields.
    """
    fields = CHOOSING_FIELDS.intersection(body)
    if fields != {_PROVIDER_OPTIONS}:
        return bool(fields)
    options = body[_PROVIDER_OPTIONS]
    gateway = options.get("gateway") if isinstance(options, Mapping) else None
    return isinstance(gateway, Mapping) and bool(gateway.get("models"))


def _is_positive(value: bytes) -> bool:
    digits = value.strip()
    return digits.isdigit() and digits.strip(b"0") != b""


def reports_no_tokens(usage: object) -> bool:
    """Tells whether a usage counts 0 input and 0 output tokens, and no other tokens.

    A missing usage, or one without both counts, reports nothing.
    """
    if not isinstance(usage, Mapping):
        return False
    counts = [value for value in usage.values() if isinstance(value, int | float)]
    return not any(counts) and any(
        _is_zero(usage.get(input_field)) and _is_zero(usage.get(output_field))
        for input_field, output_field in _TOKEN_FIELDS
    )


def reports_tokens(usage: object) -> bool:
    """Tells whether a usage counts at least one token."""
    return isinstance(usage, Mapping) and any(
        isinstance(value, int | float) and value > 0 for value in usage.values()
    )


def _is_zero(count: object) -> bool:
    return isinstance(count, int | float) and not isinstance(count, bool) and count == 0
