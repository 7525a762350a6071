"""Suggests the nearest right name for a wrong one, for the end of an error message."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(
    name: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.6
) -> str:
    """The end of an error message: `; did you mean 'x'?`, or `otherwise` if nothing is near.

    cutoff: how alike two names have to be, from 0 to 1.
    """
    nearest = get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]!r}?" if nearest else otherwise
