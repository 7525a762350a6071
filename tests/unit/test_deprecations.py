"""The deprecation radar's rules (F11): who ends, and who may follow."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.control.providers.deprecations import (
    ALERT_AHEAD,
    find_deprecations,
    find_successor,
)
from harness.domain.providers.catalogue import CatalogueEntry, build_catalogue
from harness.domain.routing.target import Price, Provider, Target

pytestmark = pytest.mark.req("F11")
TODAY = date(2026, 11, 20)
ABLE = frozenset({"chat", "tools"})


def entry(model: str, ends_in: int | None = None, **more: object) -> CatalogueEntry:
    day = None if ends_in is None else TODAY + timedelta(days=ends_in)
    fields: dict[str, object] = {"has": ABLE, "context_window": 100, **more}
    return CatalogueEntry("anthropic", model, end_date=day, **fields)  # type: ignore[arg-type]


OLD = entry("claude-sonnet-4-5", 10)


@pytest.mark.parametrize(
    ("others", "follows"),
    [
        ([entry("claude-sonnet-4-6"), entry("claude-sonnet-5")], "claude-sonnet-5"),
        ([entry("claude-sonnet-4-6"), entry("claude-sonnet-5-preview")], "claude-sonnet-4-6"),
        ([entry("claude-sonnet-4-6"), entry("claude-opus-5")], "claude-sonnet-4-6"),
        ([entry("claude-sonnet-4-1")], None),
        ([entry("claude-sonnet-5", has=frozenset({"chat"}))], None),
        ([entry("claude-sonnet-5", context_window=99)], None),
        ([entry("claude-sonnet-5", context_window=None)], None),
        ([entry("claude-sonnet-5", 60)], None),
        ([entry("claude-sonnet-5", 400)], "claude-sonnet-5"),
        ([entry("claude-sonnet-4-5-20250929", 10)], None),
        ([CatalogueEntry("vertex", "claude-sonnet-5", has=ABLE, context_window=100)], None),
    ],
)
def test_the_newest_of_the_family_follows_that_can_as_much(
    others: list[CatalogueEntry], follows: str | None
) -> None:
    catalogue_entry = find_successor(OLD, [OLD, *others], TODAY)

    assert (catalogue_entry.model if catalogue_entry else None) == follows


@given(days=st.integers(-400, 400))
def test_it_is_told_from_ninety_days_before_on(days: int) -> None:
    target = Target("main", "claude-sonnet-4-5")
    provider = Provider("main", "anthropic", "http://127.0.0.1:9", prices={})
    known = build_catalogue([entry("claude-sonnet-4-5", days, price=Price(3, 15))])

    deprecations = find_deprecations(
        [(target, ["incumbent of chat"])], {"main": provider}, known, TODAY
    )

    assert bool(deprecations) == (days <= ALERT_AHEAD.days)
    for deprecation in deprecations:
        assert deprecation.over == (days <= 0)
        assert deprecation.days == days
        assert deprecation.price == Price(3, 15)
        assert deprecation.successor is None
