"""A control process that leads freezes in the middle of a job, another one leads and runs the
same job, and the first one goes on: nothing happens twice.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness.control import reconciler
from harness.control.operations import alerts
from harness.control.privacy import housekeeping
from harness.domain.errors import SwapgateError
from harness.domain.operations.alerts import AlertKind
from harness.domain.proposals.proposal import ProposalPhase
from harness.store.store import Store
from tests.support.control.control_plane import SECRET, SmallInstallation
from tests.support.control.manual_clock import ManualClock
from tests.support.site.signing_keys import CONTROL
from tests.support.store.interrupted_store import InterruptedStore

pytestmark = [pytest.mark.both_databases, pytest.mark.req("F1", "G6")]
UNITS = range(1, 9)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[SmallInstallation]:
    clock = ManualClock()
    with closing(Store(database_url, secret=SECRET, clock=clock, signatures=CONTROL)) as store:
        made = SmallInstallation(tmp_path, store, clock=clock)
        made.set_up()
        yield made


@pytest.fixture
def elsewhere(database_url: str, world: SmallInstallation) -> Iterator[Store]:
    """The store of another control process."""
    with closing(
        Store(database_url, secret=SECRET, clock=world.clock, signatures=CONTROL)
    ) as store:
        yield store


@pytest.mark.parametrize("unit", UNITS)
def test_an_alert_is_sent_once_to_each_sink(
    world: SmallInstallation, elsewhere: Store, unit: int
) -> None:
    with world.store.write() as tx:
        alerts.raise_alert(
            world.context(),
            tx,
            AlertKind.JOB_FAILED,
            "a job",
            subject="a job",
            title="it failed",
            text="x",
        )
    frozen = InterruptedStore(
        world.store, at=unit, act=lambda: alerts.run_once(world.context(elsewhere))
    )

    with suppress(SwapgateError):
        alerts.run_once(world.context(cast("Store", frozen)))
    alerts.run_once(world.context())

    assert [len(world.sinks.kept[sink]) for sink in ("chat", "mail")] == [1, 1]


@pytest.mark.parametrize("unit", range(1, 6))
def test_a_scheduled_eval_is_queued_once(
    world: SmallInstallation, elsewhere: Store, unit: int
) -> None:
    def evaluate(store: Store) -> None:
        housekeeping.evaluate_incumbents(world.context(store), suite="colours")

    frozen = InterruptedStore(world.store, at=unit, act=lambda: evaluate(elsewhere))

    evaluate(cast("Store", frozen))

    with world.store.read() as tx:
        assert len(tx.runs.list()) == 1


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(unit, marks=[] if unit == 4 else [pytest.mark.verify])
        for unit in range(1, 16)
    ],
)
def test_a_swap_whose_every_turn_freezes_goes_each_step_once(
    world: SmallInstallation, elsewhere: Store, unit: int
) -> None:
    proposal = world.propose("sim/better").id
    rival = world.context(elsewhere)
    for _ in range(60):
        frozen = InterruptedStore(world.store, at=unit, act=lambda: reconciler.reconcile(rival))
        ctx = replace(world.context(), store=cast("Store", frozen))
        world.run_once(ctx)
        world.feed()
        if not world.get(proposal).open:
            break

    assert world.get(proposal).phase is ProposalPhase.PROMOTED
    with world.store.read() as tx:
        events = [*tx.audit.all()]
        runs = tx.runs.list()
        assert tx.audit.first_break() is None
    seen = Counter(event.action for event in events)
    once = {action for action in seen if action.startswith("proposal.")} | {"canary.promote"}
    assert {action: seen[action] for action in once} == dict.fromkeys(once, 1)
    assert len(runs) == len({(run.suite, run.target) for run in runs})
    assert world.store.signature_faults() == []
