"""The control process may die at any write: what is left is a state of the table, none between.

Real kills of real processes are in test_kill_nine.py; here units of work are hit one by one,
before their commit and after.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.control import routes
from harness.domain.proposal import Phase
from harness.ports import Store
from harness.store.sql import SqlStore
from tests.world import ITEMS, SECRET, Crash, CrashingStore, World

CRASH_POINTS = [(at, after) for at in range(1, 26) for after in (False, True)]


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, store=None)  # type: ignore[arg-type]  # set in the next line
    made.store = SqlStore(sqlite_url, secret=SECRET, clock=made.clock)
    made.set_up()
    yield made
    made.store.close()


def live(world: World, proposal: str, store: Store, turns: int) -> bool:
    """One life of a control process. Whether it reached the end without dying."""
    ctx = world.context(store)
    try:
        for _ in range(turns):
            world.turn(ctx)
            world.feed()
            if not world.get(proposal).open:
                return True
    except Crash:
        # The worker that died with it holds its lease until that runs out.
        world.clock.advance(30)
        return False
    return True


@pytest.mark.req("F1", "F5")
@pytest.mark.parametrize(("at", "after_commit"), CRASH_POINTS)
def test_a_crash_at_any_write_leaves_a_right_state_and_the_next_process_ends_the_job(
    world: World,
    at: int,
    after_commit: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    # The tenths: the first writes are the proposal's, later ones samples, then the canary's.
    point = at if at <= 10 else 10 + (at - 10) * 9
    proposal = world.propose("sim/better")
    crashing = CrashingStore(world.store, at=point, after_commit=after_commit)
    live(world, proposal.id, crashing, turns=40)  # type: ignore[arg-type]

    assert live(world, proposal.id, world.store, turns=80)

    after = world.get(proposal.id)
    assert after.phase is Phase.PROMOTED
    table = routes.table(world.context())
    assert table.routes["chat"].incumbent == after.candidate
    assert table.routes["chat"].canary is None
    with world.store.read() as tx:
        assert len(tx.verdicts.of(proposal.id)) == 1
        assert [r.state.value for r in tx.rollouts.list(route="chat")] == ["promoted"]
        assert tx.audit.first_break() is None
        for run in tx.runs.list():
            asked = [(s.item, s.epoch) for s in tx.runs.samples(run.id)]
            assert len(asked) == len(set(asked)) <= ITEMS
