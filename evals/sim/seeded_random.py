"""Derives random bits, uniform and normal numbers from a hash of given parts, so that every
process of the simulator draws the same ones.
"""

from hashlib import blake2b
from statistics import NormalDist

STANDARD_NORMAL = NormalDist()


def random_bits(*parts: object) -> int:
    """64 bits from the parts. Not hash(): Python salts that per process."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest())


def uniform(*parts: object) -> float:
    """In (0, 1), both ends left out."""
    return ((random_bits(*parts) >> 12) + 0.5) / 2**52


def normal(*parts: object) -> float:
    return STANDARD_NORMAL.inv_cdf(uniform(*parts))
