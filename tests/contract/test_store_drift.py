from dataclasses import replace

import pytest

from harness.app.store.store import Store
from harness.evals.records import Drift
from harness.gate.drift import (
    DriftCheck,
    DriftEvidence,
    DriftPlan,
    DriftWatch,
)
from harness.providers.records import Targets
from harness.routing.records.runs import EvalRuns
from tests.support.store.records import LATER, NEW, NOW, OLD, PIN, RUN

CHECK = DriftCheck(
    run=RUN.id,
    watch="dw_1",
    number=0,
    target=OLD.id,
    suite="tickets",
    plan=DriftPlan(
        PIN.digest,
        items=200,
        epochs=2,
        alpha=0.05,
    ),
    started_at=NOW,
    started_by="ada",
    reason="the first",
)
pytestmark = pytest.mark.req("F7")


@pytest.fixture
def watching(store: Store) -> Store:
    with store.write() as tx:
        for target in (OLD, NEW):
            Targets(tx).add(target)
        EvalRuns(tx).add(RUN)
        for id_ in ("r_2", "r_3"):
            EvalRuns(tx).add(replace(RUN, id=id_))
        assert Drift(tx).start(CHECK)
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
    scores=(
        ("i2", 1.0),
        ("i1", None),
        ("i3", 0.125),
    ),
    evidence=FOUND,
)


def test_a_target_and_suite_has_one_open_watch_which_closes_once(watching: Store) -> None:
    second = replace(CHECK, run="r_2", watch="dw_2")
    other = replace(
        CHECK,
        run="r_3",
        watch="dw_3",
        target=NEW.id,
    )
    with watching.write() as tx:
        assert not Drift(tx).start(second)
        assert Drift(tx).start(other)
        assert Drift(tx).is_open("dw_1")
        assert Drift(tx).close("dw_1", LATER)
        assert not Drift(tx).close("dw_1", LATER)
        assert not Drift(tx).close("dw_9", LATER)
        assert not Drift(tx).is_open("dw_1")
        assert Drift(tx).start(second)

    with watching.read() as tx:
        assert Drift(tx).open_watches() == [
            DriftWatch((second,)),
            DriftWatch((other,)),
        ]
        assert Drift(tx).checks("dw_1") == [replace(CHECK, closed_at=LATER)]


def test_a_watch_has_one_running_check_and_it_ends_once(watching: Store) -> None:
    second = replace(
        CHECK,
        number=1,
        run="r_2",
        reason="",
    )
    with watching.write() as tx:
        assert (
            Drift(tx).is_checking(RUN.id),
            Drift(tx).is_checking("r_2"),
        ) == (True, False)
        assert not Drift(tx).start(second)
        assert Drift(tx).end(ENDED)
        assert not Drift(tx).is_checking(RUN.id)
        assert not Drift(tx).end(replace(ENDED, message="another"))
        assert not Drift(tx).start(replace(CHECK, run="r_2"))
        assert Drift(tx).start(second)

    with watching.read() as tx:
        assert Drift(tx).open_watches() == [DriftWatch((ENDED, second))]
        assert Drift(tx).checks("dw_9") == []
