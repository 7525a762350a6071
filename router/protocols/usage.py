"""Tokens and finish reasons, as OpenAI's protocol reports them."""

from typing import Final, NamedTuple

# No conversation is so long; and neither sums nor databases have room for just any number.
MOST_TOKENS: Final = 10**9


class Usage(NamedTuple):
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # of the input


def usage_of(value: object) -> Usage | None:
    """The `usage` object; None when it is not one."""
    if not isinstance(value, dict):
        return None
    return usage_with_cache(
        value.get("prompt_tokens"),
        value.get("completion_tokens"),
        value.get("prompt_tokens_details"),
    )


def usage_with_cache(given: object, made: object, details: object) -> Usage:
    """details: of the input, where `cached_tokens` may stand."""
    input_tokens = count_of(given)
    found = count_of(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return Usage(input_tokens, count_of(made), min(found, input_tokens))


def count_of(value: object) -> int:
    """Tokens, as a provider says; 0 for what is no number of them."""
    return value if isinstance(value, int) and 0 < value <= MOST_TOKENS else 0
