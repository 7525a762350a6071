"""Describes when a target's model ends, by each source that states it. Pure.

Three kinds of source state an end: the catalogue, the provider's list of models, and the
headers of the model's answers. If sources disagree, the earliest day governs, and the others
stay visible. Without a statement, the end is unknown, unless the provider's list tells ends and
has the model without one. `related_ends` finds what a source states under a related name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.formatting import format_date

# A header's statement counts until answers have come without it for this long. One answer is
# not enough: a provider's servers may differ for some hours.
WITHDRAWN_AFTER: Final = timedelta(hours=24)
# How often a process stores that an unchanged statement continues, or that it is still absent.
RENEW_AFTER: Final = timedelta(minutes=10)


class EndSource(StrEnum):
    CATALOGUE = "catalogue"
    LIST = "list"  # the provider's list of models
    HEADERS = "headers"  # of the model's answers


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """The end of a target's model, as its governing source states it."""

    day: date  # the first day, in UTC, on which the model may be gone
    source: str  # for people, such as `the list of provider mistral`


@dataclass(frozen=True, slots=True)
class EndDates:
    """The dates that one source states about a model. Days are in UTC; None: not stated."""

    ends_on: date | None = None  # the first day on which the model may be gone
    # The day from which the provider advises against the model.
    deprecated_on: date | None = None
    is_deprecated: bool = False  # the source calls it deprecated, with or without a day
    replacement: str = ""  # the model that the source names in its place; empty without one

    @property
    def is_empty(self) -> bool:
        return self == NO_DATES


NO_DATES: Final = EndDates()


@dataclass(frozen=True, slots=True)
class EndStatement:
    """One source's statement about a target's model."""

    target: str  # its id
    kind: EndSource
    source: str  # as in `ModelEnd`
    dates: EndDates
    seen_at: datetime  # when the source last stated it
    checked_at: datetime  # when Swapproof last read the source, with or without the statement

    @property
    def is_withdrawn(self) -> bool:
        """Whether the source has stopped stating it."""
        return self.checked_at - self.seen_at > WITHDRAWN_AFTER


def state_answer(
    target: str,
    provider: str,
    dates: EndDates,
    at: datetime,
) -> EndStatement:
    """Builds the statement of an answer's headers about the target that sent it.

    Args:
        target: its id.
        provider: its provider's name.
    """
    source = f"headers of answers of provider {provider}"
    return EndStatement(target, EndSource.HEADERS, source, dates, at, at)


def merge_answer(stored: EndStatement | None, answer: EndStatement) -> EndStatement | None:
    """Merges an answer's statement with the stored one; None if nothing is to be stored. Pure.

    The newest stated value governs. An answer without a statement only shows that the stored
    one was absent, until `EndStatement.is_withdrawn` ends it.
    """
    if answer.dates == NO_DATES:
        if stored is None:
            return None
        absent = replace(stored, checked_at=max(stored.checked_at, answer.checked_at))
        is_due = absent.checked_at - stored.checked_at >= RENEW_AFTER
        # The first absence counts at once, because the next answer may come much later.
        is_first = stored.seen_at == stored.checked_at and absent != stored
        return absent if is_due or is_first else None
    if stored is None or stored.dates != answer.dates:
        return answer
    is_absent = stored.seen_at != stored.checked_at
    is_due = answer.seen_at - stored.seen_at >= RENEW_AFTER
    return answer if is_due or is_absent else None


def group_current(
    statements: Iterable[EndStatement],
) -> Mapping[str, Sequence[EndStatement]]:
    """Groups the statements that are not withdrawn by the target's id, in a fixed order."""
    groups: dict[str, list[EndStatement]] = {}
    for statement in sorted(statements, key=lambda one: (one.target, one.kind)):
        if not statement.is_withdrawn:
            groups.setdefault(statement.target, []).append(statement)
    return groups


def find_end(statements: Iterable[EndStatement]) -> ModelEnd | None:
    """Finds the earliest stated end of one target; None if no source states a day."""
    ends = [
        ModelEnd(statement.dates.ends_on, statement.source)
        for statement in statements
        if statement.dates.ends_on is not None and not statement.is_withdrawn
    ]
    return min(ends, key=lambda end: (end.day, end.source), default=None)


class EndState(StrEnum):
    """What Swapproof knows about a model's end."""

    STATED = "stated"  # a source states the day
    NOT_ANNOUNCED = "not_announced"  # the provider's list tells ends, and states no end for it
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KnownEnd:
    """What is known about a model's end, in plain values for every interface.

    day and source are None without a stated day. text: a day with its source, or why there is
    no day.
    """

    state: EndState
    day: date | None
    source: str | None
    text: str


def describe_end(
    end: ModelEnd | None, read_on: date | None = None, to_know: str = ""
) -> KnownEnd:
    """Describes a model's end.

    Args:
        read_on: the day of the provider's list that tells ends and has the model without one;
            None without such a list.
        to_know: how a person learns an end that is unknown.
    """
    if end is not None:
        text = f"{format_date(end.day)}, by {end.source}"
        return KnownEnd(EndState.STATED, end.day, end.source, text)
    if read_on is not None:
        text = f"no end is announced in its provider's list of {format_date(read_on)}"
        return KnownEnd(EndState.NOT_ANNOUNCED, None, None, text)
    text = f"unknown: {to_know}" if to_know else "unknown"
    return KnownEnd(EndState.UNKNOWN, None, None, text)


@dataclass(frozen=True, slots=True)
class EndReport:
    """What all sources tell about the end of one model.

    statements: of the sources that state something. known: the governing end.
    """

    statements: Sequence[EndStatement]
    known: KnownEnd

    @property
    def end(self) -> ModelEnd | None:
        return find_end(self.statements)
