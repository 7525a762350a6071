"""Derives random bits, uniform and normal numbers from a hash of given parts, so that every
process of the simulator draws the same ones.
"""

from statistics import NormalDist

from harness.domain.content_hash import short_hash

STANDARD_NORMAL = NormalDist()


def random_bits(*parts: object) -> int:
    """Draws 64 bits from the parts."""
    return int.from_bytes(short_hash("\x1f".join(map(str, parts))))


def uniform(*parts: object) -> float:
    """Draws a number in (0, 1), both ends left out, from these parts."""
    return ((random_bits(*parts) >> 12) + 0.5) / 2**52


def normal(*parts: object) -> float:
    return STANDARD_NORMAL.inv_cdf(uniform(*parts))
