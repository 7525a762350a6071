"""The audience of a canary: the callers that an operator puts into the canary first, and the
callers that it never gets. A share draws all other callers.

A set names callers by their client key, which an admin creates, or by a claim of the request:
a user, a header, or a field of the body. Any client can claim anything, so only sets of client
keys hold against a caller. `never` wins over `first`. In doubt a caller is never in: `never`
ignores case, width and invisible characters and matches a value that it cannot read; `first`
compares exactly.

Pure. `harness.routing.table.place_caller` applies it, for routers and for `canary who`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final
from unicodedata import category, normalize

from harness.frame.configuration.setting import required
from harness.frame.formatting import INVISIBLE_CHARACTERS

# The most sets of one list, and the most texts of one set: a router compares each request.
MOST_SETS: Final = 20
MOST_TEXTS: Final = 500
# Invisible marks, which choose the form of the character before them.
_VARIATION_SELECTORS: Final = re.compile(
    "[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
# A claimed value; None for a value that is neither a text, a whole number nor a list of these.
Claim = str | None


class CallerSource(StrEnum):
    """What a set of callers compares."""

    KEY = "key"  # the client key's name
    USER = "user"  # any user that the body or a header names
    HEADER = "header"
    FIELD = "field"  # a field of the body, such as `metadata.tenant`


class AudienceRule(StrEnum):
    """Why a caller has its arm without a draw."""

    FIRST = "first"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class CallerSet:
    """Names callers by literal values, or by how a value begins."""

    by: CallerSource = field(
        metadata=required("What the set compares; only `key` is proof of the caller.")
    )
    # The header's name, or the path of the body's field, such as `metadata.tenant`.
    name: str = ""
    values: tuple[str, ...] = ()  # whole values
    prefixes: tuple[str, ...] = ()  # beginnings of values

    @property
    def is_trusted(self) -> bool:
        """Tells whether a caller cannot choose to be in the set."""
        return self.by is CallerSource.KEY

    @property
    def text(self) -> str:
        """Describes the callers: `client key staff-web, client key staff-*`."""
        what = {
            CallerSource.KEY: "client key",
            CallerSource.USER: "user",
            CallerSource.HEADER: f"header {self.name}:",
            CallerSource.FIELD: f"field {self.name}:",
        }[self.by]
        texts = (*self.values, *(f"{prefix}*" for prefix in self.prefixes))
        return ", ".join(f"{what} {text}" for text in texts)

    @property
    def fault(self) -> str:
        """Describes what is wrong with the set; empty for a valid one."""
        needs_name = self.by in (CallerSource.HEADER, CallerSource.FIELD)
        if needs_name != bool(self.name):
            return (
                f"a set by {self.by.value} needs a `name`"
                if needs_name
                else f"a set by {self.by.value} has no `name`: leave it out"
            )
        texts = (*self.values, *self.prefixes)
        if not texts or not all(map(_fold, texts)):
            return "give `values` or `prefixes`, each with a visible character"
        if len(texts) > MOST_TEXTS:
            return f"has {len(texts):,} values and prefixes; {MOST_TEXTS} are allowed"
        return ""

    def holds(self, claims: Sequence[Claim]) -> bool:
        """Tells whether one of the values is in the set, compared exactly."""
        return any(
            claim is not None and (claim in self.values or claim.startswith(self.prefixes))
            for claim in claims
        )

    def may_hold(self, claims: Sequence[Claim]) -> bool:
        """Tells whether one of the values is in the set, also in another spelling."""
        values, prefixes = _fold_set(self)
        for claim in claims:
            if claim is None:
                return True
            folded = _fold(claim)
            if folded in values or folded.startswith(prefixes):
                return True
        return False


@lru_cache(maxsize=1_024)
def _fold_set(callers: CallerSet) -> tuple[frozenset[str], tuple[str, ...]]:
    return frozenset(map(_fold, callers.values)), tuple(map(_fold, callers.prefixes))


def _fold(text: str) -> str:
    """Normalizes case and width, and drops spaces and other characters without a glyph."""
    visible = "".join(char for char in text if _has_glyph(char))
    folded = normalize("NFKC", normalize("NFKC", visible).casefold())
    return "".join(folded.split())


def _has_glyph(char: str) -> bool:
    return (
        category(char) not in ("Cf", "Cc")
        and char not in INVISIBLE_CHARACTERS
        and not _VARIATION_SELECTORS.match(char)
    )


@dataclass(frozen=True, slots=True)
class CallerClaims:
    """What a request says about its caller. key: its client key's name.

    header, field: return the values of a header, and of a path in the body; empty if absent.
    """

    key: str
    users: Sequence[Claim] = ()
    header: Callable[[str], Sequence[Claim]] = lambda _: ()
    field: Callable[[str], Sequence[Claim]] = lambda _: ()

    def find(self, callers: CallerSet) -> Sequence[Claim]:
        """Returns the values that a set compares."""
        match callers.by:
            case CallerSource.KEY:
                return (self.key,) if self.key else ()
            case CallerSource.USER:
                return self.users
            case CallerSource.HEADER:
                return self.header(callers.name.lower())
            case CallerSource.FIELD:
                return self.field(callers.name)


@dataclass(frozen=True, slots=True)
class Audience:
    """The callers that are in the canary before the share's draw, and those that never are."""

    # Sets of callers that are in the canary at every share.
    first: tuple[CallerSet, ...] = ()
    # Sets of callers that the canary never gets; they win over `first`.
    never: tuple[CallerSet, ...] = ()

    def find_set(self, claims: CallerClaims) -> tuple[AudienceRule, CallerSet] | None:
        """Returns the rule that assigns the caller, and its set; None if the share draws it."""
        for callers in self.never:
            if callers.may_hold(claims.find(callers)):
                return AudienceRule.NEVER, callers
        for callers in self.first:
            if callers.holds(claims.find(callers)):
                return AudienceRule.FIRST, callers
        return None

    @property
    def sets(self) -> tuple[CallerSet, ...]:
        return (*self.never, *self.first)

    @property
    def claimed(self) -> str:
        """Describes the sets that a caller can enter or leave by its own words."""
        return ", ".join(callers.text for callers in self.sets if not callers.is_trusted)

    @property
    def never_text(self) -> str:
        """Describes the callers that the canary never gets; empty if it may get all."""
        return ", ".join(callers.text for callers in self.never)

    @property
    def text(self) -> str:
        """Describes both lists: `first: user staff:*; never: client key customer-x`."""
        first = ", ".join(callers.text for callers in self.first)
        parts = (("first", first), ("never", self.never_text))
        return "; ".join(f"{name}: {texts}" for name, texts in parts if texts)


@dataclass(frozen=True, slots=True)
class StepAudience:
    """The audience from one share on. from_bps: the share, in basis points."""

    from_bps: int
    audience: Audience


def find_audience(steps: Sequence[StepAudience], weight_bps: int) -> Audience | None:
    """Returns the audience at a share.

    Args:
        steps: in the order of their shares.
    """
    found = [step.audience for step in steps if step.from_bps <= weight_bps]
    return found[-1] if found else None
