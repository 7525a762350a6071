"""Reads the tokens of an answer (input, output, cached) from the `usage` object of OpenAI's
chat protocol; what is no number of tokens counts as 0.
"""

from typing import Final, NamedTuple

# No conversation is so long; and neither sums nor databases have room for just any number.
MOST_TOKENS: Final = 10**9


class TokenUsage(NamedTuple):
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # of the input


def read_usage(value: object) -> TokenUsage | None:
    """The `usage` object; None when it is not one."""
    if not isinstance(value, dict):
        return None
    return usage_with_cache(
        value.get("prompt_tokens"),
        value.get("completion_tokens"),
        value.get("prompt_tokens_details"),
    )


def usage_with_cache(given: object, made: object, details: object) -> TokenUsage:
    """Builds the usage of tokens, of which the cached ones are a part. details: of the input,
    where `cached_tokens` may stand.
    """
    # As `read_count` has them: every answer comes here.
    input_tokens = given if isinstance(given, int) and 0 < given <= MOST_TOKENS else 0
    output_tokens = made if isinstance(made, int) and 0 < made <= MOST_TOKENS else 0
    cached = read_count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return TokenUsage(input_tokens, output_tokens, min(cached, input_tokens))


def read_count(value: object) -> int:
    """Tokens, as a provider says; 0 for what is no number of them."""
    return value if isinstance(value, int) and 0 < value <= MOST_TOKENS else 0
