"""Suggests the nearest right name for a wrong one, for the end of an error message; takes
pydantic's own words from the beginning.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(
    name: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.6
) -> str:
    """The end of an error message: `; did you mean 'x'?`, or `otherwise` if nothing is near.

    cutoff: how alike two names have to be, from 0 to 1.
    """
    nearest = find_nearest(name, known, cutoff=cutoff)
    return f"; did you mean {nearest!r}?" if nearest else otherwise


def find_nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Finds the name that is most like another one, in any case of letters, with or without a
    provider before a slash; empty where none is near.
    """
    spellings = {other.casefold(): other for other in known}
    spellings = {
        spelled.rpartition("/")[2]: spellings[spelled] for spelled in spellings
    } | spellings
    wanted = name.casefold()
    for spelled in (wanted, wanted.rpartition("/")[2]):
        if near := get_close_matches(spelled, spellings, n=1, cutoff=cutoff):
            return spellings[near[0]]
    return ""


def format_fault(message: object) -> str:
    """The reason alone of a fault that pydantic reports."""
    return str(message).removeprefix("Value error, ")
