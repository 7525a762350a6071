"""Numbers from texts: random bits and numbers from a hash of given parts, so that every process
of the simulator draws the same ones, and an estimate of tokens, one for every four bytes.
"""

from collections.abc import Sequence
from statistics import NormalDist

from harness.domain.content_hash import short_hash

STANDARD_NORMAL = NormalDist()
BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4


def random_bits(*parts: object) -> int:
    return int.from_bytes(short_hash("\x1f".join(map(str, parts))))


def uniform(*parts: object) -> float:
    """Draws a number in (0, 1), both ends left out, from these parts."""
    return ((random_bits(*parts) >> 12) + 0.5) / 2**52


def normal(*parts: object) -> float:
    return STANDARD_NORMAL.inv_cdf(uniform(*parts))


def count_tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def count_message_tokens(texts: Sequence[str]) -> int:
    """Counts the tokens of messages; each counts four for its role beside its text."""
    return sum(count_tokens(text) + TOKENS_PER_MESSAGE for text in texts)


def cut(text: str, limit: int) -> str:
    """The longest beginning of the text that is at most `limit` tokens."""
    return text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
