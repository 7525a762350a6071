"""Tokens and finish reasons, as OpenAI's protocol reports them."""

from typing import NamedTuple


class Usage(NamedTuple):
    input_tokens: int
    output_tokens: int


def usage_of(value: object) -> Usage | None:
    """The `usage` object; None when it is not one."""
    if not isinstance(value, dict):
        return None
    return Usage(_count(value.get("prompt_tokens")), _count(value.get("completion_tokens")))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
