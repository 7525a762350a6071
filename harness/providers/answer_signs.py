"""Reads the signs of an answer that only looks like the asked model's. Pure.

The signs are a gateway's mark that its fallback answered, a header that names the model, and a
usage of 0 tokens. Evals and the router both read answers by these rules, so that an answer has
one meaning in a verdict and in a canary. `tests/world/served` has the published answers that
the rules come from. Bedrock's answers name no model, so no rule reads them.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

# A header counts the targets that a gateway left before the one that answered. LiteLLM repeats
# the headers of a LiteLLM below it with a prefix.
_FALLBACK_MARKS: Final = frozenset(
    {
        b"x-litellm-attempted-fallbacks",
        b"llm_provider-x-litellm-attempted-fallbacks",
        b"cf-aig-step",
        b"helicone-fallback-index",
    }
)
# A header names the model that answered; the body may repeat the name that was asked.
_MODEL_NAMES: Final = frozenset({b"x-ms-served-model", b"ngrok-aig-model"})
# The headers that `read_origin` reads.
ORIGIN_HEADERS: Final = _FALLBACK_MARKS | _MODEL_NAMES
# By these fields a caller lets a gateway choose another model. OpenRouter reads `models` and
# `route`, LiteLLM and Anthropic read `fallbacks`, LiteLLM reads `mock_testing_fallbacks`.
# Vercel's gateway reads `providerOptions`, which may list models.
_PROVIDER_OPTIONS: Final = "providerOptions"
CHOOSING_FIELDS: Final = frozenset(
    {"models", "route", "fallbacks", "mock_testing_fallbacks", _PROVIDER_OPTIONS}
)
LONGEST_NAME: Final = 200
_COUNTS: Final = (
    ("prompt_tokens", "completion_tokens"),
    ("input_tokens", "output_tokens"),
)


class AnswerOrigin(NamedTuple):
    """Where a gateway says that its answer comes from.

    model: the model that a header names; empty without one. is_fallback: the gateway marks the
    answer as its fallback's.
    """

    model: str = ""
    is_fallback: bool = False


NO_ORIGIN: Final = AnswerOrigin()


def read_origin(headers: Iterable[tuple[bytes, bytes]]) -> AnswerOrigin:
    """Reads the headers of an answer. headers: names in lower case."""
    model = ""
    is_fallback = False
    for name, value in headers:
        if name in _FALLBACK_MARKS:
            is_fallback = is_fallback or _is_positive(value)
        elif name in _MODEL_NAMES:
            model = model or value.decode("utf-8", "replace").strip()[:LONGEST_NAME]
    return AnswerOrigin(model, is_fallback) if model or is_fallback else NO_ORIGIN


def is_model_chosen(body: Mapping[str, object]) -> bool:
    """Tells whether a caller's request lets a gateway choose another model.

    The name in its answer is then no evidence about the model that the router asked.
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
        _is_zero(usage.get(given)) and _is_zero(usage.get(made)) for given, made in _COUNTS
    )


def reports_tokens(usage: object) -> bool:
    """Tells whether a usage counts a token."""
    return isinstance(usage, Mapping) and any(
        isinstance(value, int | float) and value > 0 for value in usage.values()
    )


def _is_zero(count: object) -> bool:
    return isinstance(count, int | float) and not isinstance(count, bool) and count == 0
