"""Describes when a target's model ends, by each source that states it. Pure.

Three kinds of source state an end: the catalogue, the provider's list of models, and the
headers of the model's answers. If sources disagree, the earliest day governs, and the others
stay visible. Without a statement, the end is unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

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
    target: str  # its id


@dataclass(frozen=True, slots=True)
class EndDates:
    """The dates that one source states about a model. Days are in UTC; None: not stated."""

    ends_on: date | None = None  # the first day on which the model may be gone
    # The day from which the provider advises against the model.
    deprecated_on: date | None = None
    is_deprecated: bool = False  # the source calls it deprecated, with or without a day

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
        ModelEnd(statement.dates.ends_on, statement.source, statement.target)
        for statement in statements
        if statement.dates.ends_on is not None and not statement.is_withdrawn
    ]
    return min(ends, key=lambda end: (end.day, end.source), default=None)
