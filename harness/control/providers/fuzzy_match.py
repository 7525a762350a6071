"""How near names are to one another: the one door to rapidfuzz."""

from collections.abc import Collection, Sequence
from typing import Final

LEAST: Final = 80.0  # of 100: one wrong letter in five
LEAST_LETTERS: Final = 4  # shorter words are too often near to another
LEAST_OF_NAMES: Final = 55.0
MOST: Final = 5


class Rapidfuzz:
    """A `Likeness`. The library is loaded where a name is misspelt."""

    def words(self, word: str, among: Collection[str]) -> Sequence[str]:
        from rapidfuzz import fuzz, process  # noqa: PLC0415 - see above

        if len(word) < LEAST_LETTERS:
            return ()
        found = process.extract(
            word, sorted(among), scorer=fuzz.ratio, score_cutoff=LEAST, limit=MOST
        )
        nearest = max((score for _, score, _ in found), default=0.0)
        return tuple(each for each, score, _ in found if score == nearest)

    def names(self, name: str, among: Collection[str]) -> Sequence[str]:
        from rapidfuzz import fuzz, process, utils  # noqa: PLC0415 - see above

        found = process.extract(
            name,
            sorted(among),
            scorer=fuzz.token_sort_ratio,
            processor=utils.default_process,
            score_cutoff=LEAST_OF_NAMES,
            limit=MOST,
        )
        return tuple(each for each, _, _ in found)
