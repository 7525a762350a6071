"""Reads the tokens of an answer from OpenAI's `usage`."""

from typing import Final, NamedTuple

# No conversation is so long; and neither sums nor databases have room for just any number.
MOST_TOKENS: Final = 10**9


class TokenUsage(NamedTuple):
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0  # of the input, what the prompt cache had
    written_tokens: int = 0  # of the input, what was written to it
    hour_tokens: int = 0  # of these, what it keeps for an hour


NO_USAGE: Final = TokenUsage(0, 0)


def read_usage(value: object) -> TokenUsage | None:
    if not isinstance(value, dict):
        return None
    return usage_with_cache(
        value.get("prompt_tokens"),
        value.get("completion_tokens"),
        value.get("prompt_tokens_details"),
    )


def usage_with_cache(given: object, made: object, details: object) -> TokenUsage:
    """Builds the usage. details: of the input, with cached and written tokens."""
    # As `read_count` has them: every answer comes here.
    input_tokens = given if isinstance(given, int) and 0 < given <= MOST_TOKENS else 0
    output_tokens = made if isinstance(made, int) and 0 < made <= MOST_TOKENS else 0
    if not details or not isinstance(details, dict):
        return TokenUsage(input_tokens, output_tokens)
    cached = min(read_count(details.get("cached_tokens")), input_tokens)
    # OpenAI's own name, and the name that other gateways and the library use for Anthropic's.
    told = details.get("cache_write_tokens") or details.get("cache_creation_tokens")
    if not told:
        return TokenUsage(input_tokens, output_tokens, cached)
    written = min(read_count(told), input_tokens - cached)
    hour = min(read_hour_count(details.get("cache_creation_token_details")), written)
    return TokenUsage(input_tokens, output_tokens, cached, written, hour)


def read_hour_count(details: object) -> int:
    if not isinstance(details, dict):
        return 0
    return read_count(details.get("ephemeral_1h_input_tokens"))


def read_count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= MOST_TOKENS else 0
