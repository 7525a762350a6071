"""Drift watches of every store, through the port."""

from dataclasses import replace

import pytest

from harness.domain.drift import (
    DriftCheck,
    DriftCheckState,
    DriftEvidence,
    DriftPlan,
    DriftWatch,
    DriftWatchState,
)
from harness.store.store import Store
from tests.support.store.records import LATER, NEW, NOW, OLD, PIN, RUN

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


FOUND = DriftEvidence(
    check=1,
    window=1,
    items=2,
    delta=-0.25,
    ci_low=None,
    ci_high=0.1,
    ci_method="t",
    log_e=3.25,
    log_e_limit=3.0,
    direction="worse",
    drifted=True,
    worse=1,
    same=1,
    better=0,
)


ENDED = replace(
    CHECK,
    state=DriftCheckState.COUNTED,
    ended_at=LATER,
    message="as planned",
    served=("old-1-0502", "old-1-1106"),
    scores=(("i2", 1.0), ("i1", None), ("i3", 0.125)),
    evidence=FOUND,
)


def test_a_target_and_suite_has_one_open_watch_which_stays_as_it_was_closed(
    watching: Store,
) -> None:
    second = replace(WATCH, id="dw_2", opened_at=LATER)
    closed = replace(WATCH, state=DriftWatchState.CLOSED, closed_at=LATER)
    with watching.write() as tx:
        assert tx.drift.watches() == [WATCH]
        assert not tx.drift.open(second)
        assert tx.drift.open(replace(second, id="dw_3", target=NEW.id))
        assert tx.drift.save(replace(WATCH, state=DriftWatchState.DRIFTED))
        assert tx.drift.save(closed)
        assert not tx.drift.save(WATCH)
        assert not tx.drift.save(replace(WATCH, id="dw_9"))
        assert tx.drift.open(second)

    with watching.read() as tx:
        assert [watch.id for watch in tx.drift.watches()] == ["dw_2", "dw_3", "dw_1"]
        assert [watch.id for watch in tx.drift.open_watches()] == ["dw_2", "dw_3"]
        assert tx.drift.watches()[2] == closed


def test_a_watch_has_one_running_check_and_it_ends_once(watching: Store) -> None:
    second = replace(CHECK, number=1, run="r_2")
    with watching.write() as tx:
        assert (tx.drift.is_checking(RUN.id), tx.drift.is_checking("r_2")) == (True, False)
        assert not tx.drift.start(second)
        assert tx.drift.end(ENDED)
        assert not tx.drift.is_checking(RUN.id)
        assert not tx.drift.end(replace(ENDED, message="another"))
        assert not tx.drift.start(replace(CHECK, run="r_2"))
        assert tx.drift.start(second)

    with watching.read() as tx:
        assert tx.drift.checks("dw_1") == [ENDED, second]
        assert tx.drift.checks("dw_9") == []
