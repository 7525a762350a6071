from dataclasses import replace

import pytest

from harness.domain.drift import DriftCheck, DriftEvidence, DriftPlan, DriftWatch
from harness.store.store import Store
from tests.support.store.records import LATER, NEW, NOW, OLD, PIN, RUN

CHECK = DriftCheck(
    run=RUN.id,
    watch="dw_1",
    number=0,
    target=OLD.id,
    suite="tickets",
    plan=DriftPlan(PIN.digest, items=200, epochs=2, alpha=0.05),
    started_at=NOW,
    started_by="ada",
    reason="the first",
)
pytestmark = pytest.mark.req("F7")


@pytest.fixture
def watching(store: Store) -> Store:
    with store.write() as tx:
        for target in (OLD, NEW):
            tx.routing.add_target(target)
        tx.runs.add(RUN)
        for id_ in ("r_2", "r_3"):
            tx.runs.add(replace(RUN, id=id_))
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
    ended_at=LATER,
    served=("old-1-0502", "old-1-1106"),
    scores=(("i2", 1.0), ("i1", None), ("i3", 0.125)),
    evidence=FOUND,
)


def test_a_target_and_suite_has_one_open_watch_which_closes_once(watching: Store) -> None:
    second = replace(CHECK, run="r_2", watch="dw_2")
    other = replace(CHECK, run="r_3", watch="dw_3", target=NEW.id)
    with watching.write() as tx:
        assert not tx.drift.start(second)
        assert tx.drift.start(other)
        assert tx.drift.is_open("dw_1")
        assert tx.drift.close("dw_1", LATER)
        assert not tx.drift.close("dw_1", LATER)
        assert not tx.drift.close("dw_9", LATER)
        assert not tx.drift.is_open("dw_1")
        assert tx.drift.start(second)

    with watching.read() as tx:
        assert tx.drift.open_watches() == [DriftWatch((second,)), DriftWatch((other,))]
        assert tx.drift.checks("dw_1") == [replace(CHECK, closed_at=LATER)]


def test_a_watch_has_one_running_check_and_it_ends_once(watching: Store) -> None:
    second = replace(CHECK, number=1, run="r_2", reason="")
    with watching.write() as tx:
        assert (tx.drift.is_checking(RUN.id), tx.drift.is_checking("r_2")) == (True, False)
        assert not tx.drift.start(second)
        assert tx.drift.end(ENDED)
        assert not tx.drift.is_checking(RUN.id)
        assert not tx.drift.end(replace(ENDED, message="another"))
        assert not tx.drift.start(replace(CHECK, run="r_2"))
        assert tx.drift.start(second)

    with watching.read() as tx:
        assert tx.drift.open_watches() == [DriftWatch((ENDED, second))]
        assert tx.drift.checks("dw_9") == []
