"""Estimates tokens, one for every four bytes of UTF-8, rounded up, and cuts a text at a number
of them.
"""

from collections.abc import Sequence

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4


def estimate(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def of_messages(texts: Sequence[str]) -> int:
    """Counts the tokens of messages; each counts four for its role beside its text."""
    return sum(estimate(text) + TOKENS_PER_MESSAGE for text in texts)


def cut(text: str, limit: int) -> str:
    """The longest beginning of the text that is at most `limit` tokens."""
    return text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
