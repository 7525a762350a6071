"""Users' regular expressions run with a time limit for each text.

`regex` is as pure as `re`, whose syntax it takes, hence in the domain; and it can stop. An
expression of a few characters can run for years on a hostile answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from harness.frame.errors import InputError, PatternTooSlow

if TYPE_CHECKING:
    import regex

MATCH_TIMEOUT_S: Final = 1.0
MAX_PATTERN_LENGTH: Final = 1_000


@dataclass(frozen=True)
class BoundedPattern:
    """Matches a user's regular expression within a time limit. Its methods raise PatternTooSlow
    after MATCH_TIMEOUT_S.

    Raises InputError for a text that is no expression, or longer than MAX_PATTERN_LENGTH.
    """

    pattern: str
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if len(self.pattern) > MAX_PATTERN_LENGTH:
            raise InputError(
                f"a regular expression has at most {MAX_PATTERN_LENGTH} characters, not "
                f"{len(self.pattern)}"
            )
        _ = self._compiled

    @cached_property
    def _compiled(self) -> "regex.Pattern[str]":
        import regex  # noqa: PLC0415 - 4 MiB, for those alone who have an expression

        try:
            return regex.compile(self.pattern, regex.IGNORECASE if self.ignore_case else 0)
        except regex.error as error:
            raise InputError(f"{self.pattern!r} is no regular expression: {error}") from None

    def matches_whole(self, text: str) -> bool:
        return self._timed("fullmatch", text) is not None

    def matches_in(self, text: str) -> bool:
        return self._timed("search", text) is not None

    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Returns start and end of every match that is not empty."""
        return self._timed("finditer", text) or ()

    def _timed(self, method: str, text: str) -> Any:
        try:
            # concurrent: the other threads of the process go on meanwhile.
            found = getattr(self._compiled, method)(
                text, timeout=MATCH_TIMEOUT_S, concurrent=True
            )
            if method == "finditer":
                return [match_.span() for match_ in found if match_.group()]
        except TimeoutError:
            raise PatternTooSlow(
                f"the regular expression {self.pattern!r} took more than "
                f"{MATCH_TIMEOUT_S:g} s for one "
                "text; write it without nested repetitions, such as (a+)+"
            ) from None
        return found
