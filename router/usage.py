"""Tokens and finish reasons, as OpenAI's protocol reports them."""

from typing import Final, NamedTuple

# No conversation is so long; and neither sums nor databases have room for just any number.
MOST_TOKENS: Final = 10**9


class Usage(NamedTuple):
    input_tokens: int
    output_tokens: int


def usage_of(value: object) -> Usage | None:
    """The `usage` object; None when it is not one."""
    if not isinstance(value, dict):
        return None
    return Usage(count_of(value.get("prompt_tokens")), count_of(value.get("completion_tokens")))


def count_of(value: object) -> int:
    """Tokens, as a provider says; 0 for what is no number of them."""
    return value if isinstance(value, int) and 0 < value <= MOST_TOKENS else 0
