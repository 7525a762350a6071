"""Statements about ends of models, on every database (F11)."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from harness.app.store.store import Store
from harness.providers.models.model_ends import (
    WITHDRAWN_AFTER,
    EndDates,
    EndSource,
    EndStatement,
    group_current,
)
from harness.providers.records import EndStatements
from tests.support.store.records import NOW

pytestmark = pytest.mark.req("F11")

DATES = EndDates(date(2026, 12, 30), date(2026, 6, 1), is_deprecated=True, replacement="m-2")
STATED = EndStatement("t1", EndSource.HEADERS, "headers of answers", DATES, NOW, NOW)


def test_a_newer_reading_replaces_an_older_one_and_never_the_other_way_round(
    store: Store,
) -> None:
    later = NOW + timedelta(minutes=5)
    newer = replace(STATED, dates=EndDates(), seen_at=later, checked_at=later)
    for statement in (STATED, newer, STATED):
        with store.write() as tx:
            EndStatements(tx).note([statement])

    with store.read() as tx:
        assert list(EndStatements(tx).all()) == [newer]


def test_each_source_of_a_target_has_its_own_statement(store: Store) -> None:
    catalogue = replace(STATED, kind=EndSource.CATALOGUE, source="litellm")
    other = replace(STATED, target="t2")
    with store.write() as tx:
        EndStatements(tx).note([STATED, other, catalogue])

    with store.read() as tx:
        assert group_current(EndStatements(tx).all()) == {
            "t1": [catalogue, STATED],
            "t2": [other],
        }
        assert EndStatements(tx).of_headers() == {"t1": STATED, "t2": other}

    with store.write() as tx:
        EndStatements(tx).forget([catalogue])
    with store.read() as tx:
        assert group_current(EndStatements(tx).all()) == {"t1": [STATED], "t2": [other]}


def test_a_withdrawn_statement_counts_no_longer(store: Store) -> None:
    absent_since = NOW + WITHDRAWN_AFTER + timedelta(seconds=1)
    with store.write() as tx:
        EndStatements(tx).note([replace(STATED, checked_at=absent_since)])

    with store.read() as tx:
        assert group_current(EndStatements(tx).all()) == {}
        assert list(EndStatements(tx).of_headers()) == ["t1"]
