"""When a model ends, by each source that states it (F11, H6)."""

from datetime import UTC, date, datetime, timedelta

import pytest

from harness.providers.models.model_ends import (
    WITHDRAWN_AFTER,
    EndDates,
    EndSource,
    EndStatement,
    ModelEnd,
    find_end,
)
from harness.routing.control.deprecations import route_end
from harness.routing.table import Route

pytestmark = pytest.mark.req("F11")

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def state(
    source: str,
    day: date | None,
    *,
    target: str = "t1",
    absent_for: timedelta = timedelta(),
) -> EndStatement:
    """States an end.

    Args:
        absent_for: how long answers have come without the statement.
    """
    kind = EndSource.HEADERS if absent_for else EndSource.CATALOGUE
    return EndStatement(target, kind, source, EndDates(day), NOW - absent_for, NOW)


def test_of_several_sources_the_earliest_day_governs() -> None:
    later = state("litellm 1.106.2", date(2027, 3, 1))
    earlier = state("swapproof.yaml", date(2027, 1, 15))

    assert find_end([later, earlier]) == ModelEnd(date(2027, 1, 15), "swapproof.yaml")


def test_an_unknown_end_stays_unknown() -> None:
    assert find_end([]) is None
    assert find_end([state("the list of models of provider p", None)]) is None


def test_a_header_counts_until_answers_come_without_it_for_a_day() -> None:
    day = date(2027, 1, 15)

    assert find_end([state("headers", day, absent_for=WITHDRAWN_AFTER)]) is not None
    absent = WITHDRAWN_AFTER + timedelta(seconds=1)
    assert find_end([state("headers", day, absent_for=absent)]) is None


def test_a_route_ends_with_its_incumbent_and_not_with_its_fallback() -> None:
    route = Route("chat", 1, "t1", fallbacks=("t2",))
    statements = {"t2": [state("litellm", date(2027, 1, 1), target="t2")]}

    assert route_end(route, statements) is None
    statements["t1"] = [state("litellm", date(2027, 2, 1))]
    end = route_end(route, statements)
    assert end is not None
    assert end.day == date(2027, 2, 1)
