"""The difficulty of a suite's items is registered as one character per item: how other models
scored on it before, in 62 steps from 0 to z.
"""

from collections.abc import Iterable
from typing import Final

from harness.domain.errors import InputError

_STEPS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOP: Final = len(_STEPS) - 1


def encode_scores(scores: Iterable[float]) -> str:
    """Writes scores from 0 to 1, one character each."""
    return "".join(_STEPS[round(score * _TOP)] for score in scores)


def decode_scores(written: str) -> tuple[float, ...]:
    """Reads what `encode_scores` wrote. Raises InputError for anything else."""
    places = [_STEPS.find(character) for character in written]
    if -1 in places:
        raise InputError(f"a registered difficulty holds {written[places.index(-1)]!r}")
    return tuple(place / _TOP for place in places)
