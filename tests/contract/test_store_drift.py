"""Drift watches of every store, through the port."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from harness.domain.drift import (
    DriftCheck,
    DriftPlan,
    DriftWatch,
    DriftWatchState,
)
from harness.store.database_errors import RowRefused
from harness.store.store import Store
from tests.support.store.records import NEW, NOW, OLD, PIN, RUN

WATCH = DriftWatch(
    id="dw_1",
    target=OLD.id,
    suite="tickets",
    plan=DriftPlan(PIN.digest, items=200, epochs=2, alpha=0.05),
    state=DriftWatchState.WATCHING,
    opened_at=NOW,
    opened_by="ada",
    reason="the first",
)
CHECK = DriftCheck(watch="dw_1", number=0, run=RUN.id, started_at=NOW)
pytestmark = pytest.mark.req("F7")


@pytest.fixture
def watching(store: Store) -> Store:
    with store.write() as tx:
        for target in (OLD, NEW):
            tx.routing.add_target(target)
        tx.runs.add(RUN)
        tx.runs.add(replace(RUN, id="r_2"))
        assert tx.drift.open(WATCH)
        assert tx.drift.start(CHECK)
    return store


def test_the_database_refuses_what_makes_no_sense(watching: Store) -> None:
    for statement in (
        "UPDATE drift_watch SET state = 'closed'",
        "UPDATE drift_watch SET closed_at = 5",
        "UPDATE drift_watch SET alpha = 1",
        "UPDATE drift_check SET ended_at = 5",
        "UPDATE drift_check SET state = 'counted'",
        "UPDATE drift_check SET run = 'r_9'",
    ):
        with pytest.raises(RowRefused), watching.write() as tx:
            tx.drift._unit.write(sa.text(statement))
